"""A Lina checkpoint folder: the language model and, where it ships with one, the codec that turns tokens into sound.

The codec's tensors lie beside the model's under the prefix ``codec.``; its name and settings are in the config. A
folder without them needs the codec from elsewhere. Voices that ship with the model are ``voices/NAME.safetensors``
(:mod:`.voices.files`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmattn.core.weights.stored_model import check_sizes, load_stored, save_stored
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
        config = config or self.config
        check_sizes(_sizes(config), self.tensors, what="The model")
        model = LinaModel(config)
        model.load_tensors(self.tensors)
        return model


def _sizes(config: LinaConfig) -> dict[str, int]:
    names = ("dim", "num_codebooks", "codebook_size", "text_vocab", "text_layers", "num_layers")
    return {
        **{name: getattr(config, name) for name in names},
        "position_dim": config.blind_dim if config.cross_attention == "blind" else 0,
        "expand_k": int(config.dim * config.expand_k),
        "expand_v": int(config.dim * config.expand_v),
    }


def load_lina(source: str | Path) -> StoredLina:
    """Reads a checkpoint.

    Args:
        source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.

    Raises:
        CheckpointError: If it is none of Lina, or damaged.
        WeightsUnavailableError: If it is neither on disk nor reachable.
    """
    found = load_stored("lina", source, LinaConfig.from_dict, prefix=PREFIX, what="a language model")
    return StoredLina(found.config, found.tensors, found.part, found.folder)


def save_lina(folder: str | Path, stored: StoredLina, *, card: str, dtype: torch.dtype | None = None) -> Path:
    """Writes a checkpoint folder and returns its path.

    Args:
        folder: Where to.
        stored: What to write.
        card: The model card, Markdown.
        dtype: Floating type of all tensors; None leaves them as they are.

    Raises:
        CheckpointError: As :func:`mmattn.core.weights.checkpoint.save_checkpoint`.
    """
    config = stored.config.to_dict()
    return save_stored(
        folder, stored.tensors, stored.codec, system="lina", prefix=PREFIX, config=config, card=card, dtype=dtype
    )
