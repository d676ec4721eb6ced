"""When a result should not be trusted, told from what was seen rather than from the risk. No torch.

A risk model answers whatever it is shown. What it was shown is known: how much there was, whether there were road
users, and how sure the detector was of them. The bounds were set on 400 drawn clips, none of which exceeds them, and
looked at on real dashcams, where the embedded detector mostly does.

Shapes: T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.stream.frame_risk import Sight

__all__ = ["Doubt", "doubts"]

# Share of steps that must show something for it to be said of the video.
_MOST = 0.5
_ALL = 0.9
# Mean score of the road users of a video.
_UNSURE = 0.46
# Steps that show a new frame, where the video is as fast as the model.
_FRESH = 0.6


class Doubt(NamedTuple):
    """One reason.

    Attributes:
        code: A word for machines, which stays the same.
        message: A sentence for people.
    """

    code: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {"code": self.code, "message": self.message}


def doubts(
    sights: Sequence[Sight],
    sources: npt.NDArray[np.int64],
    is_settled: npt.NDArray[np.bool_],
    *,
    fps: float,
    slots: int | None = None,
    has_boxes: bool = True,
    missing: int = 0,
) -> tuple[Doubt, ...]:
    """Returns why a result should not be trusted; nothing if it may be.

    Args:
        sights: T; road users of each step.
        sources: (T,) number of the frame each step has read.
        is_settled: (T,) whether the risk of a step is past the transient.
        fps: Steps per second.
        slots: Most road users that the model takes in; None if that is not known.
        has_boxes: Whether there are road users at all: ready-made features come without.
        missing: Frames that the file promises and does not hold.
    """
    found: list[Doubt] = []
    if missing:
        found.append(
            Doubt(
                "cut_short", f"The file is cut short: {missing} frames that it promises are not there and not scored."
            )
        )
    if not is_settled.any():
        found.append(
            Doubt("too_short", f"Only {len(sights) / fps:.1f} s can be scored; the risk has not settled by then.")
        )
    fresh = len(np.unique(sources)) / max(len(sources), 1)
    if len(sources) > 1 and fresh < _FRESH:
        found.append(
            Doubt(
                "slow_video",
                f"The video has about {fps * fresh:.1f} frames a second, the model was trained on {fps:g}: what moves "
                "between them is not seen.",
            )
        )
    return (*found, *(_about_road_users(sights, slots) if has_boxes else ()))


def _about_road_users(sights: Sequence[Sight], slots: int | None) -> list[Doubt]:
    counts = np.array([len(sight.boxes) for sight in sights])
    if (counts == 0).mean() >= _ALL:
        return [Doubt("no_road_users", "Road users not recognised: none in nine of ten frames.")]
    scores = np.concatenate([sight.scores for sight in sights])
    if slots is not None and (counts >= slots).mean() > _MOST:
        return [
            Doubt(
                "too_many_road_users",
                f"Road users implausible: {slots} or more, as many as the model takes in, in "
                f"{(counts >= slots).mean():.0%} of the frames. The detector takes other things for some of them.",
            )
        ]
    if scores.mean() < _UNSURE:
        return [
            Doubt(
                "unsure_road_users",
                f"Road users not recognised with certainty: a mean score of {scores.mean():.2f}. Look at the boxes "
                "before you believe the risk.",
            )
        ]
    return []
