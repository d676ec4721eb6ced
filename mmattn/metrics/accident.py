"""The metrics of accident anticipation, and a report of all of them.

A number that is not defined (no clip with an accident, no clip without) is NaN in Python, None in JSON and "n/a" in
text. What each number means, and which of them flatter a scorer that knows nothing: ``docs/accident_metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from mmattn.metrics.accident_alarms import LeadTime, far_limited_mtta, far_threshold, lead_time
from mmattn.metrics.accident_horizons import HorizonMean, far_limited_mauc, nexar_map
from mmattn.metrics.accident_legacy import LegacyMetrics, legacy_metrics
from mmattn.metrics.clip_scores import ClipScores
from mmattn.metrics.ranking import average_precision
from mmattn.metrics.tables import aligned, plain, shown

__all__ = [
    "AccidentReport",
    "ClipScores",
    "HorizonMean",
    "LeadTime",
    "LegacyMetrics",
    "accident_report",
    "far_limited_mauc",
    "far_limited_mtta",
    "far_threshold",
    "lead_time",
    "legacy_metrics",
    "nexar_map",
    "shown_metric",
    "video_ap",
]

FAR_LIMIT = 0.1
"""False-alarm rate of the limited metrics: one clip without accident in ten."""


def video_ap(scores: npt.ArrayLike, labels: npt.ArrayLike, toas: npt.ArrayLike) -> float:
    """Returns the average precision of the clips, each scored by its largest risk before the accident.

    It is scikit-learn's ``average_precision_score``. The "AP" of 99.5 that UString reports on CCD is this number; its
    legacy AP of the same weights is 96.99 (issue 23 of Cogito2012/UString).

    Args:
        scores: (N, T) risk per frame.
        labels: (N,) 0/1, 1 = accident.
        toas: (N,) time of accident in frames, may lie beyond the last frame.

    Returns:
        A number in [0, 1]; NaN when only one kind of clip is present.

    Raises:
        ValueError: As :meth:`ClipScores.check`.

    >>> video_ap([[0.1, 0.9, 0.2], [0.3, 0.5, 0.4]], [1, 0], [2, 4])
    1.0
    """
    clips = ClipScores.check(scores, labels, toas)
    return average_precision(clips.maxima(), clips.is_accident)


@dataclass(frozen=True)
class AccidentReport:
    """All metrics of a test set; rates in [0, 1], times in seconds, NaN where not defined.

    Attributes:
        clips: Number of clips.
        accidents: Number of clips with an accident.
        video_ap: Average precision of the clips' largest risks before the accident.
        nexar_map_matched: Mean AP at 0.5, 1.0 and 1.5 s, all clips cut before their reference.
        nexar_map_positives: The same with only the accidents cut.
        mauc_far10: Mean partial AUC up to 10 % false alarms at these horizons, chance 0.5.
        mtta_far10: Mean warning over the operating points up to 10 % false alarms, misses 0.
        lead_time_far10: Mean warning at the validation threshold for 10 % false alarms, misses 0; NaN without one.
        recall_far10: Share of the accidents warned of at that threshold.
        false_alarm_rate: Share of the other clips with an alarm at that threshold.
        legacy_ap: Published AP; NaN, as the other legacy numbers, when an accident lies beyond its clip's end.
        legacy_mtta: Published mTTA, in legacy seconds. Meaningless without ``legacy_ap`` beside it.
        legacy_tta_r80: Published TTA@R80, in legacy seconds.
        legacy_p_r80: Published P@R80.
    """

    clips: int
    accidents: int
    video_ap: float
    nexar_map_matched: float
    nexar_map_positives: float
    mauc_far10: float
    mtta_far10: float
    lead_time_far10: float
    recall_far10: float
    false_alarm_rate: float
    legacy_ap: float
    legacy_mtta: float
    legacy_tta_r80: float
    legacy_p_r80: float

    def scores(self) -> Mapping[str, float]:
        """Returns the metrics by name, without the two counts."""
        return {name: value for name, value in asdict(self).items() if name not in ("clips", "accidents")}

    def to_json(self) -> dict[str, float | int | None]:
        """Returns plain JSON types, None where a metric is not defined."""
        found: dict[str, float | int | None] = plain(asdict(self))
        return found

    def __str__(self) -> str:
        """Returns a line per metric, "n/a" where it is not defined."""
        rows = [("clips", str(self.clips)), ("accidents", str(self.accidents))]
        rows += [(name, shown_metric(name, value)) for name, value in self.scores().items()]
        return aligned(rows, left=2)


def shown_metric(name: str, value: float) -> str:
    """Returns a metric as it is shown to people, with its unit.

    >>> shown_metric("mtta_far10", 1.5), shown_metric("ap", math.nan)
    ('1.500 s', 'n/a')
    """
    return shown(value) + (" s" if name in _SECONDS and not math.isnan(value) else "")


_SECONDS = ("mtta_far10", "lead_time_far10", "legacy_mtta", "legacy_tta_r80")


def accident_report(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    toas: npt.ArrayLike,
    fps: float,
    *,
    references: npt.ArrayLike | None = None,
    threshold: float | None = None,
) -> AccidentReport:
    """Returns every metric of a test set.

    Args:
        scores: (N, T) probability of an accident per frame.
        labels: (N,) 0/1, 1 = accident.
        toas: (N,) time of accident in frames; of a clip without accident any number.
        fps: Frames per second.
        references: (N,) frame of each clip's closest moment, for the cuts before the event. None takes the accident,
            and the end of the clip where there is none.
        threshold: :func:`far_threshold` of validation clips; without it lead time, recall and false alarms are NaN.

    Raises:
        ValueError: As :func:`legacy_metrics` and :func:`nexar_map`.

    >>> report = accident_report([[0.2, 0.8, 0.9], [0.1, 0.1, 0.1]], [1, 0], [3, 9], 2.0, threshold=0.5)
    >>> report.video_ap, report.lead_time_far10, report.false_alarm_rate
    (1.0, 1.0, 0.0)
    """
    clips = ClipScores.check(scores, labels, toas)
    if references is None:
        references = np.where(clips.is_accident, clips.toas, clips.num_frames)
    trimmed = bool(clips.ends_beyond.any())
    legacy = LegacyMetrics() if trimmed else legacy_metrics(scores, labels, toas, fps)
    warning = None if threshold is None else lead_time(scores, labels, toas, fps, threshold=threshold)
    return AccidentReport(
        clips=len(clips.scores),
        accidents=int(clips.is_accident.sum()),
        video_ap=average_precision(clips.maxima(), clips.is_accident),
        nexar_map_matched=nexar_map(scores, labels, references, fps, cut="matched").mean,
        nexar_map_positives=nexar_map(scores, labels, references, fps, cut="positives").mean,
        mauc_far10=far_limited_mauc(scores, labels, references, fps, far_limit=FAR_LIMIT).mean,
        mtta_far10=far_limited_mtta(scores, labels, toas, fps, far_limit=FAR_LIMIT),
        lead_time_far10=math.nan if warning is None else warning.mean,
        recall_far10=math.nan if warning is None else warning.recall,
        false_alarm_rate=math.nan if warning is None else warning.false_alarm_rate,
        legacy_ap=legacy.ap,
        legacy_mtta=legacy.mtta,
        legacy_tta_r80=legacy.tta_r80,
        legacy_p_r80=legacy.p_r80,
    )
