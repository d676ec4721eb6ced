"""Drawn pictures as items of Crane's tasks: training of the prompts, and every generated test.

Items have the keys of :class:`~mmattn.vision.crane.datasets.pictures.CraneDataset`, so that the same task reads both.
They are drawn when they are asked for; only the training pictures are kept as files. In results, materials and objects
are data sets of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.drawing.fields import SIZE
from mmattn.drawing.materials import MATERIALS
from mmattn.errors import InputError
from mmattn.vision.crane.datasets.layouts import read_layout
from mmattn.vision.crane.datasets.pictures import CraneDataset
from mmattn.vision.crane.network.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from mmattn.vision.crane.synthetic.photographs import PHOTOGRAPHS, draw_photograph, photograph_items
from mmattn.vision.crane.synthetic.scenes import SPLITS, Item, Sample, draw, evaluation_items, make
from mmattn.vision.crane.synthetic.twins import draw_validation_photograph, validation_photographs

__all__ = ["PhotographDataset", "SyntheticDataModule", "SyntheticDataset", "draw_any_photograph", "normalise"]

PhotographSplit = Literal["photographs", "photographs_val"]
PHOTOGRAPH_SPLITS: tuple[PhotographSplit, ...] = get_args(PhotographSplit)
"""The test's photographs with all defects, and others with the seen defects, on which choices are made."""


def normalise(pictures: npt.NDArray[np.uint8]) -> Tensor:
    """Returns pictures (B, H, W, 3) uint8 RGB as CLIP-normalised float32 (B, 3, H, W)."""
    unit = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (unit - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


class SyntheticDataset(Dataset[dict[str, Any]]):
    """Drawn pictures ``{img, mask, label, has_mask, cls_id, cls_name, path, dataset}``.

    Args:
        items: What to draw.
        split: Name of the set in results, before "materials" or "objects".
        keep: Keep what was drawn in memory, for sets that are read more than once.
    """

    def __init__(self, items: list[Item], split: str, *, keep: bool = False) -> None:
        self.items = items
        self.split = split
        self.keep = keep
        self.classes = sorted({item.category for item in items})
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        sample = self._kept.get(index) or draw(item)
        if self.keep:
            self._kept[index] = sample
        path = f"{self.split}/{item.category}/{item.defect or 'good'}/{item.seed}.png"
        return as_item(sample, self.classes, path, dataset_name(self.split, item.category))

    def sizes(self) -> dict[tuple[str, str], int]:
        """Returns the number of pictures of each (dataset, class)."""
        return dict(Counter((dataset_name(self.split, item.category), item.category) for item in self.items))


class PhotographDataset(Dataset[dict[str, Any]]):
    """Real photographs, half of them with drawn defects, as items like those of :class:`SyntheticDataset`.

    Args:
        per_photograph: Crops of each photograph.
        split: "photographs" or "photographs_val".
    """

    def __init__(self, per_photograph: int, split: PhotographSplit = "photographs") -> None:
        listed = photograph_items if split == "photographs" else validation_photographs
        self.items = listed(per_photograph)
        self.split = split
        self.classes = sorted({name for name, _, _ in self.items})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, number, defect = self.items[index]
        path = f"{self.split}/{name}/{defect or 'good'}/{number}.png"
        return as_item(draw_any_photograph(name, number, defect), self.classes, path, self.split)

    def sizes(self) -> dict[tuple[str, str], int]:
        """Returns the number of pictures of each (dataset, class)."""
        return dict(Counter((self.split, name) for name, _, _ in self.items))


def draw_any_photograph(name: str, number: int, defect: str = "") -> Sample:
    """Returns crop ``number`` of a photograph of the test or of the validation, damaged if ``defect`` names one."""
    draw_it = draw_photograph if name in PHOTOGRAPHS else draw_validation_photograph
    return draw_it(name, number, defect)


def dataset_name(split: str, category: str) -> str:
    """Returns the name in results, as in "test materials"."""
    return f"{split} {'materials' if category in MATERIALS else 'objects'}"


def as_item(sample: Sample, classes: list[str], path: str, dataset: str) -> dict[str, Any]:
    """Returns a sample in the form Crane's tasks read."""
    return {
        "img": normalise(sample.picture[None])[0],
        "mask": torch.from_numpy(sample.mask).float()[None],
        "label": int(bool(sample.defect)),
        "has_mask": True,
        "cls_id": classes.index(sample.category),
        "cls_name": sample.category,
        "path": path,
        "dataset": dataset,
    }


class SyntheticDataModule(BaseDataModule):
    """Generated pictures of the fixed splits, and photographs with drawn defects.

    Args:
        train_split: Split the prompts are trained on.
        train_per_category: Training pictures of each category, half of them damaged.
        train_folder: Where the training pictures are written, as files, so that their features can be cached.
        val_split: Split of the validation.
        val_per_category: Validation pictures of each category; 0 turns validation off.
        test_splits: Splits of the test: "test" is the main one, "photographs" real pictures with drawn defects; choices
            are made on "val" and "photographs_val".
        test_per_category: Test pictures of each category or photograph, half of them damaged.
        image_size: Side of the pictures; the generator draws 256.
        batch_size: Pictures per training batch.
        eval_batch_size: Pictures per batch in validation and test.
        num_workers: Loading processes.
        seed: Seed of the training order.

    Raises:
        InputError: If a split is unknown or the image size is not the generator's.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {"val": "Set data.init_args.val_per_category above 0."}

    def __init__(
        self,
        train_split: str = "prompts",
        train_per_category: int = 32,
        train_folder: str = "runs/crane_prompts",
        val_split: str = "val",
        val_per_category: int = 0,
        test_splits: list[str] | None = None,
        test_per_category: int = 40,
        image_size: int = SIZE,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        self.test_splits = test_splits or ["test", "photographs"]
        for split in (train_split, val_split, *self.test_splits):
            if split not in (*SPLITS, *PHOTOGRAPH_SPLITS):
                expected = ", ".join((*SPLITS, *PHOTOGRAPH_SPLITS))
                raise InputError(f"split is {split!r}, expected one of {expected}.")
        if image_size != SIZE:
            raise InputError(f"image_size is {image_size}, but generated pictures have {SIZE} pixels a side.")
        self.train_split, self.train_per_category = train_split, train_per_category
        self.train_folder = Path(train_folder)
        self.val_split, self.val_per_category = val_split, val_per_category
        self.test_per_category = test_per_category

    def train_dataset(self) -> CraneDataset:
        """Returns the pictures of the prompt stage, drawing them first if the folder does not hold them."""
        if not self.train_folder.is_dir():
            make(self.train_folder, split=self.train_split, per_category=self.train_per_category, train_per_category=0)
        return CraneDataset(read_layout("mvtec_style", self.train_folder), self.train_folder, Preprocess(SIZE))

    def val_dataset(self) -> SyntheticDataset | None:
        """Returns the validation pictures, or None."""
        if not self.val_per_category:
            return None
        return SyntheticDataset(evaluation_items(self.val_split, self.val_per_category), self.val_split, keep=True)

    def test_dataset(self) -> Dataset[Any]:
        """Returns the test pictures, split after split."""
        return ConcatDataset(self._test_parts())

    def test_sizes(self) -> dict[tuple[str, str], int]:
        """Returns the number of test pictures of each (dataset, class), so that a finished class can be scored."""
        return {key: size for part in self._test_parts() for key, size in part.sizes().items()}

    def _test_parts(self) -> list[SyntheticDataset | PhotographDataset]:
        count = self.test_per_category
        return [
            PhotographDataset(count, "photographs" if split == "photographs" else "photographs_val")
            if split in PHOTOGRAPH_SPLITS
            else SyntheticDataset(evaluation_items(split, count), split)
            for split in self.test_splits
        ]
