"""From features to scores: patch logits, local-to-global fusion, maps, smoothing.

Source: arXiv 2504.11055 and the public code AlirezaSalehy/Crane at commit 39181f9. With Z_k the K sets of patch
features, g the image feature and t the texts in the order [normal, abnormal], all of unit length,

    logits_k = Z_k t^T / tau
    map      = mean_k upsample(softmax(logits_k))[abnormal]     or     softmax(mean_k upsample(logits_k))[abnormal]
    w        = softmax(mean_k logits_k)[abnormal],   g+ = unit(alpha unit(sum_j w_j mean_k Z_k[j]) + (1 - alpha) g)
    score    = softmax(g+ t^T / tau)[abnormal]

Two classes make every softmax a sigmoid of the difference of two logits, and upsampling is linear; so one channel is
averaged over the sets first and upsampled once, with the same result.

Shapes: B images, N = h w patches, E feature width, (H, W) the map. Nothing here mixes the images of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.network.tower import VisionFeatures

__all__ = [
    "CraneOutput",
    "fuse",
    "image_logits",
    "patch_logits",
    "score_features",
    "smooth_maps",
    "upsample_maps",
]

Interpolation = Literal["bilinear", "nearest"]


class CraneOutput(NamedTuple):
    """What Crane says about a batch of images.

    Attributes:
        score: (B,) in [0, 1]; larger is more anomalous.
        anomaly_map: (B, H, W) in [0, 1], after Gaussian smoothing.
        raw_map: (B, H, W) in [0, 1], before smoothing.
    """

    score: Tensor
    anomaly_map: Tensor
    raw_map: Tensor


def patch_logits(patches: Tensor, text: Tensor, tau: float) -> Tensor:
    """Returns the logits (B, N, 2), order [normal, abnormal], of patch features (B, N, E) against texts (1|B, 2, E).

    Neither needs to be normalised. ``tau`` is the temperature that divides the cosine.
    """
    return F.normalize(patches, dim=-1) @ F.normalize(text, dim=-1).transpose(1, 2) / tau


def image_logits(image: Tensor, text: Tensor, tau: float) -> Tensor:
    """Returns the logits (B, 2), order [normal, abnormal], of image features (B, E) against texts (1|B, 2, E)."""
    return patch_logits(image[:, None], text, tau)[:, 0]


def fuse(
    vision: VisionFeatures,
    logits: Sequence[Tensor],
    *,
    alpha: float = 0.5,
    threshold: float | None = None,
    top_k: int | None = None,
) -> Tensor:
    """Returns g+ (B, E): the image feature mixed with the patches that look abnormal, both of unit length.

    Args:
        vision: Features of the images.
        logits: One (B, N, 2) for each set of ``vision.patch_features``.
        alpha: Share of the patches.
        threshold: Use only patches whose abnormal probability is above this.
        top_k: Use only this many patches of each image, the most abnormal ones.
    """
    weights = F.softmax(_mean(logits, vision.repeats()), dim=-1)[..., 1]
    if threshold is not None:
        weights = weights * (weights > threshold)
    if top_k is not None:
        best = weights.topk(min(top_k, weights.shape[1]), dim=1).indices
        weights = weights * torch.zeros_like(weights).scatter(1, best, 1.0)
    # The mean of unit vectors is used as it is, and the weights are not divided by their sum: the result is normalised.
    mean_patch = _mean([F.normalize(patches, dim=-1) for patches in vision.patch_features], vision.repeats())
    pooled = F.normalize((weights[:, None] @ mean_patch)[:, 0], dim=-1)
    return F.normalize(alpha * pooled + (1.0 - alpha) * F.normalize(vision.image_features, dim=-1), dim=-1)


def score_features(
    vision: VisionFeatures, text: Tensor, config: CraneConfig, *, interpolation: Interpolation = "bilinear"
) -> CraneOutput:
    """Returns scores and maps of side ``config.image_size``.

    Args:
        vision: Features of the images.
        text: (1, 2, E), or (B, 2, E) when the prompts are conditioned on the images.
        config: Its fields from ``fusion`` to ``image_score`` are read.
        interpolation: How patches become pixels.
    """
    logits = [patch_logits(patches, text, config.tau_pixel) for patches in vision.patch_features]
    differences = [pair[..., 1] - pair[..., 0] for pair in logits]
    size = config.image_size
    if config.soft_mean:
        low = _mean([difference.sigmoid() for difference in differences], vision.repeats())
        raw = upsample_maps(low.unflatten(1, vision.grid), size, interpolation)
    else:
        low = _mean(differences, vision.repeats())
        raw = upsample_maps(low.unflatten(1, vision.grid), size, interpolation).sigmoid()
    smooth = smooth_maps(raw, config.sigma)
    if config.fusion:
        image = fuse(vision, logits, alpha=config.alpha, threshold=config.fusion_threshold, top_k=config.fusion_top_k)
    else:
        image = vision.image_features
    score = image_logits(image, text, config.tau_image).softmax(dim=-1)[:, 1]
    if config.image_score != "text":
        peak = smooth.amax(dim=(1, 2))
        score = peak if config.image_score == "max" else (score + peak) / 2
    return CraneOutput(score, smooth, raw)


def upsample_maps(maps: Tensor, size: int | tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """Returns maps (B, h, w) resized to (B, H, W); bilinear means ``align_corners=False``."""
    target = (size, size) if isinstance(size, int) else size
    corners = False if interpolation == "bilinear" else None
    return F.interpolate(maps[:, None], size=target, mode=interpolation, align_corners=corners)[:, 0]


def smooth_maps(maps: Tensor, sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Returns maps (B, H, W) convolved with a Gaussian, as ``scipy.ndimage.gaussian_filter`` does by default.

    The kernel ends at ``truncate`` standard deviations, and the picture continues mirrored with the edge pixel
    repeated. Smoothing along an axis is a matrix product, so any size and any sigma work; ``sigma <= 0``
    changes nothing. Time O(B H W (H + W)).
    """
    if sigma <= 0:
        return maps
    rows, columns = (torch.as_tensor(_smoothing_matrix(n, sigma, truncate)).to(maps) for n in maps.shape[-2:])
    return rows @ maps @ columns.T


@lru_cache(maxsize=8)
def _smoothing_matrix(length: int, sigma: float, truncate: float) -> np.ndarray:
    """The float64 matrix (length, length) that smooths a column of ``length`` samples."""
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    # Sample i outside 0..length-1 stands for the mirrored one: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    reached = (np.arange(length)[:, None] + offsets) % (2 * length)
    reached = np.where(reached < length, reached, 2 * length - 1 - reached)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], reached), kernel / kernel.sum())
    return matrix


def _mean(sets: Sequence[Tensor], repeats: Sequence[int]) -> Tensor:
    """Returns the mean over sets, each counted ``repeats`` times."""
    mean = sets[0] * (repeats[0] / sum(repeats))
    for x, times in zip(sets[1:], repeats[1:], strict=True):
        mean = mean + x * (times / sum(repeats))
    return mean
