"""Which frames of a stream can be used: cameras, networks and decoders deliver all kinds of things.

A frame that is no picture (None, another shape or type, a time that does not go on, or a size that no other frame has)
is left out, counted and remembered with the reason. A size that stays is a new size.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from mmattn.errors import InputError

__all__ = ["Admitted", "FrameGate", "Problem"]

_KEPT_PROBLEMS = 20
# So many frames in a row of another size are a new size and no accident of the decoder.
_NEW_SIZE_FRAMES = 5


class Problem(NamedTuple):
    """A frame that was left out: its number, counted from 0 over all frames fed, and why."""

    source: int
    reason: str


class Admitted(NamedTuple):
    """A frame that can be used: its number, and whether it begins a new size."""

    source: int
    has_new_size: bool


class FrameGate:
    """Numbers frames, gives times to those that have none, and leaves unusable ones out; constant memory.

    Args:
        fps: Frames per second of frames without times.

    Attributes:
        num_fed: Frames so far.
        num_bad: Frames left out so far.
        problems: The last of them.
        last_time: Time of the last usable frame, seconds.
    """

    def __init__(self, fps: float) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"fps is {fps}, expected a positive number of frames per second.")
        self.fps = fps
        self.num_fed = self.num_bad = 0
        self.problems: deque[Problem] = deque(maxlen=_KEPT_PROBLEMS)
        self.last_time: float | None = None
        self._last_counted: float | None = None
        self._size: tuple[int, int] | None = None
        self._num_other = 0

    def times(self, count: int, times: Any, fps: float | None = None) -> list[float]:
        """Returns the times of the next frames, seconds.

        Args:
            count: How many frames there are.
            times: Their times, one number for one frame; None counts on.
            fps: Rate at which to count; None takes the gate's own.

        Raises:
            InputError: If there are not as many times as frames.
        """
        if times is None:
            step = 1 / (fps or self.fps)
            first = 0.0 if self._last_counted is None else self._last_counted + step
            return [first + i * step for i in range(count)]
        moments: list[float] = np.atleast_1d(np.asarray(times, np.float64)).tolist()
        if len(moments) != count:
            raise InputError(f"{count} frames came with {len(moments)} times, expected one time per frame.")
        return moments

    def admit(self, picture: Any, time: float) -> Admitted | None:
        """Takes the next frame; returns None, after making a note, if it cannot be used."""
        source = self.count(time)
        reason = self._reason_against(picture, time)
        if reason:
            self.note(source, reason)
            return None
        size = (picture.shape[0], picture.shape[1])
        is_new = self._size is not None and size != self._size
        self._size, self._num_other, self.last_time = size, 0, time
        return Admitted(source, is_new)

    def admit_time(self, time: float) -> int | None:
        """Takes the time of a frame that is not decoded yet; returns its number, None if it cannot be used."""
        source = self.count(time)
        if self.last_time is not None and not time > self.last_time:
            self.note(source, f"its time, {time:g} s, is not after that of the frame before, {self.last_time:g} s")
            return None
        self.last_time = time
        return source

    def count(self, time: float) -> int:
        """Counts a frame and returns its number."""
        if math.isfinite(time):
            self._last_counted = time
        self.num_fed += 1
        return self.num_fed - 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, pixels; (0, 0) before the first."""
        return self._size or (0, 0)

    def note(self, source: int, reason: str) -> None:
        """Remembers that a frame was left out."""
        self.num_bad += 1
        self.problems.append(Problem(source, reason))

    def state(self) -> dict[str, float]:
        """Returns what :meth:`restore` needs; a time that there is not is left out."""
        times = {"last_time": self.last_time, "last_counted": self._last_counted}
        known = {name: time for name, time in times.items() if time is not None}
        return {"fps": self.fps, "num_fed": self.num_fed, "num_bad": self.num_bad, **known}

    def restore(self, state: dict[str, float]) -> None:
        """Goes on from where :meth:`state` was taken."""
        self.fps, self.num_fed, self.num_bad = state["fps"], int(state["num_fed"]), int(state["num_bad"])
        self.last_time, self._last_counted = state.get("last_time"), state.get("last_counted")

    def _reason_against(self, picture: Any, time: float) -> str:
        """Returns why a frame cannot be used, or nothing."""
        if picture is None:
            return "it was lost"
        if not isinstance(picture, np.ndarray):
            return f"it is a {type(picture).__name__}, expected an array (H, W, 3) of uint8"
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            return f"it is {picture.dtype} {picture.shape}, expected uint8 (H, W, 3)"
        if not math.isfinite(time):
            return f"its time is {time}, expected seconds"
        if self.last_time is not None and not time > self.last_time:
            return f"its time, {time:g} s, is not after that of the frame before, {self.last_time:g} s"
        if self._size is None or picture.shape[:2] == self._size:
            self._num_other = 0
            return ""
        self._num_other += 1
        if self._num_other >= _NEW_SIZE_FRAMES:
            return ""
        (height, width), (before_height, before_width) = picture.shape[:2], self._size
        return f"it is {width} x {height} pixels, the frames before were {before_width} x {before_height}"
