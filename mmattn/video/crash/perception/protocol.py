"""What stands between pictures and the risk model: boxes of road users and features of them, frame by frame.

Anything that does this well is a :class:`Perception`. It is causal: what is pushed later changes nothing that was
returned earlier, and it does not matter in how many pieces a video is pushed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError

__all__ = ["FramePerception", "Perception", "PerceptionSession", "check_frames"]


@dataclass(frozen=True)
class FramePerception:
    """What is perceived in a frame.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the frame, float32 (n, 4), n <= N.
        scores: Confidence in [0, 1], float32 (n,).
        classes: Name of each box's class, n of them.
        features: Slot 0 the frame, slots 1 to n the boxes in this order, float32 (N + 1, F).
        valid: Which slots hold something, bool (N + 1,).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    features: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


class PerceptionSession(Protocol):
    """One video being watched."""

    def push(self, frames: Sequence[npt.NDArray[np.uint8]], times: Sequence[float]) -> list[FramePerception]:
        """Takes the next frames and returns what is perceived in each.

        Args:
            frames: uint8 RGB (H, W, 3).
            times: Seconds, ascending, also across calls.

        Raises:
            InputError: If a frame is no picture or a time goes back; nothing has changed then.
        """
        ...


@runtime_checkable
class Perception(Protocol):
    """Makes sessions.

    Attributes:
        fps: Frames per second it is meant for.
        feature_dim: Width F of a slot.
        num_boxes: Box slots N.
    """

    fps: float
    feature_dim: int
    num_boxes: int

    def open(self) -> PerceptionSession:
        """Returns a session for a new video."""
        ...


def check_frames(frames: Sequence[npt.NDArray[np.uint8]], times: Sequence[float], last: float) -> None:
    """Checks what is pushed to a session.

    Args:
        frames: Each (H, W, 3) uint8 RGB.
        times: Their times, s.
        last: Time of the frame before them, -inf if there is none.

    Raises:
        InputError: If there are not as many times as frames, a frame is no uint8 RGB picture, or time stands still.
    """
    if len(frames) != len(times):
        raise InputError(f"{len(frames)} frames came with {len(times)} times, expected one time per frame.")
    for frame, time in zip(frames, times, strict=True):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise InputError(f"A frame is {frame.dtype} {frame.shape}, expected uint8 RGB (H, W, 3).")
        if not time > last:
            raise InputError(f"A frame at {time:g} s came after one at {last:g} s, expected ascending times.")
        last = time
