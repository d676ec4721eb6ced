"""The definition of attention: dense scores, a boolean mask, a softmax. Every other backend is tested against it.

It is also what runs where the others can not: under compilers and function transforms, on fake tensors, and for
derivatives of gradients. So nothing here asks for a value of a tensor.
"""

import torch
from torch import Tensor

from mmattn.kernels.block_index import BlockIndex

__all__ = ["block_sparse_attention", "dense_attention"]


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float
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

    Returns:
        ``out (B, H, Tq, Dv)`` in the dtype of q and ``lse (B, H, Tq)``; rows that attend nothing give 0 and ``-inf``,
        rows that attend a key or value that is not finite give NaN.

    Example:
        >>> x, blocks = torch.eye(2)[None, None], BlockIndex.causal(2, q_block=1, k_block=1)
        >>> block_sparse_attention(x, x, x, blocks, scale=0.0)[0][0, 0].tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    return _attention(q, k, v, blocks.tokens(), scale)


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool = False, window: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Returns dense, bottom-right causal or windowed attention of q, k, v ``(B, H, T, D)`` and lse ``(B, H, T)``.

    Args:
        q: as in ``block_sparse_attention``, as are the other tensors.
        k: the same.
        v: the same.
        scale: multiplies the scores.
        causal: the window (-1, 0).
        window: keys seen before and after a query's own, -1 for all of them.
    """
    left, right = window or (-1, 0 if causal else -1)
    if (left, right) == (-1, -1):
        return _attention(q, k, v, None, scale)
    # Moved to the bottom right corner: the last query stands where the last key does.
    query = torch.arange(q.shape[2], device=q.device)[:, None] + (k.shape[2] - q.shape[2])
    distance = query - torch.arange(k.shape[2], device=q.device)
    mask = torch.ones_like(distance, dtype=torch.bool)
    mask = mask if left == -1 else mask & (distance <= left)
    return _attention(q, k, v, mask if right == -1 else mask & (distance >= -right), scale)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // k.shape[1]
    keys = k.to(dtype).repeat_interleave(group, dim=1)
    values = v.to(dtype).repeat_interleave(group, dim=1)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    # 0 x NaN is NaN: what is not finite is taken out, and put back where it is seen.
    dirty = ~(keys.isfinite().all(dim=-1) & values.isfinite().all(dim=-1))
    spoilt = (mask & dirty[..., None, :]).any(dim=-1, keepdim=True)
    keys, values = keys.masked_fill(dirty[..., None], 0.0), values.masked_fill(dirty[..., None], 0.0)
    scores = q.to(dtype) @ keys.transpose(-1, -2) * scale
    scores = scores.masked_fill(~mask, -torch.inf)
    empty = ~mask.any(dim=-1, keepdim=True).expand(*scores.shape[:-1], 1)
    # A finite row keeps softmax and its gradient free of NaN; its weights are zeroed afterwards.
    scores = scores.masked_fill(empty, 0.0)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp().masked_fill(empty, 0.0)
    out = (weights @ values).masked_fill(spoilt, torch.nan).to(q.dtype)
    return out, lse.masked_fill(empty[..., 0], -torch.inf).masked_fill(spoilt[..., 0], torch.nan)
