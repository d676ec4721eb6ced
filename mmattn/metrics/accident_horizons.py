"""How well clips are told apart half a second, one second and one and a half seconds before the event.

Nexar's challenge (arXiv 2503.03848) ends each test clip 0.5, 1.0 or 1.5 s before the event, takes the average precision
of each group and averages the three. Here all three cuts are made on the per-frame scores of whole clips. What happens
to clips *without* an accident is not settled in the literature and matters a great deal, so it has a name:

* ``matched``: every clip is cut before its reference, an accident or the closest moment of a near miss. An accident
  1.5 s ahead then stands beside a near miss 1.5 s ahead.
* ``positives``: only clips with an accident are cut. An accident 1.5 s ahead stands beside a near miss at its closest,
  which no predictor can tell from an accident: low numbers that say little.

Shapes: N clips, T frames. References are frames; ``t <= reference - horizon * fps`` are the frames left after a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmattn.metrics.ranking import RankingCurve, ranking_curve

__all__ = ["HORIZONS", "Cut", "HorizonMean", "cut_scores", "far_limited_mauc", "nexar_map", "partial_auc"]

HORIZONS = (0.5, 1.0, 1.5)
"""Seconds before the event."""

Cut = Literal["matched", "positives"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HorizonMean:
    """A metric at several horizons and its mean.

    Attributes:
        mean: Unweighted mean over the horizons; NaN when one of them is not defined.
        at: Seconds before the event -> value, NaN where only one kind of clip is left.
        left_out: Seconds before the event -> clips whose cut leaves no frame.
    """

    mean: float
    at: Mapping[float, float]
    left_out: Mapping[float, int]


def nexar_map(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    references: npt.ArrayLike,
    fps: npt.ArrayLike,
    *,
    horizons: Sequence[float] = HORIZONS,
    cut: Cut = "matched",
    reduce: Literal["max", "last"] = "max",
) -> HorizonMean:
    """Returns the average precision at each horizon and their mean (mAP).

    Args:
        scores: (N, T) risk per frame.
        labels: (N,) 0/1, 1 = accident.
        references: (N,) frame of the accident, which may lie beyond the last frame, or of the closest moment of a clip
            without accident; the clip's length where nothing happens. With ``cut="positives"`` only accidents matter.
        fps: Frames per second, one number or (N,).
        horizons: Seconds before the event.
        cut: Which clips are cut, see above.
        reduce: Score of a clip: the largest of its frames, or that of the last frame left.

    Raises:
        ValueError: If shapes do not fit, a score or a reference that is needed is not finite, or an option is unknown.

    >>> found = nexar_map([[0.1, 0.2, 0.9, 0.9], [0.3, 0.3, 0.3, 0.3]], [1, 0], [4, 4], 2.0)
    >>> found.at, round(found.mean, 4)
    ({0.5: 1.0, 1.0: 1.0, 1.5: 0.5}, 0.8333)
    """
    return _at_horizons(
        RankingCurve.average_precision, scores, labels, references, fps, horizons=horizons, cut=cut, reduce=reduce
    )


def far_limited_mauc(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    references: npt.ArrayLike,
    fps: npt.ArrayLike,
    *,
    far_limit: float = 0.1,
    horizons: Sequence[float] = HORIZONS,
    cut: Cut = "matched",
) -> HorizonMean:
    """Returns the area under the ROC curve up to a false-alarm rate, at each horizon, and their mean (mAUC@0.1).

    Args:
        scores: (N, T) risk per frame.
        labels: (N,) 0/1, 1 = accident.
        references: (N,) frames, as for :func:`nexar_map`.
        fps: Frames per second, one number or (N,).
        far_limit: Largest false-alarm rate, in (0, 1].
        horizons: Seconds before the event.
        cut: Which clips are cut.

    Raises:
        ValueError: As :func:`nexar_map` and :func:`partial_auc`.

    >>> far_limited_mauc([[0.1, 0.2, 0.9, 0.9], [0.3, 0.3, 0.3, 0.3]], [1, 0], [4, 4], 2.0, far_limit=1.0).at
    {0.5: 1.0, 1.0: 1.0, 1.5: 0.0}
    """
    return _at_horizons(
        lambda curve: partial_auc(curve, far_limit), scores, labels, references, fps, horizons=horizons, cut=cut
    )


def cut_scores(
    scores: npt.ArrayLike, references: npt.ArrayLike, fps: npt.ArrayLike, horizon: float, *, reduce: str = "max"
) -> FloatArray:
    """Returns (N,) the score of each clip when it ends ``horizon`` seconds before its reference; NaN without a frame.

    Args:
        scores: (N, T) risk per frame.
        references: (N,) frames; infinity keeps the whole clip.
        fps: Frames per second, one number or (N,).
        horizon: Seconds.
        reduce: "max" for the largest score of the frames left, "last" for that of the last one.

    Raises:
        ValueError: If ``reduce`` is neither.

    >>> cut_scores([[0.1, 0.4, 0.9, 0.9]], [3], 2.0, 0.5).tolist()
    [0.9]
    >>> cut_scores([[0.1, 0.4, 0.9, 0.9]], [3], 2.0, 1.0).tolist()
    [0.4]
    """
    risk, ends = np.asarray(scores, np.float64), np.asarray(references, np.float64)
    if reduce not in ("max", "last"):
        raise ValueError(f"reduce is {reduce!r}; expected 'max' or 'last'.")
    # The millionth of a frame keeps 4.5 s * 20 fps from becoming frame 89.
    last = np.floor(ends - horizon * np.asarray(fps, np.float64) + 1e-6)
    last = np.clip(np.broadcast_to(last, ends.shape), -1, risk.shape[1] - 1).astype(np.int64)
    left = np.arange(risk.shape[1]) <= last[:, None]
    largest = risk.max(axis=1, initial=-np.inf, where=left)
    value = largest if reduce == "max" else risk[np.arange(len(risk)), last]
    return np.where(last >= 0, value, np.nan)


def partial_auc(curve: RankingCurve, far_limit: float) -> float:
    """Returns the area under the ROC curve up to ``far_limit``, scaled so that chance is 0.5 and perfection 1.

    The scaling is McClish's (Medical Decision Making 9, 1989), as in scikit-learn's ``roc_auc_score(max_fpr=...)``,
    with which published mAUC@0.1 are computed. NaN when only one kind of label is present.

    Args:
        curve: The ranking.
        far_limit: Largest false positive rate, in (0, 1].

    Raises:
        ValueError: If ``far_limit`` is outside (0, 1].

    >>> curve = ranking_curve([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])
    >>> partial_auc(curve, 1.0), round(partial_auc(curve, 0.5), 4)
    (0.75, 0.6667)
    """
    if not 0.0 < far_limit <= 1.0:
        raise ValueError(f"far_limit is {far_limit}; expected a rate in (0, 1].")
    if not curve.is_defined:
        return math.nan
    # Between two scores of positives only false alarms grow: each score gives a point before and one after its step.
    false_alarms = np.stack([curve.false_positives_above, curve.false_positives], axis=1)[::-1].ravel()
    hits_before = np.append(curve.true_positives[1:], 0)
    hits = np.stack([hits_before, curve.true_positives], axis=1)[::-1].ravel()
    far = np.concatenate([[0.0], false_alarms / curve.num_negatives, [1.0]])
    recall = np.concatenate([[0.0], hits / curve.num_positives, [1.0]])
    end = int(np.searchsorted(far, far_limit, side="right"))
    around = slice(end - 1, end + 1)
    at_limit = np.interp(far_limit, far[around], recall[around])
    area = float(np.trapezoid(np.append(recall[:end], at_limit), np.append(far[:end], far_limit)))
    chance = 0.5 * far_limit**2
    return 0.5 * (1.0 + (area - chance) / (far_limit - chance))


def _at_horizons(
    metric: Callable[[RankingCurve], float],
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    references: npt.ArrayLike,
    fps: npt.ArrayLike,
    *,
    horizons: Sequence[float],
    cut: Cut,
    reduce: Literal["max", "last"] = "max",
) -> HorizonMean:
    """Returns ``metric`` of the clips' scores after each cut."""
    risk, is_accident, ends, rates = _checked(scores, labels, references, fps, cut)
    at, left_out = {}, {}
    for horizon in horizons:
        value = cut_scores(risk, ends, rates, horizon, reduce=reduce)
        has_frames = ~np.isnan(value)
        at[horizon] = metric(ranking_curve(value[has_frames], is_accident[has_frames]))
        left_out[horizon] = int((~has_frames).sum())
    mean = sum(at.values()) / len(at) if at else math.nan
    return HorizonMean(mean, at, left_out)


def _checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike, references: npt.ArrayLike, fps: npt.ArrayLike, cut: Cut
) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray, FloatArray]:
    """Returns scores, labels, references (infinite where a clip is not cut) and fps as arrays that fit each other."""
    if cut not in ("matched", "positives"):
        raise ValueError(f"cut is {cut!r}; expected 'matched' or 'positives'.")
    risk, flags, ends = (np.asarray(array, np.float64) for array in (scores, labels, references))
    if risk.ndim != 2 or risk.shape[1] == 0 or flags.shape != risk.shape[:1] or ends.shape != risk.shape[:1]:
        raise ValueError(
            f"scores have shape {risk.shape}, labels {flags.shape}, references {ends.shape}; expected (clips, frames), "
            "(clips,) and (clips,) with at least one frame."
        )
    if not np.isfinite(risk).all() or not np.isin(flags, (0, 1)).all():
        raise ValueError("scores must be finite numbers and labels 0 or 1.")
    is_accident = flags == 1
    needed = is_accident | (cut == "matched")
    if not np.isfinite(ends[needed]).all():
        index = int(np.flatnonzero(needed & ~np.isfinite(ends))[0])
        raise ValueError(
            f"clip {index} has no finite reference frame, which the {cut} cut needs; for a clip in which nothing "
            "happens give its number of frames."
        )
    rates = np.broadcast_to(np.asarray(fps, np.float64), ends.shape)
    if not (rates > 0).all():
        raise ValueError("fps must be positive.")
    return risk, is_accident, np.where(needed, ends, np.inf), rates
