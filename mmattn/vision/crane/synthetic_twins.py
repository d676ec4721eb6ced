"""Trunk features of drawn twins, on disk: what the embedded model's first training stage reads.

The trunk is frozen, so it is asked once per picture. A folder holds three files: ``features.npy`` (P, 2, C + 4, H, W)
float16 with the flawless and the damaged twin of P drawings (trunk features and self-distances), ``cover.npy``
(P, H, W) float16 with the share of each cell that the defect covers, and ``pairs.json`` with category and defect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from mmattn.core.datamodule import BaseDataModule
from mmattn.vision.crane.synthetic import SPLITS, draw_pair
from mmattn.vision.crane.synthetic_data import normalise
from mmattn.vision.crane.trunk import EfficientNetLite0Trunk, self_distances

__all__ = ["Twins", "TwinsDataModule", "draw_twins"]

_STRIDE = 8


def draw_twins(folder: Path, pairs: int, trunk: Callable[[Tensor], Tensor], *, split: str = "clip") -> None:
    """Draws ``pairs`` twins of a split and writes their trunk features; a complete folder is left as it is.

    Categories take turns and the defect is drawn, so that every category meets every defect. Pair i has the seed
    ``SPLITS[split].first_seed + i``.
    """
    info = folder / "pairs.json"
    if info.is_file() and len(json.loads(info.read_text(encoding="utf-8"))) == pairs:
        return
    folder.mkdir(parents=True, exist_ok=True)
    categories, defects, first_seed = SPLITS[split]
    order = np.random.default_rng(first_seed).integers(len(defects), size=pairs)
    features = cover = None
    names = []
    for i in tqdm(range(pairs), desc="Drawing twins", unit="pair", mininterval=10):
        category, defect = categories[i % len(categories)], defects[int(order[i])]
        twins = draw_pair(category, defect, first_seed + i)
        with torch.inference_mode():
            described = trunk(normalise(np.stack([twin.picture for twin in twins])))
            rows = torch.cat([described, self_distances(described)], 1).half().numpy()
        share = F.avg_pool2d(torch.from_numpy(twins[1].mask).float()[None, None], _STRIDE)[0, 0].half().numpy()
        if features is None or cover is None:
            features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, shape=(pairs, *rows.shape))
            cover = np.lib.format.open_memmap(folder / "cover.npy", "w+", np.float16, shape=(pairs, *share.shape))
        features[i], cover[i] = rows, share
        names.append([category, defect])
    info.write_text(json.dumps(names), encoding="utf-8")


class Twins(Dataset[dict[str, Any]]):
    """Items ``{features (2, C + 4, H, W), cover (H, W), category, defect}`` of a folder of :func:`draw_twins`."""

    def __init__(self, folder: Path) -> None:
        self.features = np.load(folder / "features.npy", mmap_mode="r")
        self.cover = np.load(folder / "cover.npy", mmap_mode="r")
        self.pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        category, defect = self.pairs[index]
        return {
            "features": torch.from_numpy(np.array(self.features[index])),
            "cover": torch.from_numpy(np.array(self.cover[index])).float(),
            "category": category,
            "defect": defect,
        }


class TwinsDataModule(BaseDataModule):
    """Drawn twins of the first training stage, as cached trunk features.

    Args:
        pairs: Drawings; each is seen flawless and damaged.
        folder: Where the features are kept, 0.7 MB a pair; drawn there when missing.
        batch_size: Pairs per training batch.
        seed: Seed of the training order.
    """

    def __init__(self, pairs: int = 1600, folder: str = "runs/crane_twins", batch_size: int = 8, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.pairs = pairs
        self.folder = Path(folder)

    def prepare_data(self) -> None:
        """Draws what is missing, with the package's trunk weights."""
        draw_twins(self.folder, self.pairs, EfficientNetLite0Trunk().load_package_weights())

    def train_dataset(self) -> Twins:
        """Returns the twins."""
        return Twins(self.folder)
