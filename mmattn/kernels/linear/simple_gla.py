"""Simple gated linear attention: one decay per head and token (Mamba-2, arXiv 2405.21060; RetNet, arXiv 2307.08621).

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk.
"""

from functools import partial

from torch import Tensor

from mmattn.kernels.linear.one_token import gated_step
from mmattn.kernels.linear.scalar_chunks import scalar_chunks
from mmattn.kernels.linear.sequences import Layout, Mode, Options, over_sequences
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
    one ``C x C`` matrix per head: time ``O(T (C (K + V) + K V))`` per head. Options, results and memory:
    ``mmattn.kernels.linear``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``.
        v: values ``(B, H, T, V)``.
        g: logarithms of the decays ``(B, H, T)``, <= 0.

    Raises:
        ValueError: shapes or options do not fit, or a gate is positive; the message says what was given and expected.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = simple_gla(one, one, one, torch.full((1, 1, 3), 0.5).log())
        >>> out.flatten().round(decimals=4).tolist(), state.shape
        ([1.0, 1.5, 1.75], torch.Size([1, 1, 1, 1]))
    """
    options = Options(scale, initial_state, mode, layout, cu_seqlens, mask)
    options.check(chunk_size=chunk_size)
    chunks = partial(scalar_chunks, chunk_size=chunk_size)
    return over_sequences({"q": q, "k": k, "v": v, "g": g}, options, naive=gated_recurrence, chunks=chunks)


def simple_gla_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see "Steps" in ``mmattn.kernels.linear``.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        g: ``(B, H)``, <= 0.
        state: ``(B, H, K, V)``.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 1)
        >>> simple_gla_step(one, one, one, torch.log(0.5 * one[0]), torch.ones(1, 1, 1, 1))[0].item()
        1.5
    """
    return gated_step(q, k, v, g[..., None], state, scale)
