"""Which backend runs, and why."""

from typing import Literal, NamedTuple, get_args

from torch import Tensor

__all__ = ["BACKENDS", "Backend", "Resolution", "resolve"]

Backend = Literal["auto", "reference", "cpu", "triton", "flex"]
BACKENDS: tuple[str, ...] = get_args(Backend)


class Resolution(NamedTuple):
    """The chosen backend and the reason in one sentence."""

    name: str
    reason: str


def resolve(q: Tensor, backend: Backend = "auto") -> Resolution:
    """Returns the backend that will run for this query tensor, and why.

    Raises:
        ValueError: the backend is not known, or can not run on the tensor's device.

    Example:
        >>> import torch
        >>> resolve(torch.zeros(1, 1, 4, 8)).name
        'cpu'
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "cpu" and q.device.type != "cpu":
        raise ValueError(f"backend 'cpu' needs tensors on the CPU, got {q.device}; use backend='auto'")
    if backend != "auto":
        return Resolution(backend, f"backend={backend!r} was asked for")
    if q.device.type == "cuda":
        return Resolution("triton", "tensors are on a CUDA device: Triton kernels")
    if q.device.type == "cpu":
        return Resolution(
            "cpu", "tensors are on the CPU: gathered blocks through the native flash kernel, nothing compiled"
        )
    return Resolution("reference", f"there is no fast backend for device type {q.device.type!r}: dense definition")
