"""A tiny model with a perception, on disk or in memory, for tests of what is built around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.media.video_writer import VideoWriter
from mmattn.video.crash.config import CrashConfig, CrashInferOptions
from mmattn.video.crash.model import build_model
from mmattn.video.crash.perception.detector import CrashDetector
from mmattn.video.crash.perception.features import FEATURES
from mmattn.video.crash.perception.protocol import FramePerception, check_frames
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.weights.store import StoredCrash
from tests.video.crash.tiny import tiny_model

WIDTHS, NECK = [4, 6, 8, 8, 8], 8


class Glance:
    """Sees a car as bright as the picture, and no others; remembers what it was shown."""

    fps, feature_dim, num_boxes = 10.0, 12, 4

    def __init__(self) -> None:
        self.shown: list[tuple[float, tuple[int, ...]]] = []
        self.opened = 0

    def open(self) -> GlanceSession:
        self.opened += 1
        return GlanceSession(self)


class GlanceSession:
    def __init__(self, perception: Glance) -> None:
        self.perception = perception
        self.last = -np.inf
        self.before = 0.0

    def push(self, frames: Sequence[np.ndarray], times: Sequence[float]) -> list[FramePerception]:
        check_frames(frames, times, self.last)
        return [self.see(frame, time) for frame, time in zip(frames, times, strict=True)]

    def see(self, frame: np.ndarray, time: float) -> FramePerception:
        self.last = time
        self.perception.shown.append((time, frame.shape))
        light = float(frame.mean()) / 255
        features = np.zeros((5, 12), np.float32)
        features[0, :3] = light, light - self.before, 1
        features[1, 3:5] = light**2, 1
        self.before = light
        height, width = frame.shape[:2]
        box = np.array([[width / 4, height / 4, width / 2, height / 2]], np.float32)
        return FramePerception(box, np.ones(1, np.float32), ("car",), features, np.arange(5) < 2)


def glancing_predictor(**options: Any) -> CrashPredictor:
    """A random model with large weights, so that risks differ, on Glance."""
    model = tiny_model(mask_empty_boxes=True, tfa_output="residual")
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    return CrashPredictor(model, Glance(), device=torch.device("cpu"), options=CrashInferOptions(**options))


def embedded_config(**changes: Any) -> CrashConfig:
    fields: dict[str, Any] = {
        "feature_dim": FEATURES, "num_boxes": 5, "hidden_dim": 16, "grid": (4, 4), "classifier_dim": 8, "tfa_layers": 1,
        "tfa_heads": 4, "window": 5, "fps": 10.0, "mask_empty_boxes": True, "perception": "embedded",
        "perception_options": {"widths": WIDTHS, "neck": NECK},
    }  # fmt: skip
    return CrashConfig(**{**fields, **changes})


def tiny_detector() -> CrashDetector:
    torch.manual_seed(0)
    detector = CrashDetector(WIDTHS, NECK)
    torch.nn.init.constant_(detector.heat[-1].bias, 0.0)
    return detector


def save_embedded(folder: Path, **changes: Any) -> str:
    """Writes a checkpoint with the embedded perception; nothing in it is trained."""
    config = embedded_config(**changes)
    torch.manual_seed(0)
    model = build_model(config)
    stored = StoredCrash(config, model.state_dict(), tiny_detector().state_dict())
    return str(stored.save(folder, card="# tiny\n", dtype=torch.float16))


def drive(count: int = 20, height: int = 66, width: int = 90) -> list[np.ndarray]:
    """Frames that get brighter, with a square that moves."""
    rng = np.random.default_rng(0)
    frames = []
    for i in range(count):
        frame = np.full((height, width, 3), 40 + 9 * (i % 20), np.uint8)
        frame[10:30, 2 * i % 60 : 2 * i % 60 + 20] = rng.integers(0, 256, 3)
        frames.append(frame)
    return frames


def write_drive(path: Path, count: int = 20, fps: float = 10.0, height: int = 66, width: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps) as writer:
        for frame in drive(count, height, width):
            writer.write(frame)
    return path
