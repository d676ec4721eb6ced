"""Trunk features of drawn twins, on disk: what the embedded model's first training stage reads.

The trunk is frozen, so it is asked once per picture. A folder holds a file of each pair, with ``features``
(2, C + 4, H, W) float16 of the flawless and the damaged twin (trunk features and self-distances) and ``cover`` (H, W)
float16, the share of each cell that the defect covers, and ``pairs.json`` with category and defect of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from mmattn.core.datasets.features import FeatureStore, Rows, fill
from mmattn.core.training.datamodule import BaseDataModule
from mmattn.errors import InputError
from mmattn.media.files import atomic_path
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk, self_distances
from mmattn.vision.crane.synthetic.data import normalise
from mmattn.vision.crane.synthetic.scenes import SPLITS, draw_pair
from mmattn.vision.crane.synthetic.twins import CATEGORY, collage_pair, photograph_pair

__all__ = ["KINDS", "Twins", "TwinsDataModule", "draw_twins"]

Kind = Literal["drawings", "photographs", "collages"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Drawn materials and objects of the first stage; crops of real photographs; surfaces made of pieces of these."""

_STRIDE = 8
_BATCH = 4


class _Pictures(Dataset[tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]):
    """Item i: i, the two pictures (2, S, S, 3) of drawing i and the damaged one's mask.

    Categories take turns and the defect is drawn, so that every category meets every defect. Drawing i has the seed
    ``first_seed + i`` of the split "clip".
    """

    def __init__(self, kind: Kind, count: int) -> None:
        self.kind = kind
        categories, defects, self.first_seed = SPLITS["clip"]
        order = np.random.default_rng(self.first_seed).integers(len(defects), size=count)
        categories = categories if kind == "drawings" else (CATEGORY,)
        self.pairs = [(categories[i % len(categories)], defects[int(order[i])]) for i in range(count)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        (category, defect), seed = self.pairs[index], self.first_seed + index
        if self.kind == "drawings":
            twins = draw_pair(category, defect, seed)
        elif self.kind == "photographs":
            twins = photograph_pair(index, defect, seed)
        else:
            twins = collage_pair(defect, seed)
        return index, np.stack([twin.picture for twin in twins]), twins[1].mask


def draw_twins(
    folder: Path, pairs: int, trunk: Callable[[Tensor], Tensor], *, kind: Kind = "drawings", num_workers: int = 0
) -> None:
    """Draws ``pairs`` twins of one kind and writes their trunk features; those that are there stay as they are.

    Args:
        folder: Where the files go.
        pairs: How many twins.
        trunk: Images (B, 3, S, S) in, features (B, C, H, W) out.
        kind: What is drawn.
        num_workers: Drawing processes; the pictures do not depend on it.
    """
    pictures = _Pictures(kind, pairs)

    def make(missing: dict[str, int]) -> Iterator[tuple[str, Rows]]:
        loader: DataLoader[Any] = DataLoader(
            Subset(pictures, list(missing.values())),
            batch_size=_BATCH,
            num_workers=num_workers,
            collate_fn=list,
            multiprocessing_context="spawn" if num_workers else None,
        )
        for batch in loader:
            with torch.inference_mode():
                described = trunk(normalise(np.concatenate([pair for _, pair, _ in batch])))
                rows = torch.cat([described, self_distances(described)], 1).unflatten(0, (-1, 2)).half()
            masks = torch.from_numpy(np.stack([mask for *_, mask in batch])).float()
            shares = F.avg_pool2d(masks[:, None], _STRIDE)[:, 0].half()
            for i, (number, *_) in enumerate(batch):
                yield _key(number), {"features": rows[i], "cover": shares[i]}

    fill(FeatureStore(folder), {_key(i): i for i in range(pairs)}, make, what=f"Drawing {kind}", unit="pair")
    with atomic_path(folder / "pairs.json") as temporary:
        temporary.write_text(json.dumps(pictures.pairs), encoding="utf-8")


def _key(index: int) -> str:
    return f"{index:06d}"


class Twins(Dataset[dict[str, Any]]):
    """Items ``{features (2, C + 4, H, W), cover (H, W), category, defect}`` of a folder of :func:`draw_twins`."""

    def __init__(self, folder: Path) -> None:
        self.store = FeatureStore(folder)
        self.pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        category, defect = self.pairs[index]
        stored = self.store.get(_key(index))
        return {**stored, "cover": stored["cover"].float(), "category": category, "defect": defect}


class TwinsDataModule(BaseDataModule):
    """Twins of the first training stage, as cached trunk features.

    Args:
        drawings: Drawn materials and objects; each is seen flawless and damaged, as all twins are.
        photographs: Crops of real photographs; needs the packages of :mod:`mmattn.drawing.photographs`.
        collages: Surfaces made of pieces of these photographs.
        folder: Where the features are kept, 0.7 MB a pair, a folder for each kind; drawn there when missing.
        batch_size: Pairs per training batch.
        drawing_workers: Processes that draw.
        seed: Seed of the training order.

    Raises:
        InputError: If no twins are asked for.
    """

    def __init__(
        self,
        drawings: int = 5000,
        photographs: int = 3000,
        collages: int = 2500,
        folder: str = "runs/crane_twins",
        batch_size: int = 8,
        drawing_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.drawing_workers = drawing_workers
        self.counts: dict[Kind, int] = {"drawings": drawings, "photographs": photographs, "collages": collages}
        if sum(self.counts.values()) < 1:
            raise InputError("drawings, photographs and collages are all 0; there is nothing to train on.")
        self.folder = Path(folder)

    def prepare_data(self) -> None:
        """Draws what is missing, with the package's trunk weights."""
        trunk = EfficientNetLite0Trunk().load_package_weights()
        for kind, count in self.counts.items():
            if count:
                draw_twins(self.folder / kind, count, trunk, kind=kind, num_workers=self.drawing_workers)

    def train_dataset(self) -> ConcatDataset[dict[str, Any]]:
        """Returns the twins of all kinds."""
        return ConcatDataset([Twins(self.folder / kind) for kind, count in self.counts.items() if count])
