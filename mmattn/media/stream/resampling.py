"""From the times of a source's frames to the regular moments a model was trained at, while the frames come in.

A model for 10 frames a second takes one step every 0.1 s, whatever the camera does. Each step reads the frame nearest
to its moment: of a faster camera most frames are left out, of a slower one a frame is read again. Times are taken as
they are, never a nominal frame rate, so variable rates come out right. A step is due as soon as a frame is there that
the next one, if it keeps the pace, will not be nearer than.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mmattn.errors import InputError

__all__ = ["Moment", "Resampler"]

# A millionth of a second: timestamps are rounded in files.
_TOLERANCE = 1e-6


class Moment(NamedTuple):
    """A step of the model.

    Attributes:
        time: Seconds.
        is_new: Whether it reads the frame that has just come; otherwise the one read before.
    """

    time: float
    is_new: bool


@dataclass
class Resampler:
    """The moments that are due, frame by frame; constant memory.

    Args:
        fps: Steps per second.
        longest_gap: Seconds without a frame after which the old picture says nothing any more.

    >>> clock = Resampler(10.0)
    >>> [[round(m.time, 1) for m in clock.push(t / 25)] for t in range(6)]
    [[0.0], [], [0.1], [], [], [0.2]]
    """

    fps: float
    longest_gap: float = 1.0
    start: float = 0.0
    step: int = 0
    last: float | None = None

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise InputError(f"fps is {self.fps}, expected a positive number.")

    def is_gap(self, time: float) -> bool:
        """Says whether too much time has passed for the frame before to stand in."""
        return self.last is not None and time - self.last > self.longest_gap

    def push(self, time: float) -> list[Moment]:
        """Takes the time of the next frame and returns the moments due now, in order.

        Args:
            time: Seconds; must be above the time before.

        Raises:
            InputError: If time does not go on.
        """
        if self.last is not None and not time > self.last:
            raise InputError(f"A frame at {time:g} s came after one at {self.last:g} s, expected ascending times.")
        if self.last is None:
            self.start, self.step = time, 0
        interval = 0.0 if self.last is None else time - self.last
        self.last = time
        middle = time - interval / 2
        latest = time + min(interval, 1 / self.fps) / 2
        moments = []
        while (moment := self.start + self.step / self.fps) <= latest + _TOLERANCE or self.step == 0:
            is_new = moment > middle + _TOLERANCE or self.step == 0
            moments.append(Moment(moment, is_new))
            self.step += 1
        return moments
