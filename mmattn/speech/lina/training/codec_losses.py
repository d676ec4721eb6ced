"""What a decoded wave is compared by: spectra at several resolutions (arXiv 1910.11480, section 2.2).

At each resolution, with mel bands M and magnitudes S of the original and M^, S^ of the copy:

    loss = mean |log M - log M^| + 1/2 mean |log S - log S^| + 1/2 |S - S^|_F / |S|_F
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmattn.speech.lina.codec.spectra import magnitudes, mel_filters

__all__ = ["RESOLUTIONS", "MultiResolutionLoss", "Resolution", "log_mel_distance"]

_MEL_FLOOR, _BIN_FLOOR = 1e-5, 1e-3


class Resolution(NamedTuple):
    """Length of the transform and step between frames in samples, and number of mel bands."""

    n_fft: int
    hop: int
    num_mels: int


RESOLUTIONS = (Resolution(1024, 256, 80), Resolution(512, 128, 80), Resolution(256, 64, 40))
"""For 16 kHz."""


class MultiResolutionLoss(nn.Module):
    """Mean of the loss over resolutions.

    Args:
        sample_rate: Hz.
        resolutions: Which.
    """

    def __init__(self, sample_rate: int, resolutions: Sequence[Resolution] = RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = tuple(Resolution(*r) for r in resolutions)
        for i, r in enumerate(self.resolutions):
            self.register_buffer(f"filters{i}", mel_filters(r.num_mels, r.n_fft, sample_rate), persistent=False)

    def forward(self, copy: Tensor, original: Tensor) -> Tensor:
        """Returns the loss, a scalar, of waves (B, samples)."""
        losses = []
        for i, (n_fft, hop, _) in enumerate(self.resolutions):
            filters = self.get_buffer(f"filters{i}").to(copy.dtype)
            got, want = magnitudes(copy, n_fft, hop), magnitudes(original, n_fft, hop)
            mel = _log_distance(filters @ got, filters @ want, _MEL_FLOOR)
            bins = _log_distance(got, want, _BIN_FLOOR)
            size = torch.linalg.vector_norm(want, dim=(1, 2)).clamp_min(_BIN_FLOOR)
            convergence = (torch.linalg.vector_norm(want - got, dim=(1, 2)) / size).mean()
            losses.append(mel + 0.5 * bins + 0.5 * convergence)
        return torch.stack(losses).mean()


def log_mel_distance(copy: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Returns the mean distance of log mel bands of waves (B, samples): natural logarithms, 80 bands, 1024 points.

    >>> wave = torch.randn(1, 4000)
    >>> round(log_mel_distance(wave * 0.5, wave, 16_000).item(), 3)
    0.693
    """
    n_fft, hop, num_mels = RESOLUTIONS[0]
    filters = mel_filters(num_mels, n_fft, sample_rate).to(copy)
    return _log_distance(filters @ magnitudes(copy, n_fft, hop), filters @ magnitudes(original, n_fft, hop), _MEL_FLOOR)


def _log_distance(got: Tensor, want: Tensor, floor: float) -> Tensor:
    return (got.clamp_min(floor).log() - want.clamp_min(floor).log()).abs().mean()
