"""Trunk features of drawn twins, on disk: what the embedded model's first training stage reads.

The trunk is frozen, so it is asked once per picture. A folder holds three files: ``features.npy`` (P, 2, C + 4, H, W)
float16 with the flawless and the damaged twin of P drawings (trunk features and self-distances), ``cover.npy``
(P, H, W) float16 with the share of each cell that the defect covers, and ``pairs.json`` with category and defect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from tqdm import tqdm

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.errors import InputError
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk, self_distances
from mmattn.vision.crane.synthetic.data import normalise
from mmattn.vision.crane.synthetic.scenes import SPLITS, draw_pair
from mmattn.vision.crane.synthetic.twins import collage_pair, photograph_pair

__all__ = ["KINDS", "Twins", "TwinsDataModule", "draw_twins"]

Kind = Literal["drawings", "photographs", "collages"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Drawn materials and objects of the first stage; crops of real photographs; surfaces made of pieces of these."""

_STRIDE = 8
_BATCH = 4


class _Pictures(Dataset[tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], str, str]]):
    """Item i: the two pictures (2, S, S, 3) of drawing i, the damaged one's mask, category and defect.

    Categories take turns and the defect is drawn, so that every category meets every defect. Drawing i has the seed
    ``first_seed + i`` of the split "clip".
    """

    def __init__(self, kind: Kind, count: int) -> None:
        self.kind = kind
        self.categories, self.defects, self.first_seed = SPLITS["clip"]
        self.order = np.random.default_rng(self.first_seed).integers(len(self.defects), size=count)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], str, str]:
        defect, seed = self.defects[int(self.order[index])], self.first_seed + index
        if self.kind == "drawings":
            twins = draw_pair(self.categories[index % len(self.categories)], defect, seed)
        elif self.kind == "photographs":
            twins = photograph_pair(index, defect, seed)
        else:
            twins = collage_pair(defect, seed)
        return np.stack([twin.picture for twin in twins]), twins[1].mask, twins[1].category, defect


def draw_twins(
    folder: Path, pairs: int, trunk: Callable[[Tensor], Tensor], *, kind: Kind = "drawings", num_workers: int = 0
) -> None:
    """Draws ``pairs`` twins of one kind and writes their trunk features; a complete folder is left as it is.

    Args:
        folder: Where the three files go.
        pairs: How many twins.
        trunk: Images (B, 3, S, S) in, features (B, C, H, W) out.
        kind: What is drawn.
        num_workers: Drawing processes; the pictures do not depend on it.
    """
    info = folder / "pairs.json"
    if info.is_file() and len(json.loads(info.read_text(encoding="utf-8"))) == pairs:
        return
    folder.mkdir(parents=True, exist_ok=True)
    loader: DataLoader[Any] = DataLoader(
        _Pictures(kind, pairs),
        batch_size=_BATCH,
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context="spawn" if num_workers else None,
    )
    features = cover = None
    names: list[list[str]] = []
    for batch in tqdm(loader, desc=f"Drawing {kind}", unit_scale=_BATCH, unit="pair", mininterval=10):
        with torch.inference_mode():
            described = trunk(normalise(np.concatenate([pictures for pictures, *_ in batch])))
            rows = torch.cat([described, self_distances(described)], 1).unflatten(0, (-1, 2)).half().numpy()
        masks = torch.from_numpy(np.stack([mask for _, mask, *_ in batch])).float()
        shares = F.avg_pool2d(masks[:, None], _STRIDE)[:, 0].half().numpy()
        if features is None or cover is None:
            features = _new_file(folder / "features.npy", (pairs, *rows.shape[1:]))
            cover = _new_file(folder / "cover.npy", (pairs, *shares.shape[1:]))
        place = slice(len(names), len(names) + len(batch))
        features[place], cover[place] = rows, shares
        names += [[category, defect] for *_, category, defect in batch]
    info.write_text(json.dumps(names), encoding="utf-8")


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float16]]:
    return np.lib.format.open_memmap(path, "w+", np.float16, shape=shape)


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
