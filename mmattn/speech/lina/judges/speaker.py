"""Whose voice it is: the speaker encoder that the package Resemblyzer (Apache-2.0) brings.

Source: Wan et al., "Generalized end-to-end loss for speaker verification" (arXiv 1710.10467); weights of
resemble-ai/Resemblyzer, trained on recordings of thousands of people. Only its file of weights is needed: the network
is three recurrent layers, and the package's own code asks for more than this project installs.

Differs from the package in that pauses are not cut out, windows overlap by half, and every recording is brought to one
level, where the package only raises quiet ones.

Shapes: N samples, W windows, F frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.errors import CheckpointError
from mmattn.speech.lina.codec.spectra import mel_filters
from mmattn.speech.lina.judges.judge import SAMPLE_RATE, Wave, heard_wave, packaged_file

__all__ = ["Embedding", "SpeakerJudge", "similarity", "voice_centroids"]

Embedding = npt.NDArray[np.float32]

_MELS, _WIDTH, _LAYERS = 40, 256, 3
_FFT, _HOP = 400, 160
_FRAMES, _STEP = 160, 80
"""Of a window: 1.6 s, and half of it."""
_COVERED = 0.75
"""A last window with less sound in it is left out."""
_LEVEL = 10 ** (-20 / 20)
"""Root mean square of all recordings: the encoder takes loudness for a part of the voice, half of it for 0.07."""


class SpeakerJudge(nn.Module):
    """Turns speech into a vector of unit length that is near for recordings of one voice.

    Args:
        weights: File of weights; None takes the installed package's.

    Raises:
        InputError: If the package is not installed.
        CheckpointError: If the file holds something else.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_MELS, _WIDTH, _LAYERS, batch_first=True)
        self.linear = nn.Linear(_WIDTH, _WIDTH)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
        self.register_buffer("filters", _even_filters(), persistent=False)
        file = weights or packaged_file("resemblyzer", "pretrained.pt", "Resemblyzer", "Judging voices")
        self._load(file)
        self.eval().requires_grad_(False)

    def _load(self, file: Path) -> None:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
            own = {name: state[name] for name in self.state_dict()}
            self.load_state_dict(own)
        except (OSError, KeyError, TypeError, RuntimeError, UnpicklingError) as error:
            raise CheckpointError(f"{file} does not hold the weights of a speaker encoder: {error}.") from error

    @torch.no_grad()
    def forward(self, bands: Tensor) -> Tensor:
        """Returns unit vectors (W, 256) of windows (W, F, 40) of mel powers."""
        _, (hidden, _) = self.lstm(bands)
        return functional.normalize(self.linear(hidden[-1]).relu(), dim=-1)

    def embed(self, wave: Wave, sample_rate: int) -> Embedding:
        """Returns the vector (256,), ``float32``, of a recording: the mean over its windows, at unit length.

        Args:
            wave: (N,) ``float32`` in [-1, 1].
            sample_rate: Hz.

        Raises:
            InputError: If the wave is empty, not one-dimensional or not finite.
        """
        samples = torch.from_numpy(heard_wave(wave, sample_rate))
        samples = samples * (_LEVEL / samples.square().mean().sqrt().clamp_min(1e-8))
        covered = _FRAMES * _HOP
        # As many windows as begin with sound enough; a shorter recording is one window, filled up with silence.
        count = max(0, int((len(samples) - _COVERED * covered) // (_STEP * _HOP))) + 1
        missing = (count - 1) * _STEP * _HOP + covered - len(samples)
        bands = self._bands(functional.pad(samples, (0, max(missing, 0))))
        windows = bands.unfold(0, _FRAMES, _STEP)[:count].transpose(1, 2)
        mean: Tensor = functional.normalize(self(windows).mean(0), dim=0)
        return np.asarray(mean.numpy(), dtype=np.float32)

    def _bands(self, samples: Tensor) -> Tensor:
        """Returns mel powers (F, 40), a frame centred on every 160th sample."""
        spectrum = torch.stft(
            samples, _FFT, _HOP, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        return (self.filters @ spectrum.abs().square()).T


def similarity(first: Embedding, second: Embedding) -> float:
    """Returns the cosine between two vectors: about 0.9 for two recordings of one voice, 0.5 to 0.7 for two voices."""
    return float(first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-12))


def voice_centroids(embeddings: Mapping[str, Iterable[Embedding]]) -> dict[str, Embedding]:
    """Returns each voice's mean vector, at unit length.

    Raises:
        ValueError: If a voice has no vector.
    """
    return {voice: _centroid(voice, list(vectors)) for voice, vectors in embeddings.items()}


def _centroid(voice: str, vectors: Sequence[Embedding]) -> Embedding:
    if not vectors:
        raise ValueError(f"Voice {voice!r} has no recording to take the mean of.")
    mean = np.stack(vectors).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def _even_filters() -> Tensor:
    """Returns mel filters (40, 201) of equal area, so that white noise is as strong in each."""
    fine = 1 << 16
    areas = mel_filters(_MELS, fine, SAMPLE_RATE).sum(1, keepdim=True) * (SAMPLE_RATE / fine)
    return mel_filters(_MELS, _FFT, SAMPLE_RATE) / areas
