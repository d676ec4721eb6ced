"""Checkpoint folders that can speak (noise), codec inside and one shipped voice; and recordings to clone from."""

from pathlib import Path

import numpy as np

from mmattn.media.audio import write_audio
from mmattn.speech.lina.codec.embedded import EmbeddedCodecConfig
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.voices.files import Voice, fingerprint, save_voice
from mmattn.speech.lina.voices.state import InitialState
from mmattn.speech.lina.weights.store import StoredLina, describe_codec
from tests.speech.lina.codec.tiny import embedded
from tests.speech.lina.tiny import tiny_model

CODEC = EmbeddedCodecConfig(
    sample_rate=8000, n_fft=320, hop=160, num_mels=8, num_bins=4, dim=12, hidden=16, encoder_layers=1, frame_layers=1,
    half_layers=1, codebooks=2, codebook_size=12, code_dim=6,
)  # fmt: skip
"""50 frames a second at 8 kHz, a rate that browsers play."""


def write_model(folder: Path, seed: int = 0) -> Path:
    """Writes a checkpoint folder with the voice ``slt``; another seed is another model."""
    codec = embedded(config=CODEC)
    name, options = describe_codec(codec)
    vocab = build_tokenizer("characters", {}).vocab_size
    model = tiny_model(seed, text_vocab=vocab, tokenizer="characters", codec=name, codec_options=options)
    tensors = model.state_dict()
    StoredLina(model.config, tensors, codec.state_dict()).save(folder, card="# tiny\n")
    (folder / "voices").mkdir(exist_ok=True)
    state = InitialState.draw(model.initial_state(1), rank=1, scale=1.0, seed=1).requires_grad_(False)
    save_voice(folder / "voices" / "slt.safetensors", Voice(state, fingerprint(tensors), "Generated.", "slt"))
    return folder


def write_recording(path: Path, text: str | None, seconds: float = 1.0, rate: int = 8000) -> Path:
    """Writes a hum that swells, with what is said in it beside it unless ``text`` is None."""
    time = np.arange(round(seconds * rate)) / rate
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, (0.4 * np.sin(2 * np.pi * 180 * time) * np.sin(7 * time) ** 2).astype(np.float32), rate)
    if text is not None:
        path.with_suffix(".txt").write_text(text)
    return path
