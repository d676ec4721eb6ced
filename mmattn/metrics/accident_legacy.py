"""Legacy AP, mTTA, TTA@R80 and P@R80: the numbers that papers on accident anticipation report, made reproducible.

They come from one evaluation script, first in smallcorgi/Anticipating-Accidents and carried on by Cogito2012/UString,
monjurulkarim/DSTA and Petrichor625/CRASH (arXiv 2407.17757), which loops over thresholds 0.001 apart. Read them with
care; ``docs/accident_metrics.md`` shows what they hide:

* time to accident is a *share of the clip before the accident*, multiplied by the length of the whole clip: 5 s on a
  clip of 5 s means "from the first frame on", even when the accident comes after 2 s;
* mTTA averages over recalls, whatever their precision, so a scorer that always cries wolf gets nearly all of it;
* a score of exactly 0 makes 0 the lowest threshold, where every clip counts as a hit: recall and AP may exceed 1;
* scores that saturate below one threshold step leave a single recall, and AP falls to the base rate.

Differs from the scripts where they leave the result to chance or fail: scores are compared in double precision, equal
recalls keep the order of their thresholds (their sort is unstable, which moves AP by 0.004 and mTTA by 0.08 s), and
test sets with fewer frames than thresholds, on which they raise IndexError, are computed like all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.metrics.clip_scores import ClipScores

__all__ = ["THRESHOLD_STEP", "LegacyMetrics", "LegacyPoints", "legacy_metrics", "legacy_points"]

THRESHOLD_STEP = 0.001

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LegacyMetrics:
    """What the published script prints; NaN where it is not defined.

    Attributes:
        ap: Area under the precision-recall points, by trapezoids; may exceed 1 when scores are exactly 0.
        mtta: Mean over the recalls of the time to accident, in legacy seconds (a share of the clip's length).
        tta_r80: Time to accident at the recall nearest 0.8, in legacy seconds.
        p_r80: Precision at the first recall of at least 0.8.
    """

    ap: float = math.nan
    mtta: float = math.nan
    tta_r80: float = math.nan
    p_r80: float = math.nan


def legacy_metrics(scores: npt.ArrayLike, labels: npt.ArrayLike, toas: npt.ArrayLike, fps: float) -> LegacyMetrics:
    """Returns the legacy metrics of a test set.

    O(N T log K) time for K thresholds: a running maximum per clip and one binary search take the place of the loop.

    Args:
        scores: (N, T) probability of an accident per frame, in [0, 1].
        labels: (N,) 0/1, 1 = accident.
        toas: (N,) time of accident in frames; of a clip without accident any number.
        fps: Frames per second.

    Returns:
        All NaN without a clip with an accident, or when every score is 1.

    Raises:
        ValueError: As :meth:`ClipScores.check`, and if a score lies outside [0, 1], an accident beyond the last frame,
            or ``fps`` is not positive.

    A single accident leaves a single recall, taken at the lowest threshold: a perfect ranking gets the base rate.

    >>> legacy_metrics([[0.1, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]], [1, 0], [4, 5], fps=2.0)
    LegacyMetrics(ap=0.5, mtta=2.0, tta_r80=2.0, p_r80=0.5)
    """
    if not fps > 0:
        raise ValueError(f"fps is {fps}; expected a positive number.")
    clips = ClipScores.check(scores, labels, toas)
    recall, precision, relative_time = legacy_points(clips)
    if len(recall) == 0:
        return LegacyMetrics()
    seconds = relative_time * (clips.num_frames / fps)
    return LegacyMetrics(
        ap=float(precision[0] * recall[0] + np.trapezoid(precision, recall)),
        mtta=float(seconds.mean()),
        tta_r80=float(seconds[np.argmin(np.abs(recall - 0.8))]),
        p_r80=float(precision[np.argmax(recall >= 0.8)]),
    )


class LegacyPoints(NamedTuple):
    """What the legacy metrics are means and areas of: one point for each of R distinct recalls.

    Attributes:
        recall: (R,) ascending; the share of the accidents that are hit.
        precision: (R,) best precision at that recall.
        relative_time: (R,) largest mean share of the time before the accident that is left at the first alarm.
    """

    recall: FloatArray
    precision: FloatArray
    relative_time: FloatArray


def legacy_points(clips: ClipScores) -> LegacyPoints:
    """Returns the points of a test set, none without a clip with an accident or when every score is 1.

    Args:
        clips: Probabilities in [0, 1]; every accident inside its clip.

    Raises:
        ValueError: If a score lies outside [0, 1], or an accident beyond the last frame.

    >>> points = legacy_points(ClipScores.check([[0.2, 0.8], [0.5, 0.1]], [1, 0], [2, 9]))
    >>> points.recall.tolist(), points.precision.tolist()
    ([1.0], [0.5])
    """
    _check_range(clips)
    if not clips.is_accident.any():
        return LegacyPoints(*np.empty((3, 0)))
    lowest = clips.scores.min(initial=np.inf, where=clips.counted())
    thresholds = np.arange(max(lowest, 0.0), 1.0, THRESHOLD_STEP)
    if len(thresholds) == 0:
        return LegacyPoints(*np.empty((3, 0)))
    # A level is the number of thresholds at or below a score: threshold k is reached by every level above k.
    levels = np.searchsorted(thresholds, clips.maxima(), side="right")
    mine = clips.is_accident
    called = len(levels) - _at_or_below(levels, len(thresholds))
    hits = int(mine.sum()) - _at_or_below(levels[mine], len(thresholds))
    delays = _summed_delays(clips, thresholds, levels[mine])
    if thresholds[0] == 0.0:
        # The script multiplies scores by labels, and 0 >= 0: at threshold 0 every clip is a hit at its first frame.
        hits[0] += int((~mine).sum())
    used = int(np.count_nonzero(hits))  # hits never grow with the threshold, so the thresholds with any come first
    precision, time = hits[:used] / called[:used], 1.0 - delays[:used] / hits[:used]
    starts = np.flatnonzero(np.diff(hits[:used], prepend=-1))
    best_precision, best_time = np.maximum.reduceat(precision, starts), np.maximum.reduceat(time, starts)
    # For the largest recall the script takes the first entry of its sorted list, that of the lowest threshold.
    best_precision[0], best_time[0] = precision[0], time[0]
    recall = hits[starts] / int(mine.sum())
    return LegacyPoints(recall[::-1], best_precision[::-1], best_time[::-1])


def _summed_delays(clips: ClipScores, thresholds: FloatArray, levels: IntArray) -> FloatArray:
    """Returns (K,) for each threshold the sum over its hits of (frames before the first alarm) / toa.

    A frame lies before the alarm when the running maximum is below the threshold; frames of missed clips are counted
    with the rest and taken away again.
    """
    mine = clips.is_accident
    counted, toas = clips.counted()[mine], clips.toas[mine]
    running = np.searchsorted(thresholds, np.maximum.accumulate(clips.scores[mine], axis=1), side="right")
    weights = np.broadcast_to(1.0 / toas[:, None], counted.shape)
    before = np.bincount(running[counted], weights[counted], minlength=len(thresholds) + 1)
    missed = np.bincount(levels, clips.lengths()[mine] / toas, minlength=len(thresholds) + 1)
    return np.asarray(np.cumsum(before - missed)[:-1], np.float64)


def _at_or_below(levels: IntArray, count: int) -> IntArray:
    """Returns (count,) how many levels are at most 0, 1, ..., count - 1."""
    return np.cumsum(np.bincount(levels, minlength=count + 1))[:-1]


def _check_range(clips: ClipScores) -> None:
    outside = (clips.scores < 0) | (clips.scores > 1)
    if outside.any():
        raise ValueError(f"a score is {clips.scores[outside][0]:g}; legacy thresholds need probabilities in [0, 1].")
    if clips.ends_beyond.any():
        index = int(np.argmax(clips.ends_beyond))
        raise ValueError(
            f"clip {index} has its accident at frame {clips.toas[index]:g}, beyond its {clips.num_frames} frames; "
            "legacy time to accident needs the accident inside the clip."
        )
