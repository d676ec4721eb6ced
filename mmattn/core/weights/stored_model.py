"""A checkpoint of a model and of a part it works with, both in one file: the part's tensors stand under a prefix.

So a codec ships inside the checkpoint of the model that speaks through it, and a detector inside that of the model
that watches what it sees. The model's tensors come in single precision; the part's as they are stored, for it knows
itself what it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from mmattn.core.config_fields import check_types
from mmattn.core.weights.checkpoint import load_checkpoint, save_checkpoint
from mmattn.core.weights.resolver import resolve
from mmattn.errors import CheckpointError

__all__ = ["StoredModel", "cast_floating", "check_sizes", "load_stored", "save_stored", "split_part"]

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
        from_dict: Makes the config of what ``config.json`` holds; a ValueError or TypeError says that it is none. Where
            it is a dataclass's own, the types of the values are checked before.
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
        owner = getattr(from_dict, "__self__", None)
        if isinstance(owner, type) and is_dataclass(owner):
            check_types(owner, stored)
        config = from_dict(stored)
    except (ValueError, TypeError, OverflowError) as error:
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
        CheckpointError: As :func:`mmattn.core.weights.checkpoint.save_checkpoint`.
    """
    joined = {**tensors, **{prefix + name: tensor for name, tensor in part.items()}}
    if dtype is not None:
        joined = cast_floating(joined, dtype)
    return save_checkpoint(folder, joined, system=system, config=config, card=card)


def check_sizes(sizes: Mapping[str, int], tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Raises where a config asks for more than its tensors can hold, before memory for it is asked for.

    Args:
        sizes: Widths and numbers of layers of the model to build, by the names of the config's fields. Each is the
            length of a tensor's axis, or there are as many tensors.
        tensors: What it is to be filled with.
        what: Subject of the message.

    Raises:
        CheckpointError: If a size exceeds both; the message names its field.

    >>> check_sizes({"dim": 3}, {"weight": torch.zeros(4, 3)}, what="The model")
    """
    largest = max([len(tensors), *(length for tensor in tensors.values() for length in tensor.shape)])
    for name, size in sizes.items():
        if size > largest:
            raise CheckpointError(
                f"{what} does not fit its config: {name} makes a size of {size}, and no tensor in the file is longer "
                f"than {largest}.",
                "The config.json was changed, or belongs to another file.",
            )


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
