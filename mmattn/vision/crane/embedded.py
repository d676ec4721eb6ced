"""Between and after the two training stages of the embedded model: averaging weights, shipping in half precision.

``python -m mmattn.vision.crane.embedded average CLIP_FOLDER MIDWAY.ckpt TARGET`` takes the mean of the first stage's
last weights and those of a step midway, which lie on one trajectory and generalise better together (arXiv 1803.05407).
``python -m mmattn.vision.crane.embedded ship RUN_FOLDER ASSETS_FOLDER`` writes the checkpoint that ships; the model
card and the samples already in the assets folder stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmattn.core.checkpoint import load_checkpoint, load_torch_file, save_checkpoint
from mmattn.vision.crane.config import CraneConfig

__all__ = ["average", "main", "ship"]

SHIPPED = {"tau_pixel": 0.05, "tau_image": 0.03, "sigma": 2.0}
"""Temperatures that spread maps and scores over [0, 1], and smoothing in pixels; chosen on the validation sets."""


def average(folder: str | Path, midway: str | Path, target: str | Path) -> Path:
    """Writes the mean of a checkpoint folder and a Lightning checkpoint of the same run and returns its folder.

    Tensors that the Lightning checkpoint leaves out are frozen ones, equal in both.

    Raises:
        CheckpointError: If one of the two is missing or is no checkpoint.
    """
    tensors, config = load_checkpoint(folder, "crane")
    earlier = load_torch_file(midway)["state_dict"]
    mean = {}
    for name, tensor in tensors.items():
        other = earlier.get(f"model.{name}")
        mean[name] = (tensor + other) / 2 if other is not None and tensor.is_floating_point() else tensor
    card = "# Embedded Crane after its first stage\n\nThe mean of two steps of one run; the prompts are untrained.\n"
    return save_checkpoint(target, mean, system="crane", config=config, card=card)


def ship(source: str | Path, target: str | Path, changes: dict[str, Any] | None = None) -> Path:
    """Writes a checkpoint in float16 and returns its folder.

    Args:
        source: Checkpoint folder of the second training stage.
        target: Folder to write; its model card is kept if there is one.
        changes: Fields of the config to change.

    Raises:
        CheckpointError: If the source is no Crane checkpoint.
    """
    tensors, stored = load_checkpoint(source, "crane")
    halved = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    config = replace(CraneConfig.from_dict(stored), **(changes or {}))
    card = Path(target) / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "# Crane, embedded model\n"
    return save_checkpoint(target, halved, system="crane", config=config.to_dict(), card=text)


def main(args: Sequence[str] | None = None) -> None:
    """Averages or ships, as the command line says."""
    parser = argparse.ArgumentParser(description="Averages and ships checkpoints of the embedded Crane model.")
    actions = parser.add_subparsers(required=True, dest="action")
    averaging = actions.add_parser("average", help="mean of the first stage's end and a step midway")
    averaging.add_argument("folder", help="for example runs/crane_clip/clip")
    averaging.add_argument("midway", help="Lightning checkpoint of the same run")
    shipping = actions.add_parser("ship", help="write a trained checkpoint in float16")
    shipping.add_argument("folder", help="for example runs/crane_embedded/version_0/epoch_3")
    for action in (averaging, shipping):
        action.add_argument("target", help="folder to write")
    given = parser.parse_args(args)
    if given.action == "average":
        average(given.folder, given.midway, given.target)
    else:
        ship(given.folder, given.target, SHIPPED)


if __name__ == "__main__":
    main()
