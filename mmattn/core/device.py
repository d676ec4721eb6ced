"""Which device a model runs on, chosen once at the boundary."""

from __future__ import annotations

import torch

from mmattn.errors import InputError

__all__ = ["resolve_device"]


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Returns the device to run on; ``"auto"`` is CUDA when there is one, else the CPU.

    Apple's ``mps`` is used on request only: it has no float64, which the reference paths rely on.

    Args:
        device: ``"auto"`` or anything :class:`torch.device` accepts, for example ``"cuda:1"``.

    Raises:
        InputError: If the name is no device, or this machine or build of torch does not have it.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"{str(device)!r} is not a device.", "Use auto, cpu, cuda, cuda:N or mps.") from error
    if chosen.type == "cuda":
        check_cuda(chosen)
    elif chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("Device 'mps' was asked for, but this machine has none.", "Use --device auto or cpu.")
    return chosen


def check_cuda(device: torch.device) -> None:
    """Checks that ``device`` is a CUDA device of this machine.

    Raises:
        InputError: If it is not.
    """
    if not torch.cuda.is_available():
        raise InputError(
            f"Device {str(device)!r} was asked for, but torch {torch.__version__} sees no CUDA device.",
            "Use --device auto or cpu, or install a CUDA build of torch and its driver.",
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise InputError(
            f"Device {str(device)!r} was asked for, but there are {count} CUDA devices, counted from 0.",
            f"Use a number below {count}.",
        )
