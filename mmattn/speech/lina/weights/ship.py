"""The last step of the embedded model: ``python -m mmattn.speech.lina.weights.ship RUN_FOLDER/step_N ASSETS_FOLDER``.

Writes the checkpoint that ships, token model, codec and voices together, in half precision. The model card and the
samples already in the assets folder stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmattn.core.weights.checkpoint import read_card
from mmattn.errors import CheckpointError
from mmattn.media.paths import contained
from mmattn.speech.lina.voices.files import fingerprint, load_voice, save_voice
from mmattn.speech.lina.weights.store import StoredLina

__all__ = ["main", "ship"]

VOICES = "voices"


def ship(source: str | Path, target: str | Path, speaking: Mapping[str, Any] | None = None) -> Path:
    """Writes a checkpoint in float16 and returns its folder.

    Args:
        source: Checkpoint folder of the second training stage.
        target: Folder to write; its model card is kept if there is one, its voices are replaced.
        speaking: What was found best on validation sentences, :attr:`LinaConfig.speaking`.

    Raises:
        CheckpointError: If the source is no Lina checkpoint, holds no codec, or has a voice of another model.
        InputError: If a voice's name would lead its file out of the folder.
    """
    stored = StoredLina.load(source)
    if not stored.part:
        raise CheckpointError(
            f"'{source}' holds no codec, so it cannot speak.",
            "Train it with lina/embedded, or name the codec with model.init_args.codec.",
        )
    config = replace(stored.config, speaking=dict(speaking or stored.config.speaking))
    model = fingerprint(stored.tensors)
    voices = [load_voice(file, model) for file in sorted((Path(source) / VOICES).glob("*.safetensors"))]
    card = read_card(target, "# Lina, embedded model\n")
    folder = StoredLina(config, stored.tensors, stored.part).save(target, card=card, dtype=torch.float16)
    shutil.rmtree(folder / VOICES, ignore_errors=True)
    (folder / VOICES).mkdir()
    for voice in voices:
        save_voice(contained(f"{voice.name}.safetensors", folder / VOICES), voice)
    return folder


def main(args: Sequence[str] | None = None) -> None:
    """Ships what the command line names."""
    parser = argparse.ArgumentParser(description="Writes the trained Lina checkpoint that ships, in float16.")
    parser.add_argument("folder", help="for example runs/lina_embedded/version_0/step_9000")
    parser.add_argument("target", help="folder to write, for example mmattn/assets/lina")
    parser.add_argument("--temperature", type=float, default=0.5, help="recommended by the checkpoint; default: 0.5")
    parser.add_argument("--top-k", type=int, default=50, help="recommended by the checkpoint; default: 50")
    parser.add_argument("--guidance", type=float, default=2.0, help="recommended by the checkpoint; default: 2")
    parser.add_argument("--max-characters", type=int, default=90, help="longest sentence; default: 90")
    given = parser.parse_args(args)
    speaking = {name: getattr(given, name) for name in ("temperature", "top_k", "guidance", "max_characters")}
    print(ship(given.folder, given.target, speaking))


if __name__ == "__main__":
    main()
