"""What a measurement was taken on: processor, memory, versions, date."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

import mmattn

__all__ = ["describe_machine"]


def describe_machine() -> dict[str, str | int | float]:
    """Returns processor, usable cores, memory in GiB, load, versions and the UTC date, ready for JSON."""
    machine: dict[str, str | int | float] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "simd": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mmattn": mmattn.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if hasattr(os, "getloadavg"):
        # A busy machine makes ratios of medians noisy; who reads a record should see it.
        machine["load_average"] = round(os.getloadavg()[0], 2)
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PAGE_SIZE" in names and "SC_PHYS_PAGES" in names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0
