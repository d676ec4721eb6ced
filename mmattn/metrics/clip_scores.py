"""Per-frame risks of clips with their labels, checked once: what every accident metric starts from.

Shapes: N clips, T frames. A time of accident (toa) counts frames: with toa = 90 the frames 0..89 lie before the
accident, and only they count for a clip with an accident. All frames of a clip without one count, whatever its toa.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ClipScores"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClipScores:
    """Scores of a test set; made by :meth:`check`.

    Attributes:
        scores: (N, T) risk per frame, finite; larger means more likely to end in an accident.
        is_accident: (N,) True for a clip with an accident.
        toas: (N,) time of accident in frames, at least 1 where ``is_accident``; meaningless elsewhere.
    """

    scores: FloatArray
    is_accident: BoolArray
    toas: FloatArray

    @classmethod
    def check(cls, scores: npt.ArrayLike, labels: npt.ArrayLike, toas: npt.ArrayLike) -> ClipScores:
        """Returns the arrays in double precision after checking them.

        Args:
            scores: (N, T) risk per frame.
            labels: (N,) bool or 0/1, 1 = accident.
            toas: (N,) frames; of a clip without accident any number.

        Raises:
            ValueError: If shapes do not fit, a score is not finite, a label is neither 0 nor 1, or the toa of an
                accident is below 1; the message names the first such clip by its position.
        """
        risk, flags, times = (np.asarray(array, np.float64) for array in (scores, labels, toas))
        if risk.ndim != 2 or risk.shape[1] == 0:
            raise ValueError(f"scores have shape {risk.shape}; expected (clips, frames) with at least one frame.")
        for name, array in (("labels", flags), ("toas", times)):
            if array.shape != risk.shape[:1]:
                raise ValueError(f"{name} have shape {array.shape}; expected ({len(risk)},), one for each clip.")
        _refuse(~np.isfinite(risk).all(axis=1), "has a score that is not a finite number")
        _refuse((flags != 0) & (flags != 1), "has a label that is neither 0 nor 1")
        # Written so that a NaN is refused too.
        _refuse((flags == 1) & ~(times >= 1), "has an accident, and its toa is below 1 frame")
        return cls(risk, flags == 1, times)

    @property
    def num_frames(self) -> int:
        """T, the frames of every clip."""
        return int(self.scores.shape[1])

    @property
    def ends_beyond(self) -> BoolArray:
        """(N,) True where the accident lies after the last frame, as in clips trimmed before the event."""
        beyond: BoolArray = self.is_accident & (self.toas > self.num_frames)
        return beyond

    def lengths(self) -> npt.NDArray[np.int64]:
        """Returns (N,) how many frames of each clip count, at least 1."""
        before = np.minimum(np.where(self.is_accident, self.toas, self.num_frames), self.num_frames)
        return before.astype(np.int64)

    def counted(self) -> BoolArray:
        """Returns (N, T), True where a frame counts."""
        mask: BoolArray = np.arange(self.num_frames) < self.lengths()[:, None]
        return mask

    def maxima(self) -> FloatArray:
        """Returns (N,) the largest score of each clip among the frames that count."""
        return self.scores.max(axis=1, initial=-np.inf, where=self.counted())


def _refuse(is_bad: Any, what: str) -> None:
    """Raises when a clip of the (N,) mask ``is_bad`` is, and names the first."""
    if is_bad.any():
        raise ValueError(f"clip {int(np.argmax(is_bad))} {what} ({int(is_bad.sum())} of {len(is_bad)} clips).")
