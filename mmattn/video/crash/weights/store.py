"""A CRASH checkpoint folder: the risk model and, where it has one of its own, the perception that feeds it.

The perception's tensors lie beside the risk model's under the prefix ``perception.``; its settings are in the config. A
folder without them holds a risk model alone, whose features come from elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.core.weights.stored_model import StoredModel
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.model import RiskModel, build_model

__all__ = ["StoredCrash", "load_detector"]


class StoredCrash(StoredModel[CrashConfig]):
    """What a checkpoint folder holds; its part is the perception."""

    SYSTEM, CONFIG, WHAT, PREFIX = "crash", CrashConfig, "a risk model", "perception."
    HINT = "Pass the folder of a risk model, for example epoch_9; the embedded detector alone predicts no accidents."

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

    def with_detector(self, detector: str | Path) -> StoredCrash:
        """Returns the risk model together with the embedded detector whose features it was trained on.

        Args:
            detector: As for :func:`load_detector`.

        Raises:
            CheckpointError: If that is no detector.
        """
        tensors, settings = load_detector(detector)
        options = {**self.config.perception_options, **settings}
        config = replace(self.config, perception="embedded", perception_options=options)
        return StoredCrash(config, self.tensors, tensors)


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
    shipped = StoredCrash.load("embedded")
    return shipped.part, dict(shipped.config.perception_options)
