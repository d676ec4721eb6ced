"""Features of the frozen vision tower on disk, so that an epoch of prompt training costs the prompts alone.

Crane trains 43,008 numbers behind a vision tower of 300 million frozen ones (arXiv 2504.11055). The tower says the
same about a picture in every epoch, so it is asked once. The cache is a folder with one safetensors file a picture,
named after the picture's path, size and modification time, below a folder named after everything that shapes the
features: the vision part of the config and the weights themselves. A changed picture or model so never meets an old
feature, an interrupted run continues where it stopped, and deleting the folder is always safe.

Patch features are kept as unit vectors in float16: only their directions enter scores and losses. For CLIP ViT-L/14 at
518 pixels that is 2.1 MB a picture and feature set.

Shapes: B images, K feature sets, N = h w patches, E feature width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from mmattn.core.datasets import features
from mmattn.core.datasets.features import FeatureStore, Rows
from mmattn.errors import InputError
from mmattn.vision.crane.datasets.pictures import CraneDataset
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.tower import VisionFeatures

__all__ = ["Annotated", "CachedDataset", "FeatureCache", "fill", "fingerprint", "unpack"]

VISION_FIELDS = (
    "image_size",
    "attn_type",
    "dual_layers",
    "feature_layers",
    "multilayer",
    "foundation",
    "both_eattn_dattn",
    "beta",
    "gamma",
    "dattn_input",
)
"""Fields of the config that change features without changing a weight."""


def fingerprint(model: CraneModel) -> str:
    """Returns a name of 32 hex digits for everything that shapes a model's vision features.

    Raises:
        InputError: If D-Attn takes its mean over the batch, because features then belong to no single picture.
    """
    settings = model.config.to_dict()
    if settings["foundation"] != "none" and settings["dattn_mean"] != "image":
        raise InputError(
            "dattn_mean is 'batch', so the features of a picture depend on its batch and cannot be cached.",
            "Set config.dattn_mean to image, or leave feature_cache out.",
        )
    weights = {
        name: tensor for name, tensor in model.state_dict().items() if name.startswith(("clip.visual.", "foundation."))
    }
    return features.fingerprint([settings[name] for name in VISION_FIELDS], weights)


class FeatureCache(FeatureStore):
    """One model's features, by the paths of pictures."""

    def file(self, key: str | Path) -> Path:
        """Returns the file of a picture's features, whether it exists or not.

        Raises:
            InputError: If the picture does not exist.
        """
        path = Path(key).resolve()
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise InputError(f"Picture '{key}' does not exist any more.", "Check the dataset folder.") from error
        identity = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        return super().file(f"{name[:2]}/{name}")

    def load(self, picture: str | Path) -> dict[str, Any]:
        """Returns the features of one picture in the form :func:`unpack` reads after batching.

        Raises:
            InputError: If they are not in the cache or their file is damaged.
        """
        tensors = self.get(str(picture))
        sets = sum(name.startswith("patch_features.") for name in tensors)
        patches = [tensors.pop(f"patch_features.{k}") for k in range(sets)]
        return {**tensors, "patch_features": patches}


@runtime_checkable
class Annotated(Protocol):
    """What the cache asks of a dataset: items as dicts, and all of an item but its picture without reading that."""

    def __len__(self) -> int:
        """Returns the number of items."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns an item with the preprocessed picture under ``img`` and its file under ``path``."""

    def annotation(self, index: int) -> dict[str, Any]:
        """Returns the item without ``img``."""


class CachedDataset(Dataset[dict[str, Any]]):
    """A dataset whose items carry cached features in the place of the picture.

    Args:
        items: The dataset behind it.
        cache: Where the features are; :meth:`fill` must have run for all items.
    """

    def __init__(self, items: Annotated, cache: FeatureCache) -> None:
        self.items = items
        self.cache = cache

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.items.annotation(index)
        return {**annotation, **self.cache.load(annotation["path"])}


def fill(cache: FeatureCache, model: CraneModel, items: Annotated, *, batch_size: int, num_workers: int = 0) -> int:
    """Computes the features that are not in the cache yet and returns how many those were.

    Args:
        cache: Where they go.
        model: Whose features they are; it stays on its device.
        items: All pictures.
        batch_size: Pictures per pass through the tower.
        num_workers: Loading processes; 0 loads in this one.
    """
    device = next(model.clip.parameters()).device

    def make(missing: dict[str, int]) -> Iterator[tuple[str, Rows]]:
        loader: DataLoader[dict[str, Any]] = DataLoader(
            Subset(items, list(missing.values())),  # type: ignore[arg-type]
            batch_size=batch_size,
            num_workers=num_workers,
            multiprocessing_context="spawn" if num_workers else None,
        )
        for batch in loader:
            with torch.inference_mode():
                rows = _rows(model.encode_image(batch["img"].to(device)))
            yield from zip(batch["path"], rows, strict=True)

    wanted = {str(picture_of(items, i)): i for i in range(len(items))}
    return features.fill(cache, wanted, make, what="Features", unit="picture")


def _rows(vision: VisionFeatures) -> list[dict[str, Tensor]]:
    """Returns the tensors that are kept of each picture of a batch."""
    patches = {
        f"patch_features.{k}": F.normalize(found.float(), dim=-1).half()
        for k, found in enumerate(vision.patch_features)
    }
    shared = {"grid": torch.tensor(vision.grid), "counts": torch.tensor(vision.repeats())}
    images = vision.image_features.float()
    return [
        {"image_features": images[i], **{name: found[i] for name, found in patches.items()}, **shared}
        for i in range(len(images))
    ]


def picture_of(items: Annotated, index: int) -> Path:
    """Returns the file of one item's picture; Crane's own dataset is asked without decoding the mask."""
    if isinstance(items, CraneDataset):
        return items.root / items.records[index].img_path
    return Path(items.annotation(index)["path"])


def unpack(batch: Mapping[str, Any]) -> VisionFeatures:
    """Returns the features (float32) of a collated batch of :class:`CachedDataset` items."""
    height, width = batch["grid"][0].tolist()
    return VisionFeatures(
        image_features=batch["image_features"].float(),
        patch_features=tuple(patches.float() for patches in batch["patch_features"]),
        grid=(height, width),
        counts=tuple(batch["counts"][0].tolist()),
    )
