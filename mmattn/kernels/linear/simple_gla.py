"""Simple gated linear attention: one decay per head and token (Mamba-2, arXiv 2405.21060; RetNet, arXiv 2307.08621).

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk.
"""

from functools import partial

from torch import Tensor

from mmattn.kernels.linear.one_token import gated_step
from mmattn.kernels.linear.scalar_chunks import scalar_chunks
from mmattn.kernels.linear.sequences import Layout, Mode, check_options, over_sequences
from mmattn.kernels.linear.token_by_token import gated_recurrence

__all__ = ["simple_gla", "simple_gla_step"]


def simple_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns ``o_t = scale q_t S_t`` with ``S_t = exp(g_t) S_{t-1} + k_t^T v_t`` for all tokens, and ``S_T``.

    The constant gate ``log(1 - 2^(-5-h))`` of head h makes it RetNet. In mode ``chunk`` the decays inside a chunk are
    one ``C x C`` matrix per head: time ``O(T (C (K + V) + K V))`` per head. Options, results and memory are those of
    the family, ``mmattn.kernels.linear``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``.
        v: values ``(B, H, T, V)``.
        g: logarithms of the decays ``(B, H, T)``, <= 0.
        scale: multiplies q, default ``1 / sqrt(K)``.
        initial_state: ``(B, H, K, V)``; for this and what follows see ``mmattn.kernels.linear``.
        mode: ``auto``, ``naive`` or ``chunk``.
        chunk_size: C.
        layout: ``bhtd`` or ``bthd``.
        cu_seqlens: int ``(N + 1,)``, borders of packed sequences.
        mask: bool ``(B, T)``, False at padding.

    Returns:
        ``o (B, H, T, V)`` in the dtype of v and the state ``(B, H, K, V)``, float32 or wider, both differentiable.

    Raises:
        ValueError: shapes or options do not fit, or a gate is positive; the message says what was given and expected.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = simple_gla(one, one, one, torch.full((1, 1, 3), 0.5).log())
        >>> out.flatten().round(decimals=4).tolist(), state.shape
        ([1.0, 1.5, 1.75], torch.Size([1, 1, 1, 1]))
    """
    check_options(mode, layout, chunk_size=chunk_size)
    return over_sequences(
        {"q": q, "k": k, "v": v, "g": g},
        naive=gated_recurrence,
        chunks=partial(scalar_chunks, chunk_size=chunk_size),
        scale=scale,
        initial_state=initial_state,
        mode=mode,
        layout=layout,
        cu_seqlens=cu_seqlens,
        mask=mask,
    )


def simple_gla_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; ``O(K V)`` time, differentiable.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        g: ``(B, H)``, <= 0 (not checked, for speed).
        state: ``(B, H, K, V)``, not changed; its dtype is the one of the arithmetic.
        scale: multiplies q, default ``1 / sqrt(K)``.

    Returns:
        ``(B, H, V)`` in the dtype of v and the state ``(B, H, K, V)``.
    """
    return gated_step(q, k, v, g[..., None], state, scale)
