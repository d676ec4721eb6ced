"""How many seconds of warning an alarm gives when false alarms are limited. Misses count as 0 s.

This is the number a driver would ask for. The threshold belongs to the *validation* clips without accident: a threshold
chosen on the clips it is judged on promises a false-alarm rate that it has not been tested to keep.

Seconds here are real: (toa - first alarm) / fps, unlike the legacy time to accident. An alarm is a score strictly above
the threshold in a frame before the accident.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmattn.metrics.clip_scores import ClipScores, FloatArray

__all__ = ["LeadTime", "far_limited_mtta", "far_threshold", "lead_time"]


@dataclass(frozen=True)
class LeadTime:
    """Warning at one threshold; NaN where it is not defined.

    Attributes:
        mean: Mean seconds from the first alarm to the accident over all accidents, a miss counting 0.
        recall: Share of the accidents with an alarm before them.
        false_alarm_rate: Share of the clips without accident that have an alarm.
        threshold: The threshold.
    """

    mean: float
    recall: float
    false_alarm_rate: float
    threshold: float


def far_threshold(negative_maxima: npt.ArrayLike, rate: float) -> float:
    """Returns the lowest threshold that at most a share ``rate`` of clips without accident exceed.

    It is the largest score of one of them: with n clips and k = floor(rate n), exactly the k + 1-th highest.

    Args:
        negative_maxima: (n,) largest score of each *validation* clip without accident.
        rate: False-alarm rate, in [0, 1).

    Raises:
        ValueError: If there are no clips, a score is not finite, or the rate is outside [0, 1).

    >>> far_threshold([0.1, 0.9, 0.4, 0.3], rate=0.25)
    0.4
    """
    scores = np.sort(np.asarray(negative_maxima, np.float64))
    if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
        raise ValueError(f"expected the finite scores of at least one clip without accident, got shape {scores.shape}.")
    return float(scores[-1 - _allowed(len(scores), rate)])


def lead_time(
    scores: npt.ArrayLike, labels: npt.ArrayLike, toas: npt.ArrayLike, fps: npt.ArrayLike, *, threshold: float
) -> LeadTime:
    """Returns the warning that alarms above ``threshold`` give.

    Args:
        scores: (N, T) risk per frame.
        labels: (N,) 0/1, 1 = accident.
        toas: (N,) time of accident in frames, may lie beyond the last frame.
        fps: Frames per second, one number or (N,).
        threshold: From :func:`far_threshold` on validation clips.

    Returns:
        Mean and recall NaN without accidents, the false-alarm rate NaN without other clips.

    Raises:
        ValueError: As :meth:`ClipScores.check`, or if ``fps`` is not positive.

    >>> lead_time([[0.2, 0.8, 0.9], [0.2, 0.2, 0.2]], [1, 1], [3, 3], 2.0, threshold=0.5)
    LeadTime(mean=0.5, recall=0.5, false_alarm_rate=nan, threshold=0.5)
    """
    clips = ClipScores.check(scores, labels, toas)
    mine = clips.is_accident
    alarmed = clips.maxima() > threshold
    seconds = _warning_seconds(clips, _rates(clips, fps), np.array([threshold]))
    return LeadTime(
        mean=float(seconds.mean()) if mine.any() else math.nan,
        recall=float(alarmed[mine].mean()) if mine.any() else math.nan,
        false_alarm_rate=math.nan if mine.all() else float(alarmed[~mine].mean()),
        threshold=float(threshold),
    )


def far_limited_mtta(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    toas: npt.ArrayLike,
    fps: npt.ArrayLike,
    *,
    far_limit: float = 0.1,
) -> float:
    """Returns mTTA@0.1: the mean warning in seconds over the operating points with at most ``far_limit`` false alarms.

    The operating points are those of the evaluated clips themselves: 0, 1, ..., floor(far_limit n) false alarms among
    its n clips without accident. Misses count 0. Differs from RiskProp's public code, which counts false alarms by
    frame instead of by clip and warnings only from an annotated start of the danger on.

    Args:
        scores: (N, T) risk per frame.
        labels: (N,) 0/1, 1 = accident.
        toas: (N,) time of accident in frames, may lie beyond the last frame.
        fps: Frames per second, one number or (N,).
        far_limit: Largest false-alarm rate, in [0, 1).

    Returns:
        Seconds; NaN without an accident or without another clip.

    Raises:
        ValueError: As :meth:`ClipScores.check`, or if ``fps`` or ``far_limit`` is out of range.

    >>> far_limited_mtta([[0.2, 0.8, 0.9], [0.1, 0.1, 0.1]], [1, 0], [3, 9], 2.0)
    1.5
    """
    clips = ClipScores.check(scores, labels, toas)
    rates = _rates(clips, fps)
    negatives = np.sort(clips.maxima()[~clips.is_accident])[::-1]
    allowed = _allowed(len(negatives), far_limit)
    if len(negatives) == 0 or not clips.is_accident.any():
        return math.nan
    return float(_warning_seconds(clips, rates, negatives[: allowed + 1]).mean())


def _warning_seconds(clips: ClipScores, fps: FloatArray, thresholds: FloatArray) -> FloatArray:
    """Returns (P, K) seconds of warning of each accident at each threshold, 0 for a miss."""
    mine = clips.is_accident
    running = np.maximum.accumulate(clips.scores[mine], axis=1)
    lengths, toas = clips.lengths()[mine], clips.toas[mine]
    seconds = np.zeros((len(running), len(thresholds)))
    for i in range(len(running)):
        first = np.searchsorted(running[i, : lengths[i]], thresholds, side="right")
        seconds[i] = np.where(first < lengths[i], (toas[i] - first) / fps[mine][i], 0.0)
    return seconds


def _allowed(count: int, rate: float) -> int:
    """Returns how many of ``count`` clips may raise a false alarm."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"the false-alarm rate is {rate}; expected a number in [0, 1).")
    # Rounding keeps 0.1 * 30 = 3.0000000000000004 and 0.29 * 100 = 28.999999999999996 where they belong.
    return math.floor(round(rate * count, 9))


def _rates(clips: ClipScores, fps: npt.ArrayLike) -> FloatArray:
    rates = np.broadcast_to(np.asarray(fps, np.float64), clips.toas.shape)
    if not (rates > 0).all():
        raise ValueError("fps must be positive.")
    return rates
