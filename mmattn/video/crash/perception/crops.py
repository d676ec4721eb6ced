"""The pictures a backbone sees: every frame and every box of a batch of frames, resized into one tensor.

Two ways to fit a region into S x S: "centre" resizes its shorter side to R and cuts the middle, as the published
features were made (R = 256, S = 224, so of a 16:9 frame only the middle half of the width is seen); "squash" resizes
all of it and does not keep its shape.

Pillow's bilinear and bicubic filters are used, because the published features were. Only the part that is kept is ever
computed, so a box of one row of pixels costs what any other does; values differ from resizing all of it by at most one
of 255 levels, in few pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

__all__ = ["Crops", "Fit"]

Fit = Literal["centre", "squash"]
Picture = npt.NDArray[np.uint8]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Crops:
    """Cuts, resizes and normalises.

    Attributes:
        size: Side S of the result, pixels.
        shorter_side: R, pixels; used by "centre".
        frame: How the whole frame is fitted.
        box: How a box is fitted.
        mean: Subtracted from each channel in [0, 1].
        std: Then divided by.
        resample: Pillow's filter.
    """

    size: int = 224
    shorter_side: int = 256
    frame: Fit = "centre"
    box: Fit = "centre"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resample: Literal["bilinear", "bicubic"] = "bilinear"

    def __call__(self, frames: Sequence[Picture], boxes: Sequence[npt.NDArray[np.int64]]) -> Tensor:
        """Returns the crops of a batch, float32 (sum of n_i + 1, 3, S, S): each frame, then its boxes.

        Args:
            frames: uint8 RGB (H, W, 3).
            boxes: For each frame (n_i, 4) x1, y1, x2, y2, whole pixels inside it, ends excluded.
        """
        count = len(frames) + sum(len(rows) for rows in boxes)
        pixels = np.empty((count, self.size, self.size, 3), np.uint8)
        row = 0
        for frame, own in zip(frames, boxes, strict=True):
            pixels[row] = self._fitted(frame, self.frame)
            for number, (x1, y1, x2, y2) in enumerate(own.tolist(), start=row + 1):
                pixels[number] = self._fitted(frame[y1:y2, x1:x2], self.box)
            row += len(own) + 1
        # Channels stay last in memory, which is how convolutions are fastest here.
        crops = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return crops.sub_(mean).div_(std)

    def _fitted(self, region: Picture, fit: Fit) -> Picture:
        image = Image.fromarray(np.ascontiguousarray(region))
        way = _FILTERS[self.resample]
        if fit == "squash":
            return np.asarray(image.resize((self.size, self.size), way))
        columns, rows = (self._middle(side, min(image.size)) for side in image.size)
        return np.asarray(image.resize((self.size, self.size), way, box=(columns[0], rows[0], columns[1], rows[1])))

    def _middle(self, side: int, shorter: int) -> tuple[float, float]:
        """Returns where the kept part of a side starts and ends, in pixels of the region.

        The side is resized to ``int(R * side / shorter)`` pixels, of which the middle S are kept; both are rounded as
        torchvision's ``Resize`` and ``CenterCrop`` do.
        """
        resized = int(self.shorter_side * side / shorter)
        start = round((resized - self.size) / 2.0)
        return start * side / resized, (start + self.size) * side / resized
