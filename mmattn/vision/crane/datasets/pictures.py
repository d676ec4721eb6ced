"""Annotated pictures as tensors, the published mosaic augmentation, and sub-sampling.

Source: arXiv 2504.11055 and the dataset class of AlirezaSalehy/Crane at commit 39181f9.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from mmattn.errors import InputError
from mmattn.media.image import read_image, read_mask
from mmattn.vision.crane.datasets.layouts import Record
from mmattn.vision.crane.network.preprocess import Preprocess

__all__ = ["MOSAIC_CLASSES", "CraneDataset", "Mosaic", "subsample"]

MOSAIC_CLASSES = ("hazelnut", "pill", "zipper", "bottle", "screw", "metal_nut", "cable")
"""MVTec classes that stay plausible in a 2 x 2 mosaic."""

_MAX_ASPECT_DIFFERENCE = 0.01

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Mosaic(NamedTuple):
    """Replaces pictures by 2 x 2 mosaics of their class.

    Attributes:
        rate: Share of the pictures of :data:`MOSAIC_CLASSES` that become a mosaic.
        normal: Probability that a tile is drawn from the normal pictures.
        same_state: Draw normal or anomalous once for all four tiles, which the published code does by reusing a
            variable; otherwise each tile draws its own.
    """

    rate: float = 0.0
    normal: float = 0.8
    same_state: bool = False


class CraneDataset(Dataset[dict[str, Any]]):
    """Annotated pictures as tensors.

    An item holds ``img`` (3, S, S) and ``mask`` (1, S, S) float32, ``label`` (1 = anomalous), ``has_mask`` (False for
    an anomalous picture without pixel annotation, whose mask is then empty), ``cls_id``, ``cls_name``, ``dataset`` and
    ``path``.

    Args:
        records: What to read.
        root: The dataset's folder.
        preprocess: Makes the tensors.
        classes: Class names in the order that numbers them; None takes them as they occur.
        name: The dataset's name in the items.
        mosaic: Augmentation; it draws from torch's global generator, so ``seed_everything`` fixes it.
    """

    def __init__(
        self,
        records: Sequence[Record],
        root: str | Path,
        preprocess: Preprocess,
        classes: Sequence[str] | None = None,
        *,
        name: str = "",
        mosaic: Mosaic | None = None,
    ) -> None:
        self.records = list(records)
        self.root = Path(root).expanduser()
        self.preprocess = preprocess
        self.classes = list(classes or dict.fromkeys(record.cls_name for record in records))
        self.name = name
        self.mosaic = mosaic or Mosaic()
        unknown = {record.cls_name for record in records} - set(self.classes)
        if unknown:
            raise InputError(f"Records of class {', '.join(sorted(unknown))}, expected {', '.join(self.classes)}.")

    @property
    def is_random(self) -> bool:
        """True when the same index gives other items in other epochs."""
        return self.mosaic.rate > 0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one item.

        Raises:
            InputError: If the mask has another aspect than its picture.
            MediaError: If a file cannot be read.
        """
        record = self.records[index]
        if self._draws_mosaic(record):
            picture, mask = self._mosaic(record.cls_name)
            pixels = self.preprocess.mask(mask)
            item = {**self._names(record), "mask": pixels, "label": int(mask.any()), "has_mask": True}
            return {**item, "img": self.preprocess(picture)}
        picture, read = self._read(record)
        return {**self._annotation(record, read), "img": self.preprocess(picture)}

    def annotation(self, index: int) -> dict[str, Any]:
        """Returns the item without ``img``; the picture's file is not opened."""
        record = self.records[index]
        return self._annotation(record, read_mask(self.root / record.mask_path) if record.mask_path else None)

    def _annotation(self, record: Record, mask: Mask | None) -> dict[str, Any]:
        has_mask = mask is not None or record.anomaly == 0
        return {
            **self._names(record),
            "mask": self.preprocess.mask(mask),
            "label": record.anomaly,
            "has_mask": has_mask,
        }

    def _names(self, record: Record) -> dict[str, Any]:
        return {
            "cls_id": self.classes.index(record.cls_name),
            "cls_name": record.cls_name,
            "dataset": self.name,
            "path": str(self.root / record.img_path),
        }

    def _read(self, record: Record) -> tuple[Picture, Mask | None]:
        picture = read_image(self.root / record.img_path)
        if not record.mask_path:
            return picture, None
        mask = read_mask(self.root / record.mask_path)
        (height, width), (mask_height, mask_width) = picture.shape[:2], mask.shape
        if abs(mask_width * height / (mask_height * width) - 1) > _MAX_ASPECT_DIFFERENCE:
            raise InputError(
                f"The mask {record.mask_path} is {mask_width} x {mask_height} pixels, its picture {record.img_path} "
                f"{width} x {height}.",
                f"See what else is wrong with: mmattn data check crane {self.root}",
            )
        return picture, mask

    def _draws_mosaic(self, record: Record) -> bool:
        if not self.is_random or record.cls_name not in MOSAIC_CLASSES:
            return False
        return bool(torch.rand(()) < self.mosaic.rate)

    def _mosaic(self, cls_name: str) -> tuple[Picture, Mask]:
        """Returns a picture of twice the size of its first tile, and its mask."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        kinds: list[list[Record]] = [[], []]
        for record in self.records:
            if record.cls_name == cls_name and (record.mask_path or not record.anomaly):
                kinds[record.anomaly].append(record)
        states = (rng.random(4) >= self.mosaic.normal).astype(int)
        if self.mosaic.same_state:
            states[:] = states[0]
        tiles = [self._read(_draw(rng, kinds[state] or kinds[1 - state])) for state in states]
        height, width = tiles[0][0].shape[:2]
        pictures = [np.asarray(Image.fromarray(picture).resize((width, height))) for picture, _ in tiles]
        masks = [_resized_mask(mask, height, width) for _, mask in tiles]
        return _two_by_two(pictures), _two_by_two(masks)


def subsample(records: Sequence[Record], *, portion: float = 1.0, k_shot: int = 0, seed: int = 0) -> list[Record]:
    """Returns a part of the records, drawn per class and label, in their order.

    Args:
        records: All records.
        portion: Share that is kept, rounded down; ignored with ``k_shot``.
        k_shot: If positive, half as many normal and half as many anomalous records per class, or all there are.
        seed: Seed of the draw.
    """
    if portion == 1.0 and k_shot == 0:
        return list(records)
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, int], list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault((record.cls_name, record.anomaly), []).append(index)
    kept: list[int] = []
    for members in groups.values():
        count = min(k_shot // 2, len(members)) if k_shot else int(len(members) * portion)
        kept += rng.choice(members, count, replace=False).tolist()
    return [records[index] for index in sorted(kept)]


def _draw(rng: np.random.Generator, records: Sequence[Record]) -> Record:
    return records[int(rng.integers(len(records)))]


def _resized_mask(mask: Mask | None, height: int, width: int) -> Mask:
    if mask is None:
        return np.zeros((height, width), bool)
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST), dtype=bool)


def _two_by_two(tiles: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)], axis=0)
