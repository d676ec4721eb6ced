"""Crane's attention as its formulas read: every map is formed, one softmax after the other, one mask per head.

This is the straightforward form of arXiv 2504.11055 and of the public code AlirezaSalehy/Crane; the fast form in
``mmattn.vision.crane`` is measured against it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.vision.crane.network.dattn import resize_patches

__all__ = ["dattn_per_head", "dual_attention_maps", "dual_block_maps"]


def dual_attention_maps(attn: Any, h: Tensor, attn_type: str = "qq+kk+vv") -> tuple[Tensor, Tensor]:
    """Returns ordinary attention and E-Attn with explicit maps, as :func:`.tower.dual_attention` computes them.

    Args:
        attn: A packed ``nn.MultiheadAttention``.
        h: (B, T, C).
        attn_type: Self-correlation maps that are summed, joined by "+".

    O(B H T^2) memory: four maps of (B, H, T, T).
    """
    q, k, v = (_heads(attn, h, part) for part in range(3))
    scale = attn.head_dim**-0.5
    ordinary = (q @ k.transpose(-1, -2) * scale).softmax(dim=-1)
    parts = {"q": q, "k": k, "v": v}
    pairs = [(parts[pair[0]], parts[pair[1]]) for pair in attn_type.split("+")]
    maps = [(left @ right.transpose(-1, -2) * scale).softmax(dim=-1) for left, right in pairs]
    summed = maps[0]
    for other in maps[1:]:
        summed = summed + other
    return _out(attn, ordinary @ v), _out(attn, summed @ v)


def dual_block_maps(block: Any, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both streams (B, T, C) after one dual block, with explicit maps."""
    o, s = dual_attention_maps(block.attn, block.ln_1(x))
    x = x + o
    return x + block.mlp(block.ln_2(x)), e + s


def dattn_per_head(
    block: Any,
    source: Tensor,
    features: Tensor,
    grid: tuple[int, int],
    *,
    beta: float = 1.2,
    gamma: float = 3.0,
    mean: str = "image",
) -> Tensor:
    """Returns the D-Attn output (B, h'w', C) with scores repeated for every head and a softmax for each.

    Args:
        block: open_clip's residual block.
        source: (B, h w + 1, C), the stream that feeds the values.
        features: (B, F, h', w') of the foundation model.
        grid: (h, w).
        beta: How much of the mean similarity is subtracted.
        gamma: Sharpness of what is left.
        mean: Over each "image" or over the whole "batch".
    """
    attn = block.attn
    target = (features.shape[2], features.shape[3])
    z = F.normalize(features.flatten(2), dim=1)
    similarity = z.transpose(1, 2) @ z
    average = similarity.mean() if mean == "batch" else similarity.mean(dim=(1, 2), keepdim=True)
    scores = (similarity - average * beta) * gamma
    scores[scores < 0] = -torch.inf
    maps = scores[:, None].repeat(1, attn.num_heads, 1, 1).softmax(dim=-1)
    values = _heads(attn, block.ln_1(source)[:, 1:], 2).transpose(1, 2).flatten(2)
    values = resize_patches(values, grid, target).unflatten(2, (attn.num_heads, attn.head_dim)).transpose(1, 2)
    return _out(attn, maps @ values)


def _heads(attn: Any, h: Tensor, part: int) -> Tensor:
    """(B, T, C) -> (B, H, T, d): the query (0), key (1) or value (2) projection."""
    rows = slice(part * attn.embed_dim, (part + 1) * attn.embed_dim)
    projected = F.linear(h, attn.in_proj_weight[rows], attn.in_proj_bias[rows])
    return projected.unflatten(-1, (attn.num_heads, attn.head_dim)).transpose(1, 2)


def _out(attn: Any, x: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, C), output projection included."""
    projected: Tensor = attn.out_proj(x.transpose(1, 2).flatten(2))
    return projected
