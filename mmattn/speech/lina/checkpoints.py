"""A Lina checkpoint folder: the language model and, where it ships with one, the codec that turns tokens into sound.

The codec's tensors lie beside the model's under the prefix ``codec.``; its name and settings are in the config. A
folder without them needs the codec from elsewhere. Voices that ship with the model are ``voices/NAME.safetensors``
(:mod:`.voices`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmattn.core.checkpoint import load_checkpoint, save_checkpoint
from mmattn.core.errors import CheckpointError
from mmattn.core.resolver import resolve
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.model import LinaModel

__all__ = ["PREFIX", "StoredLina", "load_lina", "save_lina"]

PREFIX = "codec."


@dataclass(frozen=True)
class StoredLina:
    """What a checkpoint folder holds.

    Attributes:
        config: The config.
        tensors: State of the language model, single precision.
        codec: State of the codec, as stored; empty where the folder has none.
        folder: Where it was read from; None for one that is made in memory.
    """

    config: LinaConfig
    tensors: dict[str, Tensor]
    codec: dict[str, Tensor]
    folder: Path | None = None

    def build(self, config: LinaConfig | None = None) -> LinaModel:
        """Returns the language model with these tensors, in evaluation mode.

        Args:
            config: Another config of the same sizes; None takes the stored one.

        Raises:
            CheckpointError: If the tensors do not fit.
        """
        model = LinaModel(config or self.config)
        model.load_tensors(self.tensors)
        return model


def load_lina(source: str | Path) -> StoredLina:
    """Reads a checkpoint.

    Args:
        source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.

    Raises:
        CheckpointError: If it is none of Lina, or damaged.
        WeightsUnavailableError: If it is neither on disk nor reachable.
    """
    folder = resolve("lina", source)
    tensors, stored = load_checkpoint(folder, "lina")
    try:
        config = LinaConfig.from_dict(stored)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"The config of '{source}' is none of a language model: {error}") from error
    own = {name: tensor.float() for name, tensor in tensors.items() if not name.startswith(PREFIX)}
    codec = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return StoredLina(config, own, codec, folder)


def save_lina(folder: str | Path, stored: StoredLina, *, card: str, dtype: torch.dtype | None = None) -> Path:
    """Writes a checkpoint folder and returns its path.

    Args:
        folder: Where to.
        stored: What to write.
        card: The model card, Markdown.
        dtype: Floating type of all tensors; None leaves them as they are.

    Raises:
        CheckpointError: As :func:`mmattn.core.checkpoint.save_checkpoint`.
    """
    tensors = {**stored.tensors, **{PREFIX + name: tensor for name, tensor in stored.codec.items()}}
    if dtype is not None:
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    return save_checkpoint(folder, tensors, system="lina", config=stored.config.to_dict(), card=card)
