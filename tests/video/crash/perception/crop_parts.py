"""Small parts for tests of perceptions by crops: pictures, a detector that is told what to find, a backbone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmattn.video.crash.perception.crop_perception import CropOptions, CropPerception
from mmattn.video.crash.perception.crops import Crops
from mmattn.video.crash.perception.road_detectors import FrameBoxes


def pictures(count: int, height: int = 90, width: int = 160) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


class Told:
    """Finds boxes by time: three in most frames, none at whole seconds, thirty at half seconds."""

    def __call__(self, frames: Sequence[np.ndarray], times: Sequence[float]) -> list[FrameBoxes]:
        return [self.found(time) for time in times]

    def found(self, time: float) -> FrameBoxes:
        tenth = round(time * 10)
        count = 0 if tenth % 10 == 0 else 30 if tenth % 5 == 0 else 3
        rng = np.random.default_rng(tenth)
        corner = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (count, 2))], axis=1)
        return FrameBoxes(boxes, rng.uniform(0.3, 1.0, count), rng.integers(0, 4, count))


class SmallBackbone(nn.Module):
    """Features of width 6 from S x S crops; remembers how many crops each call had."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.calls: list[int] = []

    def forward(self, crops: Tensor) -> Tensor:
        self.calls.append(len(crops))
        return self.conv(crops).relu().mean((2, 3))


def small_perception(num_boxes: int = 5, fps: float = 10.0, **options: object) -> CropPerception:
    chosen = CropOptions.from_dict({"detector": "none", **options})
    return CropPerception(
        Told(),
        SmallBackbone(),
        Crops(size=28, shorter_side=32),
        feature_dim=6,
        num_boxes=num_boxes,
        fps=fps,
        options=chosen,
    )
