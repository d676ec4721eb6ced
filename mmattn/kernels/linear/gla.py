"""Gated linear attention (GLA, Yang et al., arXiv 2312.06635): a matrix-valued state that every channel forgets.

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk.
"""

from functools import partial

from torch import Tensor

from mmattn.kernels.backends.resolve import ChunkBackend, resolve_chunks
from mmattn.kernels.linear.gla_chunks import gla_chunks
from mmattn.kernels.linear.one_token import gated_step
from mmattn.kernels.linear.sequences import Layout, Mode, Options, over_sequences
from mmattn.kernels.linear.token_by_token import gated_recurrence

__all__ = ["gated_linear_attention", "gated_linear_attention_step"]


def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    subchunk_size: int = 8,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
    backend: ChunkBackend = "auto",
) -> tuple[Tensor, Tensor]:
    """Returns ``o_t = scale q_t S_t`` with ``S_t = diag(exp g_t) S_{t-1} + k_t^T v_t`` for all tokens, and ``S_T``.

    (arXiv 2312.06635, Eq. 3.) The decay acts before the current token is added, and the output sees the current token.
    Mode ``chunk`` computes it by matrix products inside chunks of C tokens and a short recurrence over chunks (section
    4.2 of the paper): time ``O(T (C (K + V) + K V))`` per head. On CUDA our Triton kernels do the same for all chunks
    at once, with one state per chunk while they run. Options, results and memory: ``mmattn.kernels.linear``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``.
        v: values ``(B, H, T, V)``.
        g: logarithms of the decays ``(B, H, T, K)``, <= 0; 0 keeps, ``-inf`` forgets at once.
        chunk_size: C, rounded up to a power of two, in Triton from 16 to 64.
        subchunk_size: the smallest part of a chunk whose pairs of tokens are one matrix product; below it, where
            decays are too strong for that, the products are built up from pairs of tokens. It does not change the
            result. In Triton it is always 16.
        backend: of the chunk form. ``auto`` takes Triton on CUDA where it can, and PyTorch elsewhere
            (``backends.resolve_chunks`` explains); ``torch`` and ``triton`` are that or an error.

    Raises:
        ValueError: shapes or options do not fit, or a gate is positive; the message says what was given and expected.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = gated_linear_attention(one, one, one, torch.log(0.5 * one))
        >>> out.flatten().round(decimals=4).tolist(), state.shape
        ([1.0, 1.5, 1.75], torch.Size([1, 1, 1, 1]))
    """
    options = Options(scale, initial_state, mode, layout, cu_seqlens, mask)
    options.check(chunk_size=chunk_size, subchunk_size=subchunk_size)
    if mode == "naive" and backend != "auto":
        raise ValueError(f"backend={backend!r} is a way to compute chunks, got mode='naive'; use mode='chunk'")
    if backend != "auto":
        options = options._replace(mode="chunk")
    chunks = partial(_chunks, chunk_size=chunk_size, subchunk_size=subchunk_size, backend=backend)
    return over_sequences({"q": q, "k": k, "v": v, "g": g}, options, naive=gated_recurrence, chunks=chunks)


def gated_linear_attention_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see "Steps" in ``mmattn.kernels.linear``.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        g: ``(B, H, K)``, <= 0.
        state: ``(B, H, K, V)``.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 1)
        >>> gated_linear_attention_step(one, one, one, torch.log(0.5 * one), torch.ones(1, 1, 1, 1))[0].item()
        1.5
    """
    return gated_step(q, k, v, g, state, scale)


def _chunks(
    *tensors: Tensor, state: Tensor, scale: float, chunk_size: int, subchunk_size: int, backend: ChunkBackend
) -> tuple[Tensor, Tensor]:
    if resolve_chunks(tensors, backend).name == "triton":
        # Triton is imported where it is about to be used, and only there.
        from mmattn.kernels.backends import triton_gla

        return triton_gla.gla_chunks(
            *tensors, state=state, scale=scale, chunk_size=chunk_size, definition=gated_recurrence
        )
    return gla_chunks(
        *tensors, state=state, bonus=None, scale=scale, chunk_size=chunk_size, subchunk_size=subchunk_size,
        definition=gated_recurrence,
    )  # fmt: skip
