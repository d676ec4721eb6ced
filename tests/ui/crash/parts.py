"""A CRASH predictor with random weights over crops, and videos for it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.media.video_writer import VideoWriter
from mmattn.video.crash.predictor import CrashPredictor
from tests.video.crash.perception.crop_parts import small_perception
from tests.video.crash.tiny import tiny_model


def tiny_predictor(seed: int = 1, **changes: Any) -> CrashPredictor:
    """Ten steps a second, five boxes, six features; its risk moves from step to step."""
    model = tiny_model(seed, feature_dim=6, num_boxes=5, tfa_output="residual", num_frames=50, **changes)
    with torch.no_grad():
        # Random weights barely move the risk: what is seen and what is said is made louder.
        model.phi_x.weight.mul_(60)
        model.head.dense2.weight.mul_(20)
    return CrashPredictor(model, small_perception(), device=torch.device("cpu"), name="tiny")


def write_clip(path: Path, seconds: float = 3.0, fps: float = 20.0, size: tuple[int, int] = (90, 160)) -> Path:
    """A bright square that moves over noise, and grows."""
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=fps) as writer:
        for t in range(round(seconds * fps)):
            frame = rng.integers(0, 80, (*size, 3), dtype=np.uint8)
            frame[20 : 30 + t, 10 + t : 30 + 2 * t] = 255 if t % 20 < 10 else 120
            writer.write(frame)
    return path
