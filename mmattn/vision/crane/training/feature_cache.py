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
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from mmattn.errors import InputError
from mmattn.media.files import atomic_path
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
    digest = hashlib.sha256(json.dumps([settings[name] for name in VISION_FIELDS]).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(("clip.visual.", "foundation.")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


class FeatureCache:
    """One model's features below ``folder``.

    Args:
        folder: Where caches of all models live.
        name: The model's :func:`fingerprint`.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder = Path(folder).expanduser() / name

    def file(self, picture: str | Path) -> Path:
        """Returns the file of a picture's features, whether it exists or not.

        Raises:
            InputError: If the picture does not exist.
        """
        path = Path(picture).resolve()
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise InputError(f"Picture '{picture}' does not exist any more.", "Check the dataset folder.") from error
        identity = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:32]
        return self.folder / key[:2] / f"{key}.safetensors"

    def has(self, picture: str | Path) -> bool:
        """Whether the picture's features are there."""
        return self.file(picture).is_file()

    def load(self, picture: str | Path) -> dict[str, Any]:
        """Returns the features of one picture in the form :func:`unpack` reads after batching.

        Raises:
            InputError: If they are not in the cache or their file is damaged.
        """
        file = self.file(picture)
        try:
            tensors = load_file(file)
        except (FileNotFoundError, SafetensorError) as error:
            raise InputError(
                f"The cached features of '{picture}' are missing or damaged ('{file}').",
                "Delete that file and run again; it is computed anew.",
            ) from error
        sets = sum(name.startswith("patch_features.") for name in tensors)
        patches = [tensors.pop(f"patch_features.{k}") for k in range(sets)]
        return {**tensors, "patch_features": patches}

    def store(self, pictures: Iterable[str | Path], vision: VisionFeatures) -> None:
        """Writes the features of a batch, one file a picture; each file appears complete or not at all."""
        for i, picture in enumerate(pictures):
            tensors = {"image_features": vision.image_features[i].float().cpu().contiguous()}
            for k, patches in enumerate(vision.patch_features):
                tensors[f"patch_features.{k}"] = F.normalize(patches[i].float(), dim=-1).half().cpu().contiguous()
            tensors["grid"] = torch.tensor(vision.grid)
            tensors["counts"] = torch.tensor(vision.repeats())
            with atomic_path(self.file(picture)) as temporary:
                save_file(tensors, temporary)


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
    missing = [i for i in range(len(items)) if not cache.has(picture_of(items, i))]
    if not missing:
        return 0
    loader: DataLoader[dict[str, Any]] = DataLoader(
        Subset(items, missing),  # type: ignore[arg-type]
        batch_size=batch_size,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
    )
    device = next(model.clip.parameters()).device
    with torch.inference_mode(), tqdm(total=len(missing), desc="Features", unit="picture") as progress:
        for batch in loader:
            cache.store(batch["path"], model.encode_image(batch["img"].to(device)))
            progress.update(len(batch["path"]))
    return len(missing)


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
