"""Area under the per-region-overlap curve (AUPRO): three published definitions, none of them a loop over thresholds.

PRO(t) is the covered fraction of an anomalous region, averaged over the 8-connected regions of all masks; FPR(t) the
covered fraction of all normal pixels. Give every anomalous pixel the weight ``1 / (area of its region * regions)``:
then PRO(t) is the *weight of the anomalous pixels above t*, and the curve follows from two histograms.

* :func:`aupro`: 200 equidistant thresholds, the kept FPRs rescaled, no interpolation. AnomalyCLIP, Crane and most
  zero-shot papers report it (``cal_pro_score``, first in gudovskiy/cflow-ad).
* :func:`aupro_exact`: every distinct threshold, interpolated at the limit (MVTec AD, arXiv 2103.04257 sec. 4;
  anomalib from 2.3).
* :func:`aupro_quantile`: thresholds at quantiles of the normal scores (MVTec 3D-AD's evaluation, as in open-iad).

Regions are found with OpenCV (extra ``vision``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.metrics.ranking import FloatArray, RankingCurve, pixel_curve, score_mask_pairs

__all__ = ["aupro", "aupro_exact", "aupro_quantile", "label_regions"]

Arrays = Sequence[Any] | npt.ArrayLike


def aupro(maps: Arrays, masks: Arrays, *, steps: int = 200, fpr_limit: float = 0.3) -> float:
    """Returns the AUPRO over ``steps`` equidistant thresholds, as zero-shot papers report it.

    Thresholds are ``min + i (max - min) / steps`` for ``i < steps``; a pixel is called when its score is strictly
    above. Points with ``FPR < fpr_limit`` are kept, their FPRs rescaled to [0, 1], and the trapezoids summed.

    O(pixels + steps) time, memory of one map besides the input; maps are read twice, one at a time, so a
    ``numpy.memmap`` of thousands of maps works.

    Args:
        maps: (N, H, W) finite scores of any range, or a sequence of N maps.
        masks: Same shapes, bool or 0/1, True = anomalous.
        steps: Number of thresholds.
        fpr_limit: Largest false positive rate, in (0, 1].

    Returns:
        Area in [0, 1]; NaN without a region, without a normal pixel, or with fewer than two distinct kept FPRs, unless
        the map is perfect (differs from the published code, which has no number for it).

    Raises:
        ValueError: If counts or shapes differ, a score is not finite, or an option is out of range.

    >>> maps, masks = np.array([[[0.9, 0.8, 0.2, 0.1]]]), np.array([[[1, 1, 0, 0]]])
    >>> aupro(maps, masks, fpr_limit=1.0)
    1.0
    """
    _check_options(steps, fpr_limit)
    thresholds = _equidistant(maps, masks, steps)
    covered, false_positives = np.zeros(steps + 1), np.zeros(steps + 1, np.int64)
    num_regions = 0
    for scores, mask in score_mask_pairs(maps, masks):
        level = _thresholds_below(scores.reshape(-1), thresholds)
        false_positives += _histogram(level, steps + 1)
        if mask.any():
            inside, weights, count = _region_weights(mask)
            level = level[inside]
            false_positives -= _histogram(level, steps + 1)
            covered += np.bincount(level, weights, minlength=steps + 1)
            num_regions += count
    num_normal = int(false_positives.sum())
    if num_regions == 0 or num_normal == 0:
        return math.nan
    fpr = _above(false_positives) / num_normal
    pro = _above(covered) / num_regions
    return _rescaled_area(fpr[fpr < fpr_limit], pro[fpr < fpr_limit])


def aupro_exact(maps: Arrays, masks: Arrays, *, fpr_limit: float = 0.3, curve: RankingCurve | None = None) -> float:
    """Returns the AUPRO over every distinct threshold, interpolated at ``fpr_limit`` and divided by it.

    O(n log n) time over n pixels, see :func:`mmattn.metrics.ranking.pixel_curve`.

    Args:
        maps: (N, H, W) scores, or a sequence of N maps.
        masks: Same shapes, bool or 0/1, True = anomalous.
        fpr_limit: False positive rate to which the curve is integrated, in (0, 1].
        curve: Result of ``pixel_curve(maps, masks)`` when it is at hand; saves the sort.

    Returns:
        Area in [0, 1]; NaN without a region or without a normal pixel.

    Raises:
        ValueError: If counts or shapes differ, a score is NaN, or ``fpr_limit`` is out of range.

    >>> maps, masks = np.array([[[0.1, 0.75], [0.8, 0.7]]]), np.array([[[0, 1], [0, 0]]])
    >>> round(aupro_exact(maps, masks, fpr_limit=1.0), 4)
    0.6667
    """
    _check_options(1, fpr_limit)
    curve = pixel_curve(maps, masks) if curve is None else curve
    if not curve.is_defined:
        return math.nan
    scores, weights = _region_pixels(maps, masks)
    at_threshold = np.bincount(np.searchsorted(curve.thresholds, scores), weights, minlength=len(curve.thresholds))
    pro = np.cumsum(at_threshold[::-1])
    # Between two scores of anomalous pixels only the FPR moves: each threshold gives a point before and one after it.
    fpr = np.stack([curve.false_positives_above, curve.false_positives], axis=1)[::-1].ravel() / curve.num_negatives
    pros = np.stack([np.append(0.0, pro[:-1]), pro], axis=1).ravel()
    return _area_to(np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], pros, [1.0]]), fpr_limit)


def aupro_quantile(maps: Arrays, masks: Arrays, *, steps: int = 200, fpr_limit: float = 0.3) -> float:
    """Returns the AUPRO over thresholds at ``steps`` equidistant ranks of the normal scores.

    Args:
        maps: (N, H, W) scores, or a sequence of N maps; the normal scores are sorted in memory.
        masks: Same shapes, bool or 0/1, True = anomalous.
        steps: Number of thresholds, at least 2.
        fpr_limit: False positive rate to which the curve is integrated, in (0, 1]; interpolated there.

    Returns:
        Area in [0, 1]; NaN without a region or without a normal pixel.

    Raises:
        ValueError: If counts or shapes differ, a score is NaN, or an option is out of range.

    >>> maps, masks = np.array([[[0.1, 0.75], [0.8, 0.7]]]), np.array([[[0, 1], [0, 0]]])
    >>> round(aupro_quantile(maps, masks, steps=3, fpr_limit=1.0), 4)
    0.8333
    """
    _check_options(steps, fpr_limit)
    normal_parts = [scores[~mask] for scores, mask in score_mask_pairs(maps, masks)]
    normal = np.sort(np.concatenate(normal_parts)) if normal_parts else np.empty(0, np.float32)
    scores, weights = _region_pixels(maps, masks)
    if len(scores) == 0 or len(normal) == 0:
        return math.nan
    ranks = np.linspace(0, len(normal) - 1, num=steps, dtype=np.int64)
    level = np.searchsorted(normal[ranks], scores, side="left")
    pro = _above(np.bincount(level, weights, minlength=steps + 1))
    # The definition takes the rate from the rank, also where normal scores are tied.
    fpr = 1.0 - (ranks + 1) / len(normal)
    return _area_to(np.append(fpr[::-1], 1.0), np.append(pro[::-1], 1.0), fpr_limit)


def label_regions(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    """Returns the 8-connected regions of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        Labels (H, W), 0 outside and 1..R inside, and R.

    Raises:
        ValueError: If the mask does not have two dimensions.

    >>> label_regions(np.array([[True, False, True], [True, False, False]]))[0].tolist()
    [[1, 0, 2], [1, 0, 0]]
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask has shape {mask.shape}; regions need (height, width).")
    count, labels = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=8)
    return np.asarray(labels, np.int32), int(count) - 1


def _region_weights(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]:
    """Returns flat positions of the anomalous pixels, one over the area of each one's region, and the regions."""
    labels, count = label_regions(mask)
    inside = np.flatnonzero(mask)
    region = labels.reshape(-1)[inside]
    return inside, 1.0 / np.bincount(region)[region], count


def _region_pixels(maps: Arrays, masks: Arrays) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Returns scores and weights of all anomalous pixels; the weights of a region sum to 1 / regions."""
    all_scores: list[FloatArray] = []
    all_weights: list[npt.NDArray[np.float64]] = []
    num_regions = 0
    for scores, mask in score_mask_pairs(maps, masks):
        inside, weights, count = _region_weights(mask)
        all_scores.append(scores.reshape(-1)[inside])
        all_weights.append(weights)
        num_regions += count
    if num_regions == 0:
        return np.empty(0, np.float32), np.empty(0)
    return np.concatenate(all_scores), np.concatenate(all_weights) / num_regions


def _equidistant(maps: Arrays, masks: Arrays, steps: int) -> FloatArray:
    """Returns the thresholds (steps,) of :func:`aupro`, in the precision of the maps."""
    extremes = [(scores.min(), scores.max()) for scores, _ in score_mask_pairs(maps, masks) if scores.size]
    if not extremes:
        return np.zeros(steps, np.float32)
    low, high = (np.asarray(values) for values in zip(*extremes, strict=True))
    first, last = float(low.min()), float(high.max())
    if not (math.isfinite(first) and math.isfinite(last)):
        raise ValueError(f"maps range over [{first}, {last}]; equidistant thresholds need finite scores.")
    return (first + np.arange(steps) * ((last - first) / steps)).astype(low.dtype)


def _thresholds_below(scores: FloatArray, thresholds: FloatArray) -> npt.NDArray[np.integer[Any]]:
    """Returns (n,) how many of the equidistant thresholds lie strictly below each score.

    The place follows from one multiplication; only scores within its rounding error of a threshold are looked up.
    """
    steps = len(thresholds)
    spacing = float(thresholds[-1] - thresholds[0]) / max(steps - 1, 1)
    largest = float(np.abs(thresholds).max(initial=0.0)) + spacing
    margin = 8 * float(np.finfo(thresholds.dtype).eps) * largest / spacing if spacing > 0 else math.inf
    if margin > 0.1 or steps > 60_000:
        return np.asarray(np.searchsorted(thresholds, scores, side="left"), np.int64)
    level_type = np.uint8 if steps < 255 else np.uint16
    place = scores * scores.dtype.type(1.0 / spacing)
    # Between thresholds i - 1 and i the shifted place lies in (i, i + 1), and the cast truncates.
    place += 1.0 - float(thresholds[0]) / spacing - margin
    level: npt.NDArray[np.integer[Any]] = place.astype(level_type)
    place += 2 * margin
    near = np.flatnonzero(place.astype(level_type) != level)
    level[near] = np.searchsorted(thresholds, scores[near], side="left")
    return level


def _histogram(level: npt.NDArray[np.integer[Any]], size: int) -> npt.NDArray[np.int64]:
    """Returns (size,) how often each level occurs; OpenCV's counting is three times as fast as ``numpy.bincount``."""
    if level.dtype == np.int64:
        return np.bincount(level, minlength=size)
    counts = np.zeros(size, np.int64)
    # OpenCV returns float32, exact up to 2^24.
    for start in range(0, len(level), 1 << 24):
        part = cv2.calcHist([level[start : start + (1 << 24)]], [0], None, [size], [0, size])
        counts += part.reshape(-1).astype(np.int64)
    return counts


def _above(histogram: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns, for each of the ``steps`` thresholds, the sum of the histogram's levels above it."""
    summed: npt.NDArray[Any] = np.cumsum(histogram[::-1])[::-1][1:]
    return summed


def _rescaled_area(fpr: npt.NDArray[np.float64], pro: npt.NDArray[np.float64]) -> float:
    """Returns the area under descending points after stretching the FPRs to [0, 1]; NaN if they are all equal.

    But 1 where every region is covered before the first normal pixel is: the published form has no number for that.
    """
    if len(fpr) < 2 or fpr[0] == fpr[-1]:
        return 1.0 if len(fpr) and fpr[0] == 0.0 and math.isclose(float(pro[0]), 1.0) else math.nan
    stretched = (fpr - fpr[-1]) / (fpr[0] - fpr[-1])
    return float(-np.trapezoid(pro, stretched))


def _area_to(fpr: npt.NDArray[np.float64], pro: npt.NDArray[np.float64], limit: float) -> float:
    """Returns the area under ascending points up to ``limit``, divided by it; linear in the segment that crosses."""
    end = int(np.searchsorted(fpr, limit, side="right"))
    area = float(np.trapezoid(pro[:end], fpr[:end]))
    if end < len(fpr):
        share = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
        at_limit = pro[end - 1] + share * (pro[end] - pro[end - 1])
        area += 0.5 * float(pro[end - 1] + at_limit) * float(limit - fpr[end - 1])
    return area / limit


def _check_options(steps: int, fpr_limit: float) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 threshold is needed.")
    if not 0.0 < fpr_limit <= 1.0:
        raise ValueError(f"fpr_limit is {fpr_limit}; expected a rate in (0, 1].")
