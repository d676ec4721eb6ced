"""The table of a test run: a row of scores per class, and unweighted means over the classes of each dataset.

A score that is not defined, because a class has only one kind of label, is NaN in Python, ``null`` in JSON, empty in
CSV and "n/a" in text, and is left out of the means. (AlirezaSalehy/Crane counts it as 0.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mmattn.metrics.tables import aligned, plain, shown, write_csv, write_json

__all__ = ["SCORES", "ClassScores", "ScoreTable"]


@dataclass(frozen=True)
class ClassScores:
    """Numbers of one class, or of the mean over the classes of a dataset; every score in [0, 1] or NaN.

    Attributes:
        dataset: Name of the dataset.
        cls_name: Name of the class; "mean" for a mean.
        pictures: Number of test pictures.
        anomalous: Number of anomalous ones.
        image_auroc: AUROC of the image scores.
        image_ap: Average precision of the image scores.
        image_f1: F1-max of the image scores.
        pixel_auroc: AUROC of the map values.
        pixel_aupro: AUPRO over 200 equidistant thresholds, the published definition.
        pixel_f1: F1-max of the map values.
        pixel_ap: Average precision of the map values.
        pixel_aupro_exact: AUPRO over every distinct threshold, interpolated at the limit.
    """

    dataset: str
    cls_name: str
    pictures: int
    anomalous: int
    image_auroc: float = math.nan
    image_ap: float = math.nan
    image_f1: float = math.nan
    pixel_auroc: float = math.nan
    pixel_aupro: float = math.nan
    pixel_f1: float = math.nan
    pixel_ap: float = math.nan
    pixel_aupro_exact: float = math.nan


SCORES = tuple(field.name for field in fields(ClassScores) if field.name.startswith(("image_", "pixel_")))
"""Names of the scores, in the order of the table."""

_HEADS = ("I-AUROC", "I-AP", "I-F1", "P-AUROC", "P-AUPRO", "P-F1", "P-AP", "P-AUPRO exact")


@dataclass(frozen=True)
class ScoreTable:
    """The rows of one test run.

    Attributes:
        rows: One row per class, in the order of the test.
    """

    rows: tuple[ClassScores, ...]

    def means(self) -> tuple[ClassScores, ...]:
        """Returns one row per dataset: unweighted means over its classes, NaN left out."""
        means = []
        for dataset in dict.fromkeys(row.dataset for row in self.rows):
            mine = [row for row in self.rows if row.dataset == dataset]
            scores = {name: _defined_mean([getattr(row, name) for row in mine]) for name in SCORES}
            pictures, anomalous = (sum(getattr(row, name) for row in mine) for name in ("pictures", "anomalous"))
            means.append(ClassScores(dataset, "mean", pictures, anomalous, **scores))
        return tuple(means)

    def __str__(self) -> str:
        """Returns aligned text, scores in percent with one decimal, each dataset followed by its mean.

        I- is the image level, P- the pixel level.
        """
        lines: list[tuple[str, ...]] = [("dataset", "class", "pictures", "anomalous", *_HEADS)]
        for mean in self.means():
            for row in [*(row for row in self.rows if row.dataset == mean.dataset), mean]:
                names = row.dataset, row.cls_name, str(row.pictures), str(row.anomalous)
                lines.append((*names, *(shown(100 * getattr(row, name), ".1f") for name in SCORES)))
        return aligned(lines, left=2)

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Returns ``{"classes": [...], "means": [...]}`` of plain values, None where a score is not defined."""
        classes, means = ([asdict(row) for row in rows] for rows in (self.rows, self.means()))
        return {"classes": plain(classes), "means": plain(means)}

    def write_json(self, path: str | Path) -> Path:
        """Writes :meth:`to_json` to a file."""
        return write_json(path, self.to_json())

    def write_csv(self, path: str | Path) -> Path:
        """Writes a header and a line per class and mean; undefined scores are empty."""
        rows = (list(asdict(row).values()) for row in (*self.rows, *self.means()))
        return write_csv(path, [field.name for field in fields(ClassScores)], rows)


def _defined_mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
