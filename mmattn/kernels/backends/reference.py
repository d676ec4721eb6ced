"""The definition of attention: dense scores, a boolean mask, a softmax. Every other backend is tested against it.

It is also what runs where the others can not: under compilers and function transforms, on fake tensors, and for
derivatives of gradients. So nothing here asks for a value of a tensor.
"""

import torch
from torch import Tensor

from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.score_terms import NO_TERMS, ScoreTerms, aligned_positions

__all__ = ["block_sparse_attention", "dense_attention"]


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float, terms: ScoreTerms = NO_TERMS
) -> tuple[Tensor, Tensor]:
    """Returns ``softmax(scale q k^T + mask) v`` and the log-sum-exp of the scaled, masked scores.

    Runs in float32 for narrower inputs and in the input's dtype otherwise; O(Tq Tk) memory; differentiable any number
    of times.

    Args:
        q: ``(B, H, Tq, D)``.
        k: ``(B, Hkv, Tk, D)``; query head ``h`` reads key head ``h // (H / Hkv)``.
        v: ``(B, Hkv, Tk, Dv)``.
        blocks: the mask.
        scale: multiplies the scores.
        terms: bias, slopes and softcap.

    Returns:
        ``out (B, H, Tq, Dv)`` in the dtype of q and ``lse (B, H, Tq)``; rows that attend nothing give 0 and ``-inf``,
        rows that attend a key or value that is not finite give NaN.

    Example:
        >>> x, blocks = torch.eye(2)[None, None], BlockIndex.causal(2, q_block=1, k_block=1)
        >>> block_sparse_attention(x, x, x, blocks, scale=0.0)[0][0, 0].tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    positions = aligned_positions(blocks.q_len, blocks.k_len, q.device, blocks)
    return _attention(q, k, v, blocks.tokens(), scale, terms, positions)


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    causal: bool = False,
    window: tuple[int, int] | None = None,
    terms: ScoreTerms = NO_TERMS,
) -> tuple[Tensor, Tensor]:
    """Returns dense, bottom-right causal or windowed attention of q, k, v ``(B, H, T, D)`` and lse ``(B, H, T)``.

    Args:
        q: as in ``block_sparse_attention``, as are the other tensors.
        k: the same.
        v: the same.
        scale: multiplies the scores.
        causal: the window (-1, 0).
        window: keys seen before and after a query's own, -1 for all of them.
        terms: bias, slopes and softcap.
    """
    left, right = window or (-1, 0 if causal else -1)
    positions = aligned_positions(q.shape[2], k.shape[2], q.device)
    distance = positions[:, None] - torch.arange(k.shape[2], device=q.device)
    mask = torch.ones_like(distance, dtype=torch.bool)
    mask = mask if left == -1 else mask & (distance <= left)
    mask = mask if right == -1 else mask & (distance >= -right)
    return _attention(q, k, v, mask, scale, terms, positions)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, terms: ScoreTerms, positions: Tensor
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // k.shape[1]
    keys = k.to(dtype).repeat_interleave(group, dim=1)
    values = v.to(dtype).repeat_interleave(group, dim=1)
    if terms.bias is not None:
        # A bias of -inf is a mask too: its rows may be empty.
        mask = mask & (terms.bias != -torch.inf)
    # 0 x NaN is NaN: what is not finite is taken out, and put back where it is seen.
    dirty = ~(keys.isfinite().all(dim=-1) & values.isfinite().all(dim=-1))
    spoilt = (mask & dirty[..., None, :]).any(dim=-1, keepdim=True)
    keys, values = keys.masked_fill(dirty[..., None], 0.0), values.masked_fill(dirty[..., None], 0.0)
    scores = q.to(dtype) @ keys.transpose(-1, -2) * scale
    if terms.softcap is not None:
        scores = (scores / terms.softcap).tanh() * terms.softcap
    if terms.slopes is not None:
        distance = (positions[:, None] - torch.arange(k.shape[2], device=q.device)).abs()
        scores = scores - terms.slopes.to(dtype)[..., None, None] * distance
    if terms.bias is not None:
        scores = scores + terms.bias.to(dtype)
    scores = scores.masked_fill(~mask, -torch.inf)
    empty = ~mask.any(dim=-1, keepdim=True).expand(*scores.shape[:-1], 1)
    # A finite row keeps softmax and its gradient free of NaN; its weights are zeroed afterwards.
    scores = scores.masked_fill(empty, 0.0)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp().masked_fill(empty, 0.0)
    out = (weights @ values).masked_fill(spoilt, torch.nan).to(q.dtype)
    return out, lse.masked_fill(empty[..., 0], -torch.inf).masked_fill(spoilt[..., 0], torch.nan)
