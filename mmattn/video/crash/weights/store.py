"""A CRASH checkpoint folder: the risk model and, where it has one of its own, the perception that feeds it.

The perception's tensors lie beside the risk model's under the prefix ``perception.``; its settings are in the config. A
folder without them holds a risk model alone, whose features come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.core.weights.stored_model import load_stored, save_stored
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.model import RiskModel, build_model

__all__ = ["PREFIX", "StoredCrash", "load_crash", "load_detector", "save_crash", "with_detector"]

PREFIX = "perception."


@dataclass(frozen=True)
class StoredCrash:
    """What a checkpoint folder holds.

    Attributes:
        config: The config.
        tensors: State of the risk model, single precision.
        perception: State of the perception, as stored; empty where it has none of its own.
    """

    config: CrashConfig
    tensors: dict[str, Tensor]
    perception: dict[str, Tensor]

    def build(self, config: CrashConfig | None = None) -> RiskModel:
        """Returns the risk model with these tensors, in evaluation mode.

        Args:
            config: Another config of the same sizes; None takes the stored one.

        Raises:
            CheckpointError: If the tensors do not fit.
        """
        model = build_model(config or self.config)
        model.load_tensors(self.tensors)
        return model


def load_crash(source: str | Path) -> StoredCrash:
    """Reads a checkpoint.

    Args:
        source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.

    Raises:
        CheckpointError: If it is none of CRASH, or damaged.
        WeightsUnavailableError: If it is neither on disk nor reachable.
    """
    found = load_stored(
        "crash",
        source,
        CrashConfig.from_dict,
        prefix=PREFIX,
        what="a risk model",
        hint="Pass the folder of a risk model, for example epoch_9; the embedded detector alone predicts no accidents.",
    )
    return StoredCrash(found.config, found.tensors, found.part)


def save_crash(folder: str | Path, stored: StoredCrash, *, card: str, dtype: torch.dtype | None = None) -> Path:
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
        folder, stored.tensors, stored.perception, system="crash", prefix=PREFIX, config=config, card=card, dtype=dtype
    )


def load_detector(source: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads an embedded detector and returns its tensors and settings.

    Args:
        source: Folder that the detector's training wrote, or "embedded" for the one that ships.

    Raises:
        CheckpointError: If it is none.
        WeightsUnavailableError: If no embedded model ships.
    """
    if str(source) != "embedded":
        return load_checkpoint(source, "crash")
    shipped = load_crash("embedded")
    return shipped.perception, dict(shipped.config.perception_options)


def with_detector(stored: StoredCrash, detector: str | Path) -> StoredCrash:
    """Returns a risk model together with the embedded detector whose features it was trained on.

    Args:
        stored: The risk model.
        detector: As for :func:`load_detector`.

    Raises:
        CheckpointError: If that is no detector.
    """
    tensors, settings = load_detector(detector)
    options: Mapping[str, Any] = {**stored.config.perception_options, **settings}
    config = replace(stored.config, perception="embedded", perception_options=dict(options))
    return StoredCrash(config, stored.tensors, tensors)
