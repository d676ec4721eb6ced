"""Drawn pictures as items of Crane's tasks: training of the prompts, and every generated test.

Items have the keys of :class:`~mmattn.vision.crane.dataset.CraneDataset`, so that the same task reads both. They are
drawn when they are asked for; nothing is written to disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmattn.core.datamodule import BaseDataModule
from mmattn.core.errors import InputError
from mmattn.vision.crane.preprocess import CLIP_MEAN, CLIP_STD
from mmattn.vision.crane.synthetic import SPLITS, Item, draw, evaluation_items
from mmattn.vision.crane.synthetic_fields import SIZE

__all__ = ["SyntheticDataModule", "SyntheticDataset", "normalise"]


def normalise(pictures: npt.NDArray[np.uint8]) -> Tensor:
    """Returns pictures (B, H, W, 3) uint8 RGB as CLIP-normalised float32 (B, 3, H, W)."""
    unit = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (unit - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


class SyntheticDataset(Dataset[dict[str, Any]]):
    """Drawn pictures ``{img, mask, label, has_mask, cls_id, cls_name, path, dataset}``.

    Args:
        items: What to draw.
        name: Name of the set in results.
    """

    def __init__(self, items: list[Item], name: str) -> None:
        self.items = items
        self.name = name
        self.classes = sorted({item.category for item in items})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        sample = draw(item)
        return {
            "img": normalise(sample.picture[None])[0],
            "mask": torch.from_numpy(sample.mask).float()[None],
            "label": int(bool(item.defect)),
            "has_mask": True,
            "cls_id": self.classes.index(item.category),
            "cls_name": item.category,
            "path": f"{self.name}/{item.category}/{item.defect or 'good'}/{item.seed}.png",
            "dataset": self.name,
        }


class SyntheticDataModule(BaseDataModule):
    """Generated pictures of the fixed splits.

    Args:
        train_split: Split the prompts are trained on.
        train_per_category: Training pictures of each category, half of them damaged.
        val_split: Split of the validation.
        val_per_category: Validation pictures of each category; 0 turns validation off.
        test_split: Split of the test: "test", or one of the easier ones of ``SPLITS``.
        test_per_category: Test pictures of each category, half of them damaged.
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
        train_per_category: int = 56,
        val_split: str = "val",
        val_per_category: int = 0,
        test_split: str = "test",
        test_per_category: int = 60,
        image_size: int = SIZE,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        for split in (train_split, val_split, test_split):
            if split not in SPLITS:
                raise InputError(f"split is {split!r}, expected one of {', '.join(SPLITS)}.")
        if image_size != SIZE:
            raise InputError(f"image_size is {image_size}, but generated pictures have {SIZE} pixels a side.")
        self.train_split, self.train_per_category = train_split, train_per_category
        self.val_split, self.val_per_category = val_split, val_per_category
        self.test_split, self.test_per_category = test_split, test_per_category

    def train_dataset(self) -> SyntheticDataset:
        """Returns the pictures of the prompt stage."""
        return self._drawn(self.train_split, self.train_per_category)

    def val_dataset(self) -> SyntheticDataset | None:
        """Returns the validation pictures, or None."""
        return self._drawn(self.val_split, self.val_per_category) if self.val_per_category else None

    def test_dataset(self) -> SyntheticDataset:
        """Returns the test pictures."""
        return self._drawn(self.test_split, self.test_per_category)

    def _drawn(self, split: str, per_category: int) -> SyntheticDataset:
        return SyntheticDataset(evaluation_items(split, per_category), f"generated_{split}")
