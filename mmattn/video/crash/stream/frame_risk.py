"""What is known of one step of a stream: the risk, the road users, the alert. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.stream.alerts import Alert

__all__ = ["FrameRisk", "Sight", "Step"]


class Sight(NamedTuple):
    """Road users of one frame, in pixels of the frame that was fed.

    Attributes:
        boxes: x1, y1, x2, y2, float32 (n, 4).
        scores: Confidence in [0, 1], float32 (n,).
        classes: Name of each box's class, n of them.
        attention: Weight of each box in the risk, float32 (n,).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    attention: npt.NDArray[np.float32]

    def strongest(self, count: int) -> Sight:
        """Returns the ``count`` road users of the largest attention, the first of equals, the strongest first."""
        most = np.argsort(-self.attention, kind="stable")[:count]
        names = tuple(self.classes[i] for i in most)
        return Sight(self.boxes[most], self.scores[most], names, self.attention[most])

    @property
    def captions(self) -> list[str]:
        """The classes as they are written for people."""
        return [name.replace("_", " ") for name in self.classes]


@dataclass(frozen=True)
class FrameRisk:
    """What a session says about one step.

    Attributes:
        time: Moment of the step, seconds.
        risk: Probability of an accident, in [0, 1].
        uncertainty: Its standard deviation over Monte-Carlo passes; None without them.
        sight: Road users, with their attention.
        source: Number of the frame the step has read, counted from 0 over all frames fed.
        alert: The alert that this step raises, if any.
        restarted: Whether the session started over at this step.
        is_settled: Whether the session has seen enough since it began for the risk to mean something.
    """

    time: float
    risk: float
    uncertainty: float | None
    sight: Sight
    source: int
    alert: Alert | None = None
    restarted: bool = False
    is_settled: bool = True


class Step(NamedTuple):
    """A step that is due.

    Attributes:
        time: Its moment, seconds.
        source: Number of the frame it reads.
        frame_time: That frame's own time, seconds.
        is_new: Whether no step before has read that frame.
        restarts: Whether the session starts over here.
    """

    time: float
    source: int
    frame_time: float
    is_new: bool
    restarts: bool = False
