"""What the maps of the embedded detector are compared with their targets by.

    loss = focal(heat) + L1(values, weighted at centres) + CE(brake lamps) + L1(speed of the camera)

The focal loss is the penalty-reduced one of arXiv 1904.07850, per centre.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.video.crash.perception.detector import VALUES, DetectorOutput

__all__ = ["detector_losses", "focal_loss"]

_LAMP = VALUES.index("lamp")


def focal_loss(heat: Tensor, target: Tensor) -> Tensor:
    """Returns the penalty-reduced focal loss per centre of logits and Gaussians (B, C, h, w)."""
    probability = heat.sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = target >= 1.0
    hit = -((1 - probability) ** 2) * probability.log()
    miss = -((1 - target) ** 4) * probability**2 * (1 - probability).log()
    return torch.where(centre, hit, miss).sum() / centre.sum().clamp_min(1)


def detector_losses(output: DetectorOutput, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parts of the loss of a batch of targets, each a scalar."""
    weight, centres = batch["weight"], (batch["heat"] >= 1.0).sum().clamp_min(1)
    difference = (output.values - batch["values"]).abs() * weight
    entropy = F.binary_cross_entropy_with_logits(
        output.values[:, _LAMP], batch["values"][:, _LAMP], weight[:, _LAMP], reduction="sum"
    )
    speed = (output.speed - batch["speed"]).abs() / 10 * batch["speed_weight"]
    parts = difference.sum((0, 2, 3)) / centres
    return {
        "heat": focal_loss(output.heat, batch["heat"]),
        "box": parts[:4].sum(),
        "distance": parts[4:6].sum(),
        "heading": parts[6:8].sum(),
        "velocity": parts[9:].sum(),
        "lamp": entropy / centres,
        "speed": 0.5 * speed.mean(),
    }
