"""AUROC, average precision and F1-max of scores against binary labels: exact, and all three from one sort.

The three depend on the data only through the counts of positives and negatives at or above each *distinct score of a
positive*: recall changes nowhere else, and between two such scores precision only falls. :class:`RankingCurve` holds
these counts. Negatives are counted block by block, so that maps on disk (``numpy.memmap``) never have to fit in
memory at once.

Definitions: Fawcett, "An introduction to ROC analysis" (2006) for AUROC with ties counted half; average precision is
the step-wise sum of ``(R_n - R_{n-1}) P_n`` without interpolation; F1-max is the largest ``2PR / (P + R)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RankingCurve", "auroc", "average_precision", "f1_max", "pixel_curve", "ranking_curve", "score_mask_pairs"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

# Negatives sorted at a time: 16 MB of float32, where one more doubling no longer saves time.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class RankingCurve:
    """Counts of one ranking at the U distinct scores of its positives.

    Attributes:
        thresholds: (U,) distinct scores of the positives, ascending.
        true_positives: (U,) positives at or above each threshold.
        false_positives: (U,) negatives at or above each threshold.
        false_positives_above: (U,) negatives strictly above each threshold.
        num_positives: Number of positives.
        num_negatives: Number of negatives.
    """

    thresholds: FloatArray
    true_positives: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]
    false_positives_above: npt.NDArray[np.int64]
    num_positives: int
    num_negatives: int

    @property
    def is_defined(self) -> bool:
        """True when both kinds of label are present; the scores below are NaN otherwise."""
        return self.num_positives > 0 and self.num_negatives > 0

    def auroc(self) -> float:
        """Returns the probability that a positive outscores a negative, ties counted half."""
        if not self.is_defined:
            return math.nan
        below = self.num_negatives - 0.5 * (self.false_positives + self.false_positives_above)
        return float(self._positives_at() @ below / (self.num_positives * self.num_negatives))

    def average_precision(self) -> float:
        """Returns the step-wise area under the precision-recall curve."""
        if not self.is_defined:
            return math.nan
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float(self._positives_at() @ precision / self.num_positives)

    def f1_max(self) -> float:
        """Returns the largest F1 over all thresholds."""
        if not self.is_defined:
            return math.nan
        called = self.true_positives + self.false_positives
        return float(np.max(2 * self.true_positives / (called + self.num_positives)))

    def _positives_at(self) -> npt.NDArray[np.int64]:
        """Returns (U,) the number of positives that have exactly this score."""
        return -np.diff(self.true_positives, append=0)


def ranking_curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> RankingCurve:
    """Returns the curve of flat scores; see :func:`pixel_curve` for maps.

    Args:
        scores: (N,) real numbers, larger means more likely positive. Any finite or infinite value.
        labels: (N,) bool or 0/1.

    Raises:
        ValueError: If the shapes differ or a score is NaN.

    >>> curve = ranking_curve([0.1, 0.4, 0.4], [0, 1, 0])
    >>> curve.thresholds.tolist(), curve.true_positives.tolist(), curve.false_positives.tolist()
    ([0.4], [1], [1])
    """
    return pixel_curve([np.asarray(scores).reshape(-1)], [np.asarray(labels).reshape(-1)])


def pixel_curve(maps: Sequence[Any] | npt.ArrayLike, masks: Sequence[Any] | npt.ArrayLike) -> RankingCurve:
    """Returns the curve over all pixels of all maps.

    O(n log n) time over n pixels; besides one block, memory grows with the positives only.

    Args:
        maps: (N, H, W) scores, or a sequence of N arrays of any shapes; read twice, one map at a time. Scores are
            compared in float32, or in float64 when given so.
        masks: Same shapes, bool or 0/1, True = anomalous.

    Raises:
        ValueError: If counts or shapes differ, or a score is NaN.

    >>> curve = pixel_curve(np.array([[[0.1, 0.4], [0.35, 0.8]]]), np.array([[[0, 0], [1, 1]]]))
    >>> curve.auroc(), round(curve.average_precision(), 4), round(curve.f1_max(), 4)
    (0.75, 0.8333, 0.8)
    """
    positives = [scores[mask] for scores, mask in score_mask_pairs(maps, masks)]
    flat = np.concatenate(positives) if positives else np.empty(0, np.float32)
    thresholds, counts = np.unique(flat, return_counts=True)
    at_or_above, above = (np.zeros(len(thresholds), np.int64) for _ in range(2))
    num_negatives = 0
    for block in _negative_blocks(maps, masks):
        block.sort()
        at_or_above += len(block) - np.searchsorted(block, thresholds, side="left")
        above += len(block) - np.searchsorted(block, thresholds, side="right")
        num_negatives += len(block)
    return RankingCurve(
        thresholds=thresholds,
        true_positives=np.cumsum(counts[::-1])[::-1],
        false_positives=at_or_above,
        false_positives_above=above,
        num_positives=len(flat),
        num_negatives=num_negatives,
    )


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Returns the area under the ROC curve of scores (N,); NaN when only one kind of label is present.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    return ranking_curve(scores, labels).auroc()


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Returns the step-wise average precision of scores (N,); NaN when only one kind of label is present.

    >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
    0.8333
    """
    return ranking_curve(scores, labels).average_precision()


def f1_max(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Returns the best F1 of scores (N,) over all thresholds; NaN when only one kind of label is present.

    >>> f1_max([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.8
    """
    return ranking_curve(scores, labels).f1_max()


def score_mask_pairs(
    maps: Sequence[Any] | npt.ArrayLike, masks: Sequence[Any] | npt.ArrayLike
) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Yields each map with its mask as checked arrays: float32 or float64 scores, bool mask, equal shapes.

    Args:
        maps: (N, H, W), or a sequence of N arrays of any shapes.
        masks: Same shapes, bool or 0/1.

    Raises:
        ValueError: If counts or shapes differ, or a score is NaN.

    >>> [(scores.dtype, mask.tolist()) for scores, mask in score_mask_pairs([[1, 2]], [[0, 1]])]
    [(dtype('float64'), [False, True])]
    """
    map_list, mask_list = _as_sequence(maps), _as_sequence(masks)
    if len(map_list) != len(mask_list):
        raise ValueError(f"got {len(map_list)} maps and {len(mask_list)} masks; every map needs its mask.")
    for index in range(len(map_list)):
        scores, mask = np.asarray(map_list[index]), np.asarray(mask_list[index])
        if scores.shape != mask.shape:
            raise ValueError(f"map {index} has shape {scores.shape}, its mask {mask.shape}; they must be equal.")
        if scores.dtype != np.float64:
            scores = scores.astype(np.float32 if scores.dtype.kind == "f" else np.float64, copy=False)
        if scores.size and np.isnan(scores.min()):
            raise ValueError(f"map {index} holds NaN; a ranking of NaN is not defined.")
        yield scores, mask.astype(bool, copy=False)


def _as_sequence(arrays: Sequence[Any] | npt.ArrayLike) -> Sequence[Any]:
    return arrays if isinstance(arrays, Sequence) else np.asanyarray(arrays)  # type: ignore[return-value]


def _negative_blocks(maps: Sequence[Any] | npt.ArrayLike, masks: Sequence[Any] | npt.ArrayLike) -> Iterator[FloatArray]:
    """Yields the scores of all negatives in new arrays of about ``_BLOCK`` elements."""
    pending: list[FloatArray] = []
    size = 0
    for scores, mask in score_mask_pairs(maps, masks):
        pending.append(scores[~mask])
        size += pending[-1].size
        if size >= _BLOCK:
            yield np.concatenate(pending)
            pending, size = [], 0
    if size:
        yield np.concatenate(pending)
