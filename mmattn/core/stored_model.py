"""A checkpoint of a model and of a part it works with, both in one file: the part's tensors stand under a prefix.

So a codec ships inside the checkpoint of the model that speaks through it, and a detector inside that of the model
that watches what it sees. The model's tensors come in single precision; the part's as they are stored, for it knows
itself what it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from mmattn.core.checkpoint import load_checkpoint, save_checkpoint
from mmattn.core.errors import CheckpointError
from mmattn.core.resolver import resolve

__all__ = ["StoredModel", "cast_floating", "load_stored", "save_stored", "split_part"]

ConfigT = TypeVar("ConfigT")


class StoredModel(NamedTuple, Generic[ConfigT]):
    """What a checkpoint folder holds.

    Attributes:
        config: The system's config.
        tensors: State of the model, single precision.
        part: State of its part, names without the prefix, as stored; empty where the folder has none.
        folder: Where it was read from.
    """

    config: ConfigT
    tensors: dict[str, Tensor]
    part: dict[str, Tensor]
    folder: Path


def load_stored(
    system: str,
    source: str | Path,
    from_dict: Callable[[dict[str, Any]], ConfigT],
    *,
    prefix: str,
    what: str,
    hint: str = "",
) -> StoredModel[ConfigT]:
    """Reads a checkpoint and takes it apart.

    Args:
        system: Name of the system, for example ``"lina"``.
        source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.
        from_dict: Makes the config of what ``config.json`` holds; a ValueError or TypeError says that it is none.
        prefix: Begins the names of the part's tensors.
        what: What the config should be of, for the message, as in "a risk model".
        hint: What to do where it is not.

    Raises:
        CheckpointError: If it is none of the system, or damaged, or its config is of something else.
        WeightsUnavailableError: If it is neither on disk nor reachable.
    """
    folder = resolve(system, source)
    tensors, stored = load_checkpoint(folder, system)
    try:
        config = from_dict(stored)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"The config of '{source}' is none of {what}: {error}", hint) from error
    own, part = split_part(tensors, prefix)
    return StoredModel(config, {name: tensor.float() for name, tensor in own.items()}, part, folder)


def save_stored(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    part: Mapping[str, Tensor],
    *,
    system: str,
    prefix: str,
    config: Mapping[str, Any],
    card: str,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a model and its part as one checkpoint folder and returns its path.

    Args:
        folder: Where to.
        tensors: State of the model.
        part: State of its part; empty for a model alone.
        system: Name of the system.
        prefix: Begins the names of the part's tensors in the file.
        config: The system's config as plain JSON types.
        card: The model card, Markdown.
        dtype: Floating type of all tensors; None leaves them as they are.

    Raises:
        CheckpointError: As :func:`mmattn.core.checkpoint.save_checkpoint`.
    """
    joined = {**tensors, **{prefix + name: tensor for name, tensor in part.items()}}
    if dtype is not None:
        joined = cast_floating(joined, dtype)
    return save_checkpoint(folder, joined, system=system, config=config, card=card)


def split_part(tensors: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the tensors whose names do not begin with the prefix, and the others by their names without it.

    >>> split_part({"w": torch.zeros(1), "codec.w": torch.ones(1)}, "codec.")
    ({'w': tensor([0.])}, {'w': tensor([1.])})
    """
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    part = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return own, part


def cast_floating(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the tensors with floating ones in another type; counters and indices stay what they are."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
