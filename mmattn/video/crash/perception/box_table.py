"""Boxes known beforehand, by time: what a file of detections becomes, and the detector that looks them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.road_detectors import FrameBoxes

__all__ = ["BoxTable", "FileDetector"]

_SLACK = 1e-3
"""Seconds that two times may differ and still mean the same frame."""


@dataclass(frozen=True)
class BoxTable:
    """n boxes of one video.

    Attributes:
        times: Seconds, (n,), in any order.
        boxes: x1, y1, x2, y2 in pixels, (n, 4).
        scores: In [0, 1], (n,).
        kinds: Index into KIND_NAMES or -1, (n,).
    """

    times: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int64]

    def at(self, time: float) -> FrameBoxes:
        """Returns the boxes of a moment: those of the last time in the table, if that is recent enough.

        Recent means less than the median step between the table's times ago: a frame that the detector saw and found
        empty then has no boxes, and a detector that ran on every second frame still serves them all. Boxes of a later
        time are never used.
        """
        moments, step = self._moments
        latest = int(np.searchsorted(moments, time + _SLACK, side="right")) - 1
        if latest < 0 or time - moments[latest] > max(step - _SLACK, _SLACK):
            return FrameBoxes.none()
        rows = self.times == moments[latest]
        return FrameBoxes(self.boxes[rows], self.scores[rows], self.kinds[rows])

    @cached_property
    def _moments(self) -> tuple[npt.NDArray[np.float64], float]:
        """The times that occur, ascending, and the median step between them."""
        moments = np.unique(self.times)
        return moments, float(np.median(np.diff(moments))) if len(moments) > 1 else 0.0


class FileDetector:
    """Finds what a table says.

    Args:
        table: The boxes of the video that will be watched.
    """

    def __init__(self, table: BoxTable) -> None:
        self.table = table

    def __call__(self, frames: Sequence[npt.NDArray[np.uint8]], times: Sequence[float]) -> list[FrameBoxes]:
        """Returns the table's boxes at each time."""
        return [self.table.at(time) for time in times]
