"""Which backend runs, and why."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

from torch import Tensor

__all__ = ["BACKENDS", "CHUNK_BACKENDS", "Backend", "ChunkBackend", "Resolution", "resolve", "resolve_chunks"]

Backend = Literal["auto", "reference", "cpu", "triton", "flex", "scored"]
BACKENDS: tuple[str, ...] = get_args(Backend)
ChunkBackend = Literal["auto", "torch", "triton"]
CHUNK_BACKENDS: tuple[str, ...] = get_args(ChunkBackend)
# Backends that can add terms to the scores.
_WITH_TERMS = ("reference", "scored")


class Resolution(NamedTuple):
    """The chosen backend and the reason in one sentence."""

    name: str
    reason: str


def resolve(q: Tensor, backend: Backend = "auto", *, terms: Sequence[str] = ()) -> Resolution:
    """Returns the backend that will run for these queries ``(B, H, T, D)``, and why.

    Args:
        q: the queries.
        backend: what was asked for.
        terms: which of ``bias``, ``alibi_slopes`` and ``softcap`` the call has.

    Raises:
        ValueError: the backend is not known, can not run on the tensor's device, or does not know the terms.

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
        if terms and backend not in _WITH_TERMS:
            raise ValueError(
                f"backend {backend!r} knows no {', '.join(terms)}; use backend='auto', 'scored' or 'reference'"
            )
        return Resolution(backend, f"backend={backend!r} was asked for")
    if terms:
        return Resolution(
            "scored",
            f"{', '.join(terms)} given, which no fused kernel here adds to the scores: "
            f"rows of selected blocks as matrix products of PyTorch on {q.device.type}",
        )
    if q.device.type == "cuda":
        return Resolution("triton", "tensors are on a CUDA device: Triton kernels")
    if q.device.type == "cpu":
        return Resolution(
            "cpu", "tensors are on the CPU: gathered blocks through the native flash kernel, nothing compiled"
        )
    return Resolution("reference", f"there is no fast backend for device type {q.device.type!r}: dense definition")


def resolve_chunks(tensors: Sequence[Tensor], backend: ChunkBackend = "auto") -> Resolution:
    """Returns what computes the chunk form of gated linear attention for q, k, v and g ``(B, H, T, D)``, and why.

    Raises:
        ValueError: the backend is not known, or can not run on these tensors.

    Example:
        >>> import torch
        >>> resolve_chunks([torch.zeros(1, 1, 4, 8)] * 4)
        Resolution(name='torch', reason='tensors are on the CPU: chunks as matrix products of PyTorch')
    """
    if backend not in CHUNK_BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(CHUNK_BACKENDS)}, got {backend!r}")
    if backend == "torch":
        return Resolution("torch", "backend='torch' was asked for")
    device = tensors[0].device.type
    if backend == "auto" and device != "cuda":
        where = "the CPU" if device == "cpu" else f"device type {device!r}"
        return Resolution("torch", f"tensors are on {where}: chunks as matrix products of PyTorch")
    obstacle = _obstacle(tensors)
    if backend == "triton":
        if obstacle:
            raise ValueError(f"backend 'triton' can not run: {obstacle}. Use backend='auto' or 'torch'")
        return Resolution("triton", "backend='triton' was asked for")
    if obstacle:
        return Resolution("torch", f"{obstacle}: chunks as matrix products of PyTorch")
    return Resolution("triton", "tensors are on a CUDA device: Triton kernels")


def _obstacle(tensors: Sequence[Tensor]) -> str | None:
    """Returns why Triton cannot run on the tensors, None if it can."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    # Triton is imported where it is about to be used, and only there.
    from mmattn.kernels.backends.triton_gla import obstacle

    return obstacle(tensors)
