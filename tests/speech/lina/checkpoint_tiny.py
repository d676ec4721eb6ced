"""A checkpoint folder of a few kilobytes with model, codec and voices, all of random weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.speech.lina.network.batch import END
from mmattn.speech.lina.voices.files import Voice, fingerprint, save_voice
from mmattn.speech.lina.voices.state import InitialState
from mmattn.speech.lina.weights.store import StoredLina
from tests.speech.lina.codec.tiny import EMBEDDED, embedded
from tests.speech.lina.tiny import tiny_model

RATE = 8000
CODEC = replace(EMBEDDED, sample_rate=RATE, n_fft=256, hop=128)
"""62.5 frames a second, three codebooks, of which the model speaks two."""


def stored(seed: int = 0, **changes: Any) -> StoredLina:
    """Returns a model that reads characters and speaks through its own codec."""
    fields = {
        "num_codebooks": 2, "codebook_size": CODEC.codebook_size, "text_vocab": 38, "tokenizer": "characters",
        "codec": "embedded", "codec_options": CODEC.to_dict(),
    }  # fmt: skip
    model = tiny_model(seed, **{**fields, **changes})
    with torch.no_grad():
        # Many sentences end by themselves, after about twenty frames.
        head = model.get_parameter("head")
        head *= 0.2
        head[0, END] = 0
    codec = {name: tensor.clone() for name, tensor in embedded(config=CODEC).state_dict().items()}
    return StoredLina(model.config, dict(model.state_dict()), codec)


def voice(lina: StoredLina, seed: int = 0, name: str = "anna") -> Voice:
    """Returns a voice of a model that is audibly another one."""
    state = InitialState.draw(lina.build().initial_state(1), scale=5.0, seed=seed)
    return Voice(state.requires_grad_(False), fingerprint(lina.tensors), "I agree.", name)


def save(folder: Path, lina: StoredLina | None = None, voices: Sequence[str] = ()) -> Path:
    """Writes a checkpoint folder."""
    lina = lina or stored()
    lina.save(folder, card="# Tiny\n")
    for seed, name in enumerate(voices):
        (folder / "voices").mkdir(exist_ok=True)
        save_voice(folder / "voices" / f"{name}.safetensors", voice(lina, seed, name))
    return folder


def hum(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Returns a sound that passes for speech: a harmonic tone whose loudness comes and goes."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * (120 + 7 * seed) * k * time) / k for k in range(1, 5))
    return np.asarray(0.2 * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)), np.float32)
