"""The table of a test run: every metric of each dataset, and the alarms by kind of clip.

A number that is not defined is NaN in Python, null in JSON, empty in CSV and "n/a" in text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmattn.metrics.accident import AccidentReport, shown_metric
from mmattn.metrics.tables import aligned, plain, shown, write_csv, write_json

__all__ = ["DatasetScores", "ScoreTable", "TypeScores"]


@dataclass(frozen=True)
class TypeScores:
    """Alarms of one kind of clip at the validation threshold.

    Attributes:
        dataset: Name of the dataset.
        type: Kind of conflict.
        outcome: "collision", "near" or "clear".
        involves_ego: Whether the conflict is the camera car's own.
        clips: Number of clips.
        alarms: Share of them with an alarm: recall for collisions, false alarms for all others.
    """

    dataset: str
    type: str
    outcome: str
    involves_ego: bool
    clips: int
    alarms: float


@dataclass(frozen=True)
class DatasetScores:
    """All numbers of one dataset.

    Attributes:
        dataset: Its name.
        report: The metrics.
        ece: Expected calibration error of the clips' largest risks.
        ece_scaled: The same after temperature scaling.
        types: Alarms by kind of clip; empty where the data does not tell kinds.
    """

    dataset: str
    report: AccidentReport
    ece: float
    ece_scaled: float
    types: tuple[TypeScores, ...] = ()

    def scores(self) -> Mapping[str, float]:
        """Returns all metrics by name."""
        return {**self.report.scores(), "ece": self.ece, "ece_scaled": self.ece_scaled, **self.grouped()}

    def grouped(self) -> Mapping[str, float]:
        """Returns recall of collisions with and without the camera car, as far as the data tells."""
        found = {}
        for name, involves in (("recall_ego", True), ("recall_others", False)):
            rows = [row for row in self.types if row.outcome == "collision" and row.involves_ego == involves]
            clips = sum(row.clips for row in rows)
            if clips:
                found[name] = sum(row.alarms * row.clips for row in rows) / clips
        return found


@dataclass(frozen=True)
class ScoreTable:
    """The rows of one test run.

    Attributes:
        rows: One per dataset, in the order of the test.
        threshold: Alarms are risks above it.
        temperature: Of the calibration.
        source: Which clips decided these two.
    """

    rows: tuple[DatasetScores, ...]
    threshold: float = math.nan
    temperature: float = math.nan
    source: str = ""

    def __str__(self) -> str:
        """Returns aligned text: a line per metric, a column per dataset; then a line per kind of clip."""
        names = self._names()
        lines = [("", *(row.dataset for row in self.rows))]
        lines.append(("clips (accidents)", *(f"{row.report.clips} ({row.report.accidents})" for row in self.rows)))
        lines += [
            (name, *(shown_metric(name, row.scores().get(name, math.nan)) for row in self.rows)) for name in names
        ]
        threshold, temperature = shown(self.threshold, ".4f"), shown(self.temperature, ".4f")
        chosen = f"threshold {threshold}, temperature {temperature}, from {self.source}"
        kinds = [type_row for row in self.rows for type_row in row.types]
        parts = [aligned(lines), chosen]
        if kinds:
            head = ("dataset", "type", "outcome", "clips", "alarms")
            rows = [(k.dataset, k.type, k.outcome, str(k.clips), f"{k.alarms:.2f}") for k in kinds]
            parts.append(aligned([head, *rows], left=3))
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types, None where a number is not defined."""
        rows = [
            {
                "dataset": row.dataset,
                **row.report.to_json(),
                **{name: value for name, value in row.scores().items() if name not in row.report.scores()},
                "types": [asdict(kind) for kind in row.types],
            }
            for row in self.rows
        ]
        point = {"threshold": self.threshold, "temperature": self.temperature, "source": self.source}
        found: dict[str, Any] = plain({"datasets": rows, **point})
        return found

    def write_json(self, path: str | Path) -> Path:
        """Writes :meth:`to_json` to a file."""
        return write_json(path, self.to_json())

    def write_csv(self, path: str | Path) -> Path:
        """Writes a header and a line per dataset; undefined numbers are empty."""
        names = self._names()
        rows = [
            [row.dataset, row.report.clips, row.report.accidents, *(row.scores().get(name) for name in names)]
            for row in self.rows
        ]
        return write_csv(path, ["dataset", "clips", "accidents", *names], rows)

    def _names(self) -> list[str]:
        """Returns the metrics that some dataset has."""
        return list(dict.fromkeys(name for row in self.rows for name in row.scores()))
