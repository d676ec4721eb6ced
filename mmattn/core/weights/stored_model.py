"""A model and a part it works with as one checkpoint: the part's tensors stand under a prefix in the same file.

So a codec ships inside the checkpoint of the model that speaks through it, and a detector inside that of the model
that watches what it sees. The model's tensors come in single precision; the part's as they are stored, for it knows
itself what it runs in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import load_checkpoint, resolve, save_checkpoint
from mmattn.errors import CheckpointError

__all__ = ["StoredModel", "cast_floating", "split_part"]


class Config(Protocol):
    """What is asked of a system's config."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Reads them back; raises ValueError or TypeError if they are of something else."""


ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class StoredModel(Generic[ConfigT]):
    """What a checkpoint folder holds; a system says the rest in a subclass.

    Attributes:
        config: The system's config.
        tensors: State of the model.
        part: State of its part, names without the prefix; empty where it has none.
        folder: Where it was read from; None for one that is made in memory.
        SYSTEM: Name of the system, for example "lina".
        CONFIG: Class of its config.
        WHAT: What the config should be of, as in "a risk model", for messages.
        PREFIX: Begins the names of the part's tensors in the file, if it has one.
        HINT: What to do where it is not.
    """

    config: ConfigT
    tensors: dict[str, Tensor]
    part: dict[str, Tensor] = field(default_factory=dict)
    folder: Path | None = None

    SYSTEM: ClassVar[str]
    CONFIG: ClassVar[type[Config]]
    WHAT: ClassVar[str]
    PREFIX: ClassVar[str] = "part."
    HINT: ClassVar[str] = "Copy or convert it again; its config.json was changed, or is of another version."

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Reads a checkpoint.

        Args:
            source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.

        Raises:
            CheckpointError: If it is none of the system, or damaged, or its config is of something else.
            WeightsUnavailableError: If it is neither on disk nor reachable.
        """
        folder = resolve(cls.SYSTEM, source)
        tensors, stored = load_checkpoint(folder, cls.SYSTEM)
        try:
            config: Any = cls.CONFIG.from_dict(stored)
        except (ValueError, TypeError, OverflowError) as error:
            raise CheckpointError(f"The config of '{source}' is none of {cls.WHAT}: {error}", cls.HINT) from error
        own, part = split_part(tensors, cls.PREFIX)
        return cls(config, cast_floating(own, torch.float32), part, folder)

    def save(self, folder: str | Path, *, card: str, dtype: torch.dtype | None = None) -> Path:
        """Writes a checkpoint folder and returns its path.

        Args:
            folder: Where to.
            card: The model card, Markdown.
            dtype: Floating type of all tensors; None leaves them as they are.

        Raises:
            CheckpointError: As :func:`mmattn.core.weights.checkpoint.save_checkpoint`.
        """
        joined = {**self.tensors, **{self.PREFIX + name: tensor for name, tensor in self.part.items()}}
        if dtype is not None:
            joined = cast_floating(joined, dtype)
        return save_checkpoint(folder, joined, system=self.SYSTEM, config=self.config.to_dict(), card=card)


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
