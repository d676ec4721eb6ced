"""Eight drawn pictures on disk, half of them with a bright square: data for training tests without a dataset."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.vision.crane.network.preprocess import Preprocess


class ToyDataset(Dataset[dict[str, Any]]):
    """Items as Crane's own dataset gives them; ``reads`` counts the pictures that were decoded."""

    def __init__(self, folder: Path, count: int = 8, size: int = 48, *, masks: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.preprocess = Preprocess(size)
        self.masks = masks
        self.cls_name = "toy"
        self.reads = 0
        self.pictures: list[tuple[Path, np.ndarray]] = []
        for i in range(count):
            generator = np.random.default_rng(i)
            pixels = generator.integers(0, 80, (size, size, 3), dtype=np.uint8)
            mask = np.zeros((size, size), dtype=bool)
            if i % 2:
                # a third of the side, on the grid of 8 pixels, so that patches can say exactly which pixels are meant
                y, x = 8 * generator.integers(0, size // 8 - 1, 2)
                mask[y : y + 16, x : x + 16] = True
                pixels[mask] = (255, 240, 60)
            path = folder / f"{i}.png"
            if not path.exists():
                Image.fromarray(pixels).save(path)
            self.pictures.append((path, mask))

    def __len__(self) -> int:
        return len(self.pictures)

    def annotation(self, index: int) -> dict[str, Any]:
        path, mask = self.pictures[index]
        return {
            "mask": torch.from_numpy(mask)[None].float() * self.masks,
            "label": index % 2,
            "has_mask": self.masks,
            "cls_id": 0,
            "cls_name": self.cls_name,
            "path": str(path),
        }

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.reads += 1
        image = np.asarray(Image.open(self.pictures[index][0]))
        return {"img": self.preprocess(image), **self.annotation(index)}


class ToyDataModule(BaseDataModule):
    """The same pictures for every split."""

    def __init__(
        self, folder: str, count: int = 8, batch_size: int = 8, masks: bool = True, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.items = ToyDataset(Path(folder), count, masks=masks)

    def train_dataset(self) -> ToyDataset:
        return self.items

    def test_dataset(self) -> ToyDataset:
        return self.items
