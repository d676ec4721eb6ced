"""The perception that a checkpoint asks for, built by name."""

from __future__ import annotations

from typing import Any

import torch

from mmattn.errors import CheckpointError, InputError
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.perception.protocol import Perception
from mmattn.video.crash.weights.store import StoredCrash

__all__ = ["build_perception", "perception_settings"]


def build_perception(stored: StoredCrash, device: torch.device, *, boxes: str | None = None) -> Perception | None:
    """Builds the perception of a checkpoint; None when its features cannot be made from pictures.

    Args:
        stored: The checkpoint.
        device: Where networks run.
        boxes: Boxes of another detector are used, so none is loaded.

    Raises:
        CheckpointError: If the perception's tensors are missing or do not fit, or it makes features of another size
            than the risk model reads.
        InputError: If boxes are given to a perception that finds road users itself.
        WeightsUnavailableError: If weights that the perception names are neither on disk nor reachable.
    """
    config = stored.config
    if config.perception == "none":
        if boxes is not None:
            raise InputError("This model reads ready-made features, so boxes are of no use.", "Leave --boxes out.")
        return None
    if config.perception == "embedded":
        if boxes is not None:
            raise InputError(
                "This model finds road users itself; boxes from a file fit perceptions by crops only.",
                "Leave --boxes out, or pass a --checkpoint trained on VGG-16 features.",
            )
        perception = _embedded(stored)
    else:
        perception = _by_crops(config, device, has_boxes=boxes is not None)
    made, read = (perception.num_boxes, perception.feature_dim), (config.num_boxes, config.feature_dim)
    if made != read:
        raise CheckpointError(
            f"The perception {config.perception!r} makes {made[0]} boxes of {made[1]} features, and the risk model "
            f"reads {read[0]} of {read[1]}.",
            "Correct perception and perception_options in the checkpoint's config.json.",
        )
    return perception


def _embedded(stored: StoredCrash) -> Perception:
    from mmattn.video.crash.perception.embedded import EmbeddedPerception

    if not stored.part:
        raise CheckpointError(
            "The checkpoint names the embedded perception and does not hold its detector.",
            "Write it with the detector: mmattn fit keeps it beside the risk model.",
        )
    sizes = {"num_boxes": stored.config.num_boxes, "fps": stored.config.fps}
    return EmbeddedPerception.from_tensors(stored.part, {**stored.config.perception_options, **sizes})


def _by_crops(config: CrashConfig, device: torch.device, *, has_boxes: bool) -> Perception:
    from mmattn.video.crash.perception.backbones import build_backbone_perception
    from mmattn.video.crash.perception.road_detectors import NoDetector

    detector = NoDetector() if has_boxes else None
    if config.perception not in ("released", "timm", "open_clip"):
        raise CheckpointError(
            f"There is no perception {config.perception!r}.", "Update mmattn, or correct config.json."
        )
    return build_backbone_perception(
        config.perception,
        config.perception_options,
        num_boxes=config.num_boxes,
        fps=config.fps,
        device=device,
        detector=detector,
    )


def perception_settings(perception: Perception, checkpoint: str) -> dict[str, Any]:
    """Returns what shapes the features of a perception, plain JSON: features of other settings do not mix with them."""
    from mmattn.video.crash.perception.crop_perception import CropPerception

    if isinstance(perception, CropPerception):
        return perception.settings()
    return {"perception": type(perception).__name__, "checkpoint": checkpoint, "num_boxes": perception.num_boxes}
