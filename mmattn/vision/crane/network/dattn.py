"""D-Attn: patch features mixed by the patch similarities of another vision model (Crane+).

Source: arXiv 2504.11055 and the public code AlirezaSalehy/Crane at commit 39181f9. The foundation model's patch
features z, L2-normalised, give S = z z^T, then

    S' = gamma (S - beta mean(S)),   negative entries removed,   W = softmax(S'),   d = out_proj(W v)

where v is the value projection of the block, without the class token. One map W serves all heads, so it is multiplied
once with the (h'w', C) value matrix; repeating it per head, as the published code does, gives the same numbers.

Differs from the published code in two points: the mean is taken per image by default (``mean="batch"`` restores the
mean over the batch), and a row always keeps its diagonal, the largest similarity there is. A picture so uniform that
``beta mean(S) > 1`` then maps to itself instead of to NaN.

Shapes: B images, F foundation channels, (h, w) CLIP's grid, (h', w') the foundation's grid, C vision width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dattn", "foundation_attention", "resize_patches"]

_VECTOR = 16


def foundation_attention(
    features: Tensor, *, beta: float = 1.2, gamma: float = 3.0, mean: Literal["image", "batch"] = "image"
) -> Tensor:
    """Returns the row-stochastic map W (B, h'w', h'w') of foundation features (B, F, h', w').

    Args:
        features: Of any scale; each position is normalised over F. A position of zeros attends to itself.
        beta: How much of the mean similarity is subtracted.
        gamma: Sharpness of what is left.
        mean: Over each "image", or over the whole "batch", which makes a row depend on the other images.

    Time O(B (h'w')^2 F), memory O(B (h'w')^2).

    >>> foundation_attention(torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    z = F.normalize(features.flatten(2), dim=1)
    # The mean of all cosines is the squared length of the mean unit vector, so S' comes out of one product.
    average = z.mean(dim=2).square().sum(dim=1)
    if mean == "batch":
        average = average.mean().expand(len(z))
    # Rows of whole vector registers make the product 1.5 times faster on a CPU.
    padded = F.pad(z, (0, -z.shape[2] % _VECTOR))
    scores = torch.baddbmm((-gamma * beta * average)[:, None, None], z.transpose(1, 2), padded, alpha=gamma)
    # Keeps what is above the largest negative number: everything but negative scores.
    kept = F.threshold(scores, -torch.finfo(scores.dtype).tiny, -torch.inf)
    kept[:, :, z.shape[2] :] = -torch.inf
    # Not written into the diagonal's view, which exported graphs cannot say.
    kept = torch.where(torch.eye(*scores.shape[1:], dtype=torch.bool, device=scores.device), scores, kept)
    return kept.softmax(dim=-1)[:, :, : z.shape[2]]


def dattn(block: Any, source: Tensor, weights: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Returns the D-Attn output (B, h'w', C) of one block: no residual, no MLP, no class token.

    Args:
        block: open_clip's residual block; its ``ln_1``, value projection and ``out_proj`` are used.
        source: (B, h w + 1, C), the stream that feeds the values.
        weights: (B, h'w', h'w') of :func:`foundation_attention`.
        grid: (h, w).
        target: (h', w').
    """
    attn = block.attn
    width = attn.embed_dim
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[2 * width :]
    values = F.linear(block.ln_1(source)[:, 1:], attn.in_proj_weight[2 * width :], bias)
    mixed: Tensor = attn.out_proj(weights @ resize_patches(values, grid, target))
    return mixed


def resize_patches(patches: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resizes patch features (B, h w, C) bilinearly to (B, h'w', C); returned as they are when the grids agree."""
    if grid == target:
        return patches
    image = patches.transpose(1, 2).unflatten(2, grid)
    return F.interpolate(image, size=target, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
