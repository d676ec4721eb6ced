"""The last step of the embedded model: ``python -m mmattn.video.crash.weights.ship RUN_FOLDER/epoch_N ASSETS_FOLDER``.

Writes the checkpoint that ships, risk model and detector together, in half precision. The model card and the samples
already in the assets folder stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mmattn.core.weights.checkpoint import read_card
from mmattn.errors import CheckpointError
from mmattn.video.crash.weights.store import StoredCrash

__all__ = ["main", "ship"]


def ship(source: str | Path, target: str | Path) -> Path:
    """Writes a checkpoint in float16 and returns its folder.

    Args:
        source: Checkpoint folder of the second training stage.
        target: Folder to write; its model card is kept if there is one.

    Raises:
        CheckpointError: If the source is no CRASH checkpoint, or holds no detector.
    """
    stored = StoredCrash.load(source)
    if not stored.part:
        raise CheckpointError(
            f"'{source}' holds no detector, so it cannot read videos.",
            "Train it with crash/embedded, or name the detector with model.init_args.detector.",
        )
    card = read_card(target, "# CRASH, embedded model\n")
    return stored.save(target, card=card, dtype=torch.float16)


def main(args: Sequence[str] | None = None) -> None:
    """Ships what the command line names."""
    parser = argparse.ArgumentParser(description="Writes the trained CRASH checkpoint that ships, in float16.")
    parser.add_argument("folder", help="for example runs/crash_embedded/version_0/epoch_15")
    parser.add_argument("target", help="folder to write, for example mmattn/assets/crash")
    given = parser.parse_args(args)
    print(ship(given.folder, given.target))


if __name__ == "__main__":
    main()
