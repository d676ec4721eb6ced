"""The definition of attention: dense scores, a boolean mask, a softmax. Every other backend is tested against it."""

import torch
from torch import Tensor

from mmattn.kernels.block_index import BlockIndex

__all__ = ["block_sparse_attention", "dense_attention"]


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns ``softmax(scale q k^T + mask) v`` and the log-sum-exp of the scaled, masked scores.

    Runs in float32 for narrower inputs and in the input's dtype otherwise; O(Tq Tk) memory; differentiable.

    Args:
        q: ``(B, H, Tq, D)``.
        k: ``(B, Hkv, Tk, D)``; query head ``h`` reads key head ``h // (H / Hkv)``.
        v: ``(B, Hkv, Tk, Dv)``.
        blocks: the mask.
        scale: multiplies the scores.

    Returns:
        ``out (B, H, Tq, Dv)`` in the dtype of q and ``lse (B, H, Tq)``; rows that attend nothing give 0 and ``-inf``.

    Example:
        >>> x, blocks = torch.eye(2)[None, None], BlockIndex.causal(2, q_block=1, k_block=1)
        >>> block_sparse_attention(x, x, x, blocks, scale=0.0)[0][0, 0].tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    return _masked_attention(q, k, v, blocks.tokens(), scale)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Returns dense or bottom-right causal attention of q, k, v ``(B, H, T, D)`` and its log-sum-exp ``(B, H, T)``."""
    q_len, k_len = q.shape[2], k.shape[2]
    every = torch.ones(q_len, k_len, dtype=torch.bool, device=q.device)
    # The diagonal is moved to the bottom right corner: the last query sees every key.
    return _masked_attention(q, k, v, every.tril(k_len - q_len) if causal else every, scale)


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // k.shape[1]
    keys = k.to(dtype).repeat_interleave(group, dim=1)
    values = v.to(dtype).repeat_interleave(group, dim=1)
    scores = q.to(dtype) @ keys.transpose(-1, -2) * scale
    scores = scores.masked_fill(~mask, -torch.inf)
    empty = ~mask.any(dim=-1, keepdim=True).expand(*scores.shape[:-1], 1)
    # A finite row keeps softmax and its gradient free of NaN; its weights are zeroed afterwards.
    scores = scores.masked_fill(empty, 0.0)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp().masked_fill(empty, 0.0)
    return (weights @ values).to(q.dtype), lse.masked_fill(empty[..., 0], -torch.inf)
