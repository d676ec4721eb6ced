"""Crane's training loss: focal and dice on every map, cross-entropy on the image score.

Source: arXiv 2504.11055 and the public code AlirezaSalehy/Crane at commit 39181f9. With P_k the upsampled
probabilities of feature set k and M the mask,

    loss = 2 sum_k focal(P_k, M) + 2 sum_k dice(P_k, M) + 0.2 cross_entropy(g+ t^T / 0.01, label)

Only the abnormal channel has a dice term. Pictures without a mask contribute to the cross-entropy alone.

Shapes: B images, (H, W) pixels; channel 0 is normal, 1 abnormal; masks are 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.network.scoring import Interpolation, fuse, image_logits, patch_logits, upsample_maps
from mmattn.vision.crane.network.tower import VisionFeatures

__all__ = ["CraneLosses", "crane_loss", "dice_loss", "focal_loss"]

_SMOOTH = 1e-5


class CraneLosses(NamedTuple):
    """The terms of one step.

    Attributes:
        total: What is minimised.
        focal: Sum over the feature sets, before the factor 2.
        dice: Sum over the feature sets, before the factor 2.
        cross_entropy: Before the factor 0.2.
        image_logits: (B, 2), at the training temperature.
    """

    total: Tensor
    focal: Tensor
    dice: Tensor
    cross_entropy: Tensor
    image_logits: Tensor


def focal_loss(probabilities: Tensor, mask: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Returns the mean over pixels of ``-(1 - pt)^gamma log(pt)`` (arXiv 1708.02002, alpha = 1).

    ``pt`` is the probability of the true class, mixed with 1e-5 of the other one's and raised by 1e-5.

    Args:
        probabilities: (B, 2, H, W).
        mask: (B, H, W).
        gamma: How much easy pixels are discounted.
    """
    abnormal = mask.to(probabilities.dtype)
    true = torch.where(abnormal > 0.5, probabilities[:, 1], probabilities[:, 0])
    other = torch.where(abnormal > 0.5, probabilities[:, 0], probabilities[:, 1])
    pt = (1.0 - _SMOOTH) * true + _SMOOTH * other + _SMOOTH
    return (-((1.0 - pt) ** gamma) * pt.log()).mean()


def dice_loss(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Returns one minus the mean over images of the soft dice overlap of the abnormal probability with the mask.

    Args:
        probabilities: (B, 2, H, W).
        mask: (B, H, W).

    >>> mask = torch.ones(1, 2, 2)
    >>> dice_loss(torch.stack([1 - mask, mask], dim=1), mask).item()
    0.0
    """
    # As the published code does; equal to the abnormal channel when the two sum to one.
    abnormal = ((1.0 - probabilities[:, 0] + probabilities[:, 1]) / 2.0).flatten(1)
    target = mask.to(probabilities.dtype).flatten(1)
    overlap = (abnormal * target).sum(dim=1)
    return 1.0 - ((2.0 * overlap + 1.0) / (abnormal.sum(dim=1) + target.sum(dim=1) + 1.0)).mean()


def crane_loss(
    vision: VisionFeatures,
    text: Tensor,
    labels: Tensor,
    masks: Tensor | None,
    config: CraneConfig,
    *,
    has_mask: Tensor | None = None,
    interpolation: Interpolation = "nearest",
) -> CraneLosses:
    """Returns the loss of one batch.

    Args:
        vision: Features of B images; a set that counts several times does so in the sums.
        text: (1, 2, E) or (B, 2, E).
        labels: (B,) int, 1 is anomalous.
        masks: (B, H, W) or (B, 1, H, W), 0 or 1; None when no image has one.
        config: Temperatures and fusion settings.
        has_mask: (B,) bool, which images have a mask; None means all.
        interpolation: How patch probabilities become pixels.
    """
    logits = [patch_logits(patches, text, config.tau_pixel) for patches in vision.patch_features]
    image = vision.image_features
    if config.fusion:
        image = fuse(vision, logits, alpha=config.alpha, threshold=config.fusion_threshold, top_k=config.fusion_top_k)
    scores = image_logits(image, text, config.tau_image_train)
    cross_entropy = F.cross_entropy(scores, labels)
    focal = dice = cross_entropy.new_zeros(())
    if masks is not None and (has_mask is None or bool(has_mask.any())):
        focal, dice = _map_losses(logits, masks, vision, has_mask, interpolation)
    total = 2.0 * focal + 2.0 * dice + 0.2 * cross_entropy
    return CraneLosses(total, focal, dice, cross_entropy, scores)


def _map_losses(
    logits: Sequence[Tensor],
    masks: Tensor,
    vision: VisionFeatures,
    has_mask: Tensor | None,
    interpolation: Interpolation,
) -> tuple[Tensor, Tensor]:
    """Returns the focal and the dice sums over the feature sets, of the images that have a mask."""
    masks = masks.flatten(0, -3)  # (B, 1, H, W) -> (B, H, W); a batch of one keeps its batch axis
    if has_mask is not None:
        masks = masks[has_mask]
    focal = dice = masks.new_zeros((), dtype=logits[0].dtype)
    for pair, times in zip(logits, vision.repeats(), strict=True):
        abnormal = pair.softmax(dim=-1)[..., 1].unflatten(1, vision.grid)
        if has_mask is not None:
            abnormal = abnormal[has_mask]
        pixels = upsample_maps(abnormal, (masks.shape[1], masks.shape[2]), interpolation)
        both = torch.stack([1.0 - pixels, pixels], dim=1)
        focal = focal + times * focal_loss(both, masks)
        dice = dice + times * dice_loss(both, masks)
    return focal, dice
