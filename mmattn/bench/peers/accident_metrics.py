"""The legacy accident metrics as the published script computes them: a loop over thresholds, clip by clip.

Compared in double precision and sorted stably, as :mod:`mmattn.metrics.accident_legacy` defines them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["legacy_threshold_loop"]


def legacy_threshold_loop(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.number], toas: npt.NDArray[np.number], fps: float
) -> tuple[float, float, float, float]:
    """Returns legacy AP, mTTA, TTA@R80 and P@R80; see :func:`mmattn.metrics.accident_legacy.legacy_metrics`.

    O(K N T) time for K thresholds.

    Args:
        scores: (N, T) probabilities per frame.
        labels: (N,) 0/1, 1 = accident, at least one of them 1.
        toas: (N,) time of accident in frames, at least 1 for an accident.
        fps: Frames per second.
    """
    risk = scores.astype(np.float64)
    kept = [row[: int(toa)] if label else row for row, label, toa in zip(risk, labels, toas, strict=True)]
    lowest = min(float(row.min()) for row in kept)
    precision, recall, time = [0.0], [0.0], [0.0]
    for threshold in np.arange(max(lowest, 0.0), 1.0, 0.001):
        hits = called = 0
        delay = 0.0
        for row, label, toa in zip(kept, labels, toas, strict=True):
            alarms = np.where(row * label >= threshold)[0]
            if len(alarms) > 0:
                hits += 1
                delay += alarms[0] / float(toa)
            called += len(np.where(row >= threshold)[0]) > 0
        precision.append(hits / called if called else np.nan)
        recall.append(hits / float(labels.sum()))
        time.append(1.0 - delay / hits if hits else np.nan)
    return _summary(np.array(recall), np.array(precision), np.array(time), risk.shape[1] / fps)


def _summary(
    recall: npt.NDArray[np.float64],
    precision: npt.NDArray[np.float64],
    time: npt.NDArray[np.float64],
    clip_seconds: float,
) -> tuple[float, float, float, float]:
    """Returns the four numbers from one point per threshold; the point (0, 0) stands first and is left out."""
    order = np.argsort(recall, kind="stable")
    recall, precision, time = recall[order], precision[order], time[order]
    _, starts = np.unique(recall, return_index=True)
    starts = starts[1:]
    best_precision, best_time = precision[starts], time[starts]
    for i in range(len(starts) - 1):
        best_precision[i] = precision[starts[i] : starts[i + 1]].max()
        best_time[i] = time[starts[i] : starts[i + 1]].max()
    recall = recall[starts]
    ap = best_precision[0] * recall[0]
    for i in range(1, len(recall)):
        ap += (best_precision[i - 1] + best_precision[i]) * (recall[i] - recall[i - 1]) / 2
    nearest = int(np.argmin(np.abs(recall - 0.8)))
    return (
        float(ap),
        float(best_time.mean() * clip_seconds),
        float(best_time[nearest] * clip_seconds),
        float(best_precision[recall >= 0.8][0]),
    )
