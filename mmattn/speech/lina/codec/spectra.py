"""Spectra on Slaney's mel scale: what the embedded codec hears and what its losses compare.

The scale is linear up to 1 kHz and logarithmic above (M. Slaney, "Auditory Toolbox", 1998); filters are triangles that
reach 1 at their centres and 0 at their neighbours'.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LogSpectrum", "magnitudes", "mel_filters"]

_LINEAR_HZ = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27
_FLOOR = 1e-5


def mel_filters(num_mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """Returns triangular filters (M, n_fft / 2 + 1), ``float32``, from 0 Hz to half the sample rate.

    >>> mel_filters(80, 640, 16_000).sum(0)[100].item()
    1.0
    """
    top = _to_mel(sample_rate / 2)
    edges = torch.tensor([_to_hz(top * i / (num_mels + 1)) for i in range(num_mels + 2)], dtype=torch.float64)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0).float()


def magnitudes(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """Returns magnitudes (B, n_fft / 2 + 1, ceil(samples / hop)) of waves (B, samples) under a periodic Hann window.

    Frame t is centred on samples ``t * hop ... (t + 1) * hop - 1``; outside the wave there is silence.
    """
    missing = -wave.shape[-1] % hop
    side = n_fft - hop
    padded = functional.pad(wave, (side // 2, side - side // 2 + missing))
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    return torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True).abs()


class LogSpectrum(nn.Module):
    """Logarithms of mel bands and of the lowest plain bins, which keep the harmonics apart; about within [-3, 3].

    Args:
        n_fft: Length of the transform.
        hop: Samples between frames.
        num_mels: Mel bands M.
        num_bins: Plain bins N.
        sample_rate: Hz.
    """

    filters: Tensor

    def __init__(self, n_fft: int, hop: int, num_mels: int, num_bins: int, sample_rate: int) -> None:
        super().__init__()
        self.n_fft, self.hop, self.num_bins = n_fft, hop, num_bins
        self.register_buffer("filters", mel_filters(num_mels, n_fft, sample_rate), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Returns (B, M + N, ceil(samples / hop)) for waves (B, samples)."""
        spectrum = magnitudes(wave, self.n_fft, self.hop)
        bands = torch.cat([self.filters.to(spectrum.dtype) @ spectrum, spectrum[:, : self.num_bins]], dim=1)
        return bands.clamp_min(_FLOOR).log() / 3 + 1


def _to_mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz / _LINEAR_HZ
    return _BREAK_HZ / _LINEAR_HZ + math.log(hertz / _BREAK_HZ) / _LOG_STEP


def _to_hz(mel: float) -> float:
    straight = mel * _LINEAR_HZ
    if straight < _BREAK_HZ:
        return straight
    return _BREAK_HZ * math.exp((mel - _BREAK_HZ / _LINEAR_HZ) * _LOG_STEP)
