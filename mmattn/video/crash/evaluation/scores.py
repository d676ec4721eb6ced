"""Scoring a test run: risks collected clip by clip, then every metric per dataset and, where known, per accident type.

The threshold for a false-alarm rate and the temperature of the calibration are chosen on validation clips; see
``docs/accident_metrics.md`` for what the numbers mean.

Shapes: N clips, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmattn.errors import InputError
from mmattn.metrics.accident import accident_report, far_threshold
from mmattn.metrics.calibration import Reliability, apply_temperature, fit_temperature, reliability
from mmattn.metrics.clip_scores import ClipScores
from mmattn.video.crash.evaluation.table import DatasetScores, ScoreTable, TypeScores

__all__ = ["CrashEvaluation", "OperatingPoint", "ScoredClips", "choose_operating_point", "scenario_of"]

FloatArray = npt.NDArray[np.float64]

FAR = 0.1
_BINS = 10
# Probabilities of 0 and 1 have no logit.
_SMALLEST = 1e-7


@dataclass(frozen=True)
class ScoredClips:
    """Risks of annotated clips.

    Attributes:
        risk: (N, T) probability of an accident.
        label: (N,) 1 = accident.
        toa: (N,) frames before the accident.
        reference: (N,) frame the clip is judged relative to.
        fps: (N,) frames per second.
        dataset: N names.
        id: N names.
    """

    risk: FloatArray
    label: npt.NDArray[np.int64]
    toa: FloatArray
    reference: FloatArray
    fps: FloatArray
    dataset: tuple[str, ...]
    id: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)

    def of(self, dataset: str) -> ScoredClips:
        """Returns the clips of one dataset."""
        mine = np.array([name == dataset for name in self.dataset], bool)
        names = (tuple(np.array(own, dtype=object)[mine].tolist()) for own in (self.dataset, self.id))
        arrays = (array[mine] for array in (self.risk, self.label, self.toa, self.reference, self.fps))
        return ScoredClips(*arrays, *names)

    def maxima(self) -> FloatArray:
        """Returns (N,) the largest risk of each clip before its accident."""
        return ClipScores.check(self.risk, self.label, self.toa).maxima()

    def logits(self) -> FloatArray:
        """Returns (N,) the logits of :meth:`maxima`."""
        largest = self.maxima().clip(_SMALLEST, 1 - _SMALLEST)
        return np.asarray(np.log(largest) - np.log1p(-largest))


class CrashEvaluation:
    """Collects the risks of a test run."""

    def __init__(self) -> None:
        self._risks: list[FloatArray] = []
        self._facts: list[tuple[int, float, float, float, str, str]] = []

    def update(self, batch: Mapping[str, Any], risk: Tensor | FloatArray) -> None:
        """Adds a batch.

        Args:
            batch: Collated items of :class:`~mmattn.video.crash.datasets.clips.CrashDataset`.
            risk: (B, T) probability of an accident.

        Raises:
            InputError: If a risk is not finite; the message names the clip.
        """
        values = risk.detach().double().cpu().numpy() if isinstance(risk, Tensor) else np.asarray(risk, np.float64)
        for i, row in enumerate(values):
            if not np.isfinite(row).all():
                raise InputError(
                    f"The risk of clip {batch['id'][i]!r} is not a finite number.",
                    "The model or its weights are broken.",
                )
            self._risks.append(row)
            numbers = (float(batch[name][i]) for name in ("toa", "reference", "fps"))
            self._facts.append((int(batch["label"][i]), *numbers, str(batch["dataset"][i]), str(batch["id"][i])))  # type: ignore[arg-type]

    def clips(self) -> ScoredClips:
        """Returns what was collected.

        Raises:
            InputError: If nothing was, or clips differ in length.
        """
        if not self._risks:
            raise InputError("No clip was scored.", "Check the data with: mmattn data check crash PATH")
        lengths = sorted({len(row) for row in self._risks})
        if len(lengths) > 1:
            raise InputError(
                f"Clips of {lengths[0]} to {lengths[-1]} frames cannot be scored together.",
                "Set data.init_args.num_frames to one length for all.",
            )
        label, toa, reference, fps, dataset, name = zip(*self._facts, strict=True)
        return ScoredClips(
            np.stack(self._risks), np.array(label), np.array(toa), np.array(reference), np.array(fps), dataset, name
        )


@dataclass(frozen=True)
class OperatingPoint:
    """What validation clips decide.

    Attributes:
        threshold: Largest risk that one in ten clips without accident exceeds; NaN without such clips.
        temperature: Of the calibration; NaN unless there are clips of both kinds.
        source: Which clips decided, for people.
    """

    threshold: float = math.nan
    temperature: float = math.nan
    source: str = "no validation clips"


def choose_operating_point(clips: ScoredClips | None, source: str) -> OperatingPoint:
    """Returns the threshold for 10 % false alarms and the temperature that calibrates the clips' largest risks."""
    if clips is None or len(clips) == 0:
        return OperatingPoint()
    negatives = clips.maxima()[clips.label == 0]
    has_both = 0 < len(negatives) < len(clips)
    return OperatingPoint(
        threshold=far_threshold(negatives, FAR) if len(negatives) else math.nan,
        temperature=fit_temperature(clips.logits(), clips.label) if has_both else math.nan,
        source=source,
    )


def score(clips: ScoredClips, point: OperatingPoint) -> tuple[ScoreTable, dict[str, Reliability]]:
    """Returns all metrics of each dataset, and its reliability diagram before calibration."""
    rows, diagrams = [], {}
    for dataset in dict.fromkeys(clips.dataset):
        mine = clips.of(dataset)
        diagrams[dataset] = reliability(mine.maxima(), mine.label, bins=_BINS)
        rows.append(_dataset_scores(dataset, mine, point, diagrams[dataset].ece))
    return ScoreTable(tuple(rows), point.threshold, point.temperature, point.source), diagrams


def _dataset_scores(dataset: str, clips: ScoredClips, point: OperatingPoint, ece: float) -> DatasetScores:
    rates = sorted(set(clips.fps.tolist()))
    if len(rates) > 1:
        raise InputError(
            f"The clips of {dataset} have {rates[0]:g} to {rates[-1]:g} frames per second, expected one rate."
        )
    threshold = None if math.isnan(point.threshold) else point.threshold
    scaled = math.nan
    if not math.isnan(point.temperature):
        scaled = reliability(apply_temperature(clips.logits(), point.temperature), clips.label, bins=_BINS).ece
    report = accident_report(
        clips.risk, clips.label, clips.toa, rates[0], references=clips.reference, threshold=threshold
    )
    return DatasetScores(dataset, report, ece, scaled, _types(dataset, clips, threshold))


def _types(dataset: str, clips: ScoredClips, threshold: float | None) -> tuple[TypeScores, ...]:
    """Returns the alarms of each kind of clip where names say what happens in it, accidents first."""
    found: dict[Scenario, list[bool]] = {}
    if threshold is None:
        return ()
    for name, largest in zip(clips.id, clips.maxima().tolist(), strict=True):
        scenario = scenario_of(dataset, name)
        if scenario is not None:
            found.setdefault(scenario, []).append(largest > threshold)
    ordered = sorted(found.items(), key=lambda pair: (pair[0].outcome != "collision", pair[0].outcome, pair[0].type))
    return tuple(
        TypeScores(dataset, scenario.type, scenario.outcome, scenario.involves_ego, len(alarms), float(np.mean(alarms)))
        for scenario, alarms in ordered
    )


@dataclass(frozen=True)
class Scenario:
    """What happens in a generated clip.

    Attributes:
        type: Kind of conflict, such as "cut_in".
        outcome: "collision", "near" or "clear".
        involves_ego: Whether the conflict is the camera car's own.
    """

    type: str
    outcome: str
    involves_ego: bool


def scenario_of(dataset: str, clip_id: str) -> Scenario | None:
    """Returns what the name of a generated clip tells; None for clips of other datasets.

    >>> scenario_of("generated test", "test/crossing_others/collision/000003")
    Scenario(type='crossing_others', outcome='collision', involves_ego=False)
    """
    parts: Sequence[str] = clip_id.split("/")
    if not dataset.startswith("generated ") or len(parts) != 4:
        return None
    return Scenario(parts[1], parts[2], not parts[1].endswith("_others"))
