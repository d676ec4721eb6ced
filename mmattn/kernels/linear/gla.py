"""Gated linear attention (GLA, Yang et al., arXiv 2312.06635): a matrix-valued state that every channel forgets.

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk.
"""

from functools import partial

import torch
from torch import Tensor

from mmattn.kernels.backends.resolve import ChunkBackend, resolve_chunks
from mmattn.kernels.linear.gla_chunks import gla_chunks
from mmattn.kernels.linear.one_token import cast, read, update
from mmattn.kernels.linear.sequences import Kernel, Layout, Mode, check_gates, check_options, over_sequences

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
    4.2 of the paper): time ``O(T (C + V) (K + V))`` per head, memory beside inputs and outputs that of about 1024
    tokens at a time. No factor it forms can overflow, however strong the decay. It has a backward pass of its own, for
    which it keeps one state per 1024 tokens and recomputes the others; differentiating twice is for mode ``naive``.
    On CUDA our Triton kernels do the same for all chunks at once, with one state per chunk while they run.
    Mode ``naive`` is the definition, token by token; under autograd it keeps every state, ``O(T K V)``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``.
        v: values ``(B, H, T, V)``.
        g: logarithms of the decays ``(B, H, T, K)``, <= 0; 0 keeps, ``-inf`` forgets at once.
        scale: multiplies q, default ``1 / sqrt(K)``.
        initial_state: ``(B, H, K, V)``, not changed; ``(N, H, K, V)`` with ``cu_seqlens``. Default zeros.
        mode: ``auto`` takes ``chunk`` for more than one token.
        chunk_size: C, rounded up to a power of two, in Triton from 16 to 64; it does not change the result.
        subchunk_size: the smallest part of a chunk whose pairs of tokens are one matrix product; below it, where
            decays are too strong for that, the products are built up from pairs of tokens. It does not change the
            result either. In Triton it is always 16.
        layout: ``bhtd``, or ``bthd`` for tensors and outputs ``(B, T, H, .)``.
        cu_seqlens: int ``(N + 1,)``: borders of N sequences packed along T, B = 1; each has a state of its own.
        mask: bool ``(B, T)``, False at padding. Padding leaves the state as it is, without decay, and gives output 0.
        backend: of the chunk form. ``auto`` takes Triton on CUDA where it can, and PyTorch elsewhere
            (``backends.resolve_chunks`` explains); ``torch`` and ``triton`` are that or an error.

    Returns:
        ``o (B, H, T, V)`` in the dtype of v and the state ``(B, H, K, V)``, float32 or wider. Both are differentiable
        with respect to q, k, v, g and the initial state.

    Raises:
        ValueError: shapes or options do not fit, or a gate is positive; the message says what was given and expected.

    Example:
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = gated_linear_attention(one, one, one, torch.log(0.5 * one))
        >>> out.flatten().round(decimals=4).tolist(), state.shape
        ([1.0, 1.5, 1.75], torch.Size([1, 1, 1, 1]))
    """
    check_options(mode, layout, chunk_size=chunk_size, subchunk_size=subchunk_size)
    check_gates(g)
    if mode == "naive" and backend != "auto":
        raise ValueError(f"backend={backend!r} is a way to compute chunks, got mode='naive'; use mode='chunk'")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    one_token = q.shape[2 if layout == "bhtd" else 1] == 1
    kernel: Kernel
    if mode == "naive" or (mode == "auto" and backend == "auto" and one_token):
        kernel = partial(_naive, scale=scale)
    elif resolve_chunks([q, k, v, g], backend).name == "triton":
        # Triton is imported where it is about to be used, and only there.
        from mmattn.kernels.backends import triton_gla

        kernel = partial(triton_gla.gla_chunks, scale=scale, chunk_size=chunk_size)
    else:
        kernel = partial(gla_chunks, bonus=None, scale=scale, chunk_size=chunk_size, subchunk_size=subchunk_size)
    return over_sequences(
        kernel,
        {"q": q, "k": k, "v": v, "g": g},
        initial_state=initial_state,
        layout=layout,
        cu_seqlens=cu_seqlens,
        mask=mask,
    )


def gated_linear_attention_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; ``O(K V)`` time, differentiable.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        g: ``(B, H, K)``, <= 0 (not checked, for speed).
        state: ``(B, H, K, V)``, not changed; its dtype is the one of the arithmetic.
        scale: multiplies q, default ``1 / sqrt(K)``.

    Returns:
        ``(B, H, V)`` in the dtype of v and the state ``(B, H, K, V)``.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = v.dtype
    q, k, v, g = cast(state.dtype, q, k, v, g)
    state = update(state, g.exp(), k, v)
    return read(q, state, scale, v).to(dtype), state


def _naive(*tensors: Tensor, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    q, k, v, g = (x.to(state.dtype) for x in tensors)
    outs = []
    for t in range(q.shape[2]):
        state = state * g[:, :, t, :, None].exp() + k[:, :, t, :, None] * v[:, :, t, None, :]
        outs.append(scale * (q[:, :, t, :, None] * state).sum(dim=2))
    return (torch.stack(outs, dim=2) if outs else v), state
