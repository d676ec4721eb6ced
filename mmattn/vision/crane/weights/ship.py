"""After the two training stages of the embedded model: shipping in half precision.

``python -m mmattn.vision.crane.weights.ship RUN_FOLDER ASSETS_FOLDER`` writes the checkpoint that ships; the model card
and the samples already in the assets folder stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmattn.core.weights.checkpoint import read_card
from mmattn.vision.crane.weights.store import StoredCrane

__all__ = ["main", "ship"]

SHIPPED = {"tau_pixel": 0.05, "tau_image": 0.03, "sigma": 2.0}
"""Temperatures that spread maps and scores over [0, 1], and smoothing in pixels; chosen on the validation sets."""


def ship(source: str | Path, target: str | Path, changes: dict[str, Any] | None = None) -> Path:
    """Writes a checkpoint in float16 and returns its folder.

    Args:
        source: Checkpoint folder of the second training stage.
        target: Folder to write; its model card is kept if there is one.
        changes: Fields of the config to change.

    Raises:
        CheckpointError: If the source is no Crane checkpoint.
    """
    stored = StoredCrane.load(source)
    config = replace(stored.config, **(changes or {}))
    card = read_card(target, "# Crane, embedded model\n")
    return StoredCrane(config, stored.tensors).save(target, card=card, dtype=torch.float16)


def main(args: Sequence[str] | None = None) -> None:
    """Ships, as the command line says."""
    parser = argparse.ArgumentParser(description="Writes a trained embedded Crane model in float16.")
    parser.add_argument("folder", help="for example runs/crane_embedded/version_0/epoch_12")
    parser.add_argument("target", help="folder to write")
    given = parser.parse_args(args)
    ship(given.folder, given.target, SHIPPED)


if __name__ == "__main__":
    main()
