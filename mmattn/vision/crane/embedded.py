"""From a trained run to the checkpoint that ships: half precision, the card beside it.

``python -m mmattn.vision.crane.embedded RUN_FOLDER ASSETS_FOLDER`` is the last of the commands on the card; the model
card and the samples already in the assets folder stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmattn.core.checkpoint import load_checkpoint, save_checkpoint
from mmattn.vision.crane.config import CraneConfig

__all__ = ["main", "ship"]


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
    """Reads the two folders from the command line and ships the checkpoint."""
    parser = argparse.ArgumentParser(description="Writes a trained Crane checkpoint in float16.")
    parser.add_argument("source", help="checkpoint folder, for example runs/crane_embedded/version_0/epoch_4")
    parser.add_argument("target", help="folder to write, for example mmattn/assets/crane")
    given = parser.parse_args(args)
    ship(given.source, given.target)


if __name__ == "__main__":
    main()
