"""Scoring a test run: per class as its pictures finish, at image and at pixel level.

Image level: AUROC, average precision, F1-max. Pixel level: the same and AUPRO, over all pixels of a class at once, as
in arXiv 2504.11055.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmattn.errors import InputError
from mmattn.metrics.aupro import aupro, aupro_exact
from mmattn.metrics.ranking import pixel_curve, ranking_curve
from mmattn.vision.crane.evaluation.table import ClassScores, ScoreTable

__all__ = ["ClassScores", "CraneEvaluation", "ScoreTable"]

Precision = Literal["float32", "float16"]
Key = tuple[str, str]


class CraneEvaluation:
    """Collects scores and maps batch by batch and scores each class when its last picture has come.

    Maps wait in a temporary file, not in memory: at 518 pixels a class of 100 pictures is 107 MB in float32. Pictures
    without a known mask count at image level only.

    Args:
        sizes: Number of pictures of each (dataset, class); a class is scored and its maps are dropped as soon as that
            many have come. None scores all classes in :meth:`compute`.
        pixels: Compute the pixel scores, too.
        precision: Type of the waiting maps; float16 halves the disk space and changes scores by about 1e-4.
        folder: Where the temporary files lie; None takes the system's place.

    >>> with CraneEvaluation(pixels=False) as evaluation:
    ...     evaluation.add("demo", "cup", score=0.9, label=1)
    ...     evaluation.add("demo", "cup", score=0.2, label=0)
    ...     evaluation.compute().rows[0].image_auroc
    1.0
    """

    def __init__(
        self,
        sizes: Mapping[Key, int] | None = None,
        *,
        pixels: bool = True,
        precision: Precision = "float32",
        folder: str | Path | None = None,
    ) -> None:
        self.sizes = dict(sizes or {})
        self.pixels = pixels
        self.precision: Precision = precision
        self._scratch = tempfile.TemporaryDirectory(prefix="mmattn-maps-", dir=folder)
        self._open: dict[Key, _Collected] = {}
        self._rows: dict[Key, ClassScores] = {}

    def update(self, batch: Mapping[str, Any], scores: Tensor, maps: Tensor | None = None) -> list[ClassScores]:
        """Adds one batch and returns the classes it completed.

        Args:
            batch: Collated items of :class:`~mmattn.vision.crane.datasets.pictures.CraneDataset`; ``label`` (B,),
                ``cls_name`` and, where there are maps, ``mask`` (B, 1, S, S) and ``has_mask`` (B,).
            scores: (B,) image scores.
            maps: (B, S, S) anomaly maps; None leaves the pixel scores undefined.
        """
        before = set(self._rows)
        datasets = batch.get("dataset") or [""] * len(scores)
        values = scores.detach().float().cpu().tolist()
        has_mask = batch["has_mask"].tolist() if "has_mask" in batch else [True] * len(values)
        pictures = None if maps is None else maps.detach().float().cpu().numpy()
        for index, score in enumerate(values):
            is_mapped = pictures is not None and has_mask[index]
            self.add(
                datasets[index],
                batch["cls_name"][index],
                score=score,
                label=int(batch["label"][index]),
                anomaly_map=pictures[index] if pictures is not None and is_mapped else None,
                mask=batch["mask"][index].squeeze(0).cpu().numpy() > 0 if is_mapped else None,
            )
        return [row for key, row in self._rows.items() if key not in before]

    def add(
        self,
        dataset: str,
        cls_name: str,
        *,
        score: float,
        label: int,
        anomaly_map: npt.NDArray[np.floating[Any]] | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Adds one picture.

        Args:
            dataset: Name of its dataset.
            cls_name: Name of its class.
            score: Image score.
            label: 1 if it is anomalous, else 0.
            anomaly_map: (H, W) map, or None.
            mask: (H, W) bool of the same shape, or None.

        Raises:
            InputError: If the score or map holds NaN, sizes differ, or the class was complete already.
        """
        key = (dataset, cls_name)
        if key in self._rows:
            raise InputError(
                f"The class {cls_name} of {dataset or 'the dataset'} was already scored with "
                f"{self._rows[key].pictures} pictures.",
            )
        if math.isnan(score) or (anomaly_map is not None and bool(np.isnan(anomaly_map).any())):
            raise InputError(f"A score or map of the class {cls_name} is NaN.", "The model or its weights are broken.")
        if key not in self._open:
            self._open[key] = _Collected(
                Path(self._scratch.name, str(len(self._open) + len(self._rows))), self.precision
            )
        collected = self._open[key]
        collected.scores.append(score)
        collected.labels.append(label)
        if self.pixels and anomaly_map is not None and mask is not None:
            collected.append(anomaly_map, mask)
        if len(collected.scores) == self.sizes.get(key):
            self._finish(key)

    def compute(self) -> ScoreTable:
        """Scores the classes that are still open and returns the table."""
        for key in list(self._open):
            self._finish(key)
        return ScoreTable(tuple(self._rows.values()))

    def close(self) -> None:
        """Removes the temporary files."""
        for collected in self._open.values():
            collected.remove()
        self._open.clear()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _finish(self, key: Key) -> None:
        collected = self._open.pop(key)
        image = ranking_curve(collected.scores, collected.labels)
        pixel: dict[str, Any] = _pixel_scores(*collected.read()) if collected.shapes else {}
        collected.remove()
        row = ClassScores(
            *key,
            pictures=len(collected.scores),
            anomalous=sum(collected.labels),
            image_auroc=image.auroc(),
            image_ap=image.average_precision(),
            image_f1=image.f1_max(),
        )
        self._rows[key] = replace(row, **pixel)


class _Collected:
    """Scores of one open class, with its maps and masks appended to two files."""

    def __init__(self, stem: Path, precision: Precision) -> None:
        self.scores: list[float] = []
        self.labels: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.precision = precision
        self._files = [stem.with_suffix(suffix).open("w+b") for suffix in (".maps", ".masks")]

    def append(self, anomaly_map: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_]) -> None:
        if anomaly_map.shape != mask.shape or (self.shapes and anomaly_map.shape != self.shapes[0]):
            raise InputError(
                f"A map has shape {anomaly_map.shape}, its mask {mask.shape} and the maps before it "
                f"{self.shapes[0] if self.shapes else anomaly_map.shape}; they must be equal."
            )
        self.shapes.append(anomaly_map.shape)
        self._files[0].write(np.ascontiguousarray(anomaly_map, dtype=self.precision).tobytes())
        self._files[1].write(np.ascontiguousarray(mask, dtype=bool).tobytes())

    def read(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Returns maps and masks (N, H, W), mapped from the files."""
        shape = (len(self.shapes), *self.shapes[0])
        for file in self._files:
            file.flush()
        maps, masks = self._files
        return np.memmap(maps, self.precision, "r", shape=shape), np.memmap(masks, np.bool_, "r", shape=shape)

    def remove(self) -> None:
        for file in self._files:
            file.close()
            Path(file.name).unlink()


def _pixel_scores(maps: npt.NDArray[Any], masks: npt.NDArray[Any]) -> dict[str, Any]:
    curve = pixel_curve(maps, masks)
    if not curve.is_defined:
        return {}
    return {
        "pixel_auroc": curve.auroc(),
        "pixel_aupro": aupro(maps, masks),
        "pixel_f1": curve.f1_max(),
        "pixel_ap": curve.average_precision(),
        "pixel_aupro_exact": aupro_exact(maps, masks, curve=curve),
    }
