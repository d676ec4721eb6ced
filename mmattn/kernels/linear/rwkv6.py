"""The time mixing of RWKV-6 (Eagle and Finch, arXiv 2404.05892): per-channel decay, a bonus for the current token.

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk.
"""

from functools import partial

import torch
from torch import Tensor

from mmattn.kernels.linear.gla_chunks import gla_chunks
from mmattn.kernels.linear.one_token import cast, read, update
from mmattn.kernels.linear.sequences import Layout, Mode, Options, over_sequences
from mmattn.kernels.states import trainable

__all__ = ["rwkv6", "rwkv6_step"]


def rwkv6(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    subchunk_size: int = 8,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns ``o_t = scale q_t (S_{t-1} + diag(u) k_t^T v_t)``, ``S_t = diag(exp w_t) S_{t-1} + k_t^T v_t``, and S_T.

    (arXiv 2404.05892, section 4.2, where q is called receptance.) Unlike gated linear attention an output sees the
    state before the decay of its own token, which counts with the weights u instead. Costs are those of
    ``gated_linear_attention``; options, results and memory: ``mmattn.kernels.linear``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``.
        v: values ``(B, H, T, V)``.
        w: logarithms of the decays ``(B, H, T, K)``, <= 0: ``-exp(x)`` of what the network computes.
        u: bonus ``(H, K)`` of the current token.
        scale: multiplies q, default ``1 / sqrt(K)``; the published layer uses 1.
        chunk_size: C, rounded up to a power of two.
        subchunk_size: see ``gated_linear_attention``.

    Raises:
        ValueError: shapes or options do not fit, or w is positive; the message says what was given and expected.

    Example:
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = rwkv6(one, one, one, torch.log(0.5 * one), torch.full((1, 1), 2.0))
        >>> out.flatten().round(decimals=4).tolist(), state.shape
        ([2.0, 3.0, 3.5], torch.Size([1, 1, 1, 1]))
    """
    options = Options(scale, initial_state, mode, layout, cu_seqlens, mask)
    options.check(chunk_size=chunk_size, subchunk_size=subchunk_size)
    if q.ndim == 4 and u.shape != (expected := (q.shape[1 if layout == "bhtd" else 2], q.shape[3])):
        raise ValueError(f"u must be (H, K) = {expected}, got {tuple(u.shape)}")
    chunks = partial(gla_chunks, bonus=u, chunk_size=chunk_size, subchunk_size=subchunk_size, definition=_naive)
    tensors = {"q": q, "k": k, "v": v, "w": w}
    return over_sequences(tensors, options, naive=lambda *x, **rest: _naive(*x, u, **rest), chunks=chunks)


def rwkv6_step(
    q: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see "Steps" in ``mmattn.kernels.linear``.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        w: ``(B, H, K)``, <= 0.
        u: ``(H, K)``.
        state: ``(B, H, K, V)``.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> rwkv6_step(one, one, one, torch.log(0.5 * one), 2 * one[0], torch.ones(1, 1, 1, 1))
        (tensor([[[3.]]]), tensor([[[[1.5000]]]]))
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype, state = v.dtype, trainable(state)
    q, k, v, w, u = cast(state.dtype, q, k, v, w, u)
    # The bonus needs no K x V product: q diag(u) k^T is one number per head.
    bonus = scale * (q * u * k).sum(dim=-1, keepdim=True)
    out = torch.addcmul(read(q, state, scale, v), bonus, v)
    return out.to(dtype), update(state, w.exp(), k, v)


def _naive(*tensors: Tensor, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    q, k, v, w, u = (x.to(state.dtype) for x in tensors)
    outs = []
    for t in range(q.shape[2]):
        added = k[:, :, t, :, None] * v[:, :, t, None, :]
        outs.append(scale * (q[:, :, t, :, None] * (state + u[:, :, None] * added)).sum(dim=2))
        state = state * w[:, :, t, :, None].exp() + added
    return (torch.stack(outs, dim=2) if outs else v), state
