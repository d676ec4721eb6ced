"""Weights of other people's networks: a local file, the cache of their library, or their server, in that order.

Whatever is not there is said once, with the address it comes from and the option that takes a local copy. With
``HF_HUB_OFFLINE`` set no server is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import nn

from mmattn.core.weights.loading import load_into
from mmattn.core.weights.torch_file import read_state
from mmattn.errors import MissingExtraError, WeightsUnavailableError

__all__ = ["import_torchvision", "load_torchvision", "missing_weights", "open_clip_file"]


def import_torchvision() -> Any:
    """Returns the module ``torchvision``.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import torchvision
    except ImportError as error:
        raise MissingExtraError("torchvision", "video", "The released perception") from error
    return torchvision


def load_torchvision(
    network: nn.Module, name: str, weights: str, *, option: str, ignored: tuple[str, ...] = ()
) -> None:
    """Loads the weights of a torchvision model.

    Args:
        network: Built under ``name``, or a part of it.
        name: Torchvision's name of the model.
        weights: The path of a file, or torchvision's name for the weights.
        option: Which setting takes a path, for messages.
        ignored: Beginnings of names in the file that are left out.

    Raises:
        WeightsUnavailableError: If the weights are neither a file, nor cached, nor reachable.
        CheckpointError: If the file does not fit.
    """
    file = Path(weights).expanduser()
    if not file.is_file():
        file = _torchvision_file(name, weights, option)
    load_into(network, read_state(file), what=f"'{file}'", ignored=ignored)


def open_clip_file(name: str, tag: str, *, option: str) -> Path:
    """Returns the cached file of one of open_clip's weights, fetching it if that is possible.

    Args:
        name: open_clip's name of the model.
        tag: Its name of the weights.
        option: Which setting takes a path, for messages.

    Raises:
        WeightsUnavailableError: If the tag is unknown, or its file neither cached nor reachable.
    """
    import open_clip

    known = open_clip.get_pretrained_cfg(name, tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise WeightsUnavailableError(
            f"Weights {tag!r} are neither a file nor a tag open_clip has for {name}; it knows: {tags}.",
            f"Pass the path of a .safetensors or .pt file ({option}).",
        )
    origin = str(known.get("hf_hub") or known.get("url")).rstrip("/")
    fetch: Callable[[Any], str | Path] = open_clip.download_pretrained
    try:
        return Path(fetch(known))
    except (OSError, RuntimeError, ValueError) as error:
        raise missing_weights(f"{name} ({tag})", origin, option=option) from error


def missing_weights(name: str, origin: str, *, option: str) -> WeightsUnavailableError:
    """Returns the error for weights that are not here and cannot be fetched.

    Args:
        name: What they are of.
        origin: Address they come from.
        option: Which setting takes a path, as in "clip_pretrained, --clip-pretrained".
    """
    return WeightsUnavailableError(
        f"The weights {name} are not on this machine and could not be fetched from {origin}.",
        f"With a network they are downloaded once; otherwise copy the file from there and pass its path ({option}).",
    )


def _torchvision_file(name: str, weights: str, option: str) -> Path:
    """Returns the cached file of named weights, fetching it if that is possible."""
    known = {entry.name: entry.url for entry in import_torchvision().models.get_model_weights(name)}
    if weights not in known:
        raise WeightsUnavailableError(
            f"Weights {weights!r} are neither a file nor weights torchvision has for {name} (it has: "
            f"{', '.join(known)}).",
            f"Pass the path of a .pth or .safetensors file ({option}).",
        )
    url = known[weights]
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return file
    if constants.HF_HUB_OFFLINE:
        raise missing_weights(f"{name} ({weights})", url, option=option)
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest[1] if digest else None)
    except (OSError, RuntimeError) as error:
        raise missing_weights(f"{name} ({weights})", url, option=option) from error
    return file
