"""``mmattn info``: versions, devices, backends and embedded models of this installation."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mmattn import __version__
from mmattn.commands.systems import SYSTEMS, parser_for

__all__ = ["collect", "main"]

PACKAGES = {
    "torch": "", "numpy": "", "pillow": "", "safetensors": "", "huggingface_hub": "",
    "lightning": "train", "jsonargparse": "train", "torchmetrics": "train", "matplotlib": "train",
    "timm": "vision", "open-clip-torch": "vision", "opencv-python-headless": "vision",
    "decord": "video", "av": "video", "soundfile": "speech", "gradio": "apps",
    "onnx": "export", "onnxruntime": "export",
}  # fmt: skip
"""Distribution -> extra of mmattn that brings it; empty for the core."""


def main(argv: Sequence[str]) -> int:
    """Prints what this installation has."""
    parser = parser_for("info", "Shows versions, devices, kernel backends and embedded models.", "mmattn info --json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(list(argv))
    facts = collect()
    print(json.dumps(facts, indent=2) if args.json else as_text(facts))
    return 0


def collect() -> dict[str, Any]:
    """Returns the facts as plain JSON types."""
    return {
        "mmattn": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in PACKAGES},
        "devices": devices(),
        "backends": backends(),
        "embedded_models": embedded_models(),
    }


def installed(name: str) -> str | None:
    """Returns the version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> dict[str, str]:
    """Returns a description of every device a model can run on, by its name for ``--device``."""
    import torch

    found = {"cpu": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def backends() -> dict[str, str]:
    """Returns, by type of device, which attention backend runs there and why."""
    import torch

    from mmattn.kernels.backends.resolve import resolve

    kinds = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    found = {}
    for kind in kinds:
        choice = resolve(torch.zeros(1, 1, 1, 8, device=kind))
        found[kind] = f"{choice.name} ({choice.reason})"
    return found


def embedded_models() -> dict[str, str | None]:
    """Returns the size of each system's embedded model, None where there is none."""
    from mmattn.core.weights.checkpoint import embedded_path

    found: dict[str, str | None] = {}
    for system in SYSTEMS:
        weights = embedded_path(system) / "model.safetensors"
        found[system] = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else None
    return found


def as_text(facts: dict[str, Any]) -> str:
    """Returns the facts as lines for people."""
    lines = [f"mmattn {facts['mmattn']}, Python {facts['python']}, {facts['platform']}", "", "packages"]
    for name, number in facts["packages"].items():
        extra = PACKAGES[name]
        lines.append(f"  {name:24} {number or f'not installed (extra: {extra})'}")
    for title, key in (
        ("devices", "devices"),
        ("attention backends", "backends"),
        ("embedded models", "embedded_models"),
    ):
        lines += ["", title, *(f"  {name:10} {value or 'none'}" for name, value in facts[key].items())]
    return "\n".join(lines)
