"""Waves to spectra and back: what the embedded codec hears and its losses compare, and the end of both our decoders.

Mel bands lie on Slaney's scale, linear up to 1 kHz and logarithmic above (M. Slaney, "Auditory Toolbox", 1998); filters
are triangles that reach 1 at their centres and 0 at their neighbours'. The way back is that of Vocos (arXiv
2306.00814): ConvNeXt blocks, a linear layer that gives log-magnitude and phase of each frame, and frames that overlap.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvNeXtBlock", "InverseSTFT", "LogSpectrum", "SpectrumHead", "magnitudes", "mel_filters"]

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


class ConvNeXtBlock(nn.Module):
    """``x + gamma * W_2 gelu(W_1 LN(dwconv_7(x)))``: sees three frames to each side.

    Args:
        dim: Width D.
        hidden: Width between the two linear layers.
        scale: Initial value of gamma.
        eps: Of the LayerNorm.
    """

    kernel = 7

    def __init__(self, dim: int, hidden: int, scale: float, eps: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, self.kernel, padding=self.kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, D, T) for (B, D, T)."""
        frames = self.norm(self.dwconv(x).transpose(1, 2))
        frames = self.pwconv2(functional.gelu(self.pwconv1(frames))) * self.gamma
        return x + frames.transpose(1, 2)


class InverseSTFT(nn.Module):
    """Overlap-add with a periodic Hann window w: ``y_s = sum_t w x_t / sum_t w^2``, (N - hop) / 2 cut off at each end.

    The cut leaves exactly ``hop`` samples per frame ("same" padding).

    Args:
        n_fft: Length N of window and transform, even.
        hop: Samples between frames; ``N - hop`` must be even.

    Raises:
        ValueError: N is odd, smaller than ``hop``, or ``N - hop`` is odd.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        if n_fft % 2 or n_fft < hop or (n_fft - hop) % 2:
            raise ValueError(f"n_fft is {n_fft} and hop {hop}, expected an even n_fft >= hop and an even difference.")
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Returns samples (B, T * hop) of complex spectra (B, N / 2 + 1, T), T >= 1."""
        window = self.window.to(spectrum.real.dtype)
        frames = torch.fft.irfft(spectrum, self.n_fft, dim=1) * window[:, None]  # (B, N, T)
        energy = window.square()[None, :, None].expand(1, -1, frames.shape[-1])
        return self._overlap(frames) / self._overlap(energy)

    def _overlap(self, frames: Tensor) -> Tensor:
        """Adds frames (B, N, T) at their places and returns (B, T * hop)."""
        length = (frames.shape[-1] - 1) * self.hop + self.n_fft
        added = functional.fold(frames, (1, length), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]
        cut = (self.n_fft - self.hop) // 2
        return added[:, cut : length - cut]


class SpectrumHead(nn.Module):
    """Linear layer to log-magnitude m and phase p, then ``min(exp m, limit) e^(ip)`` and the inverse transform.

    Args:
        dim: Width D of the frames.
        n_fft: Length N of the transform.
        hop: Samples per frame.
        limit: Largest magnitude.
    """

    def __init__(self, dim: int, n_fft: int, hop: int, limit: float = 100.0) -> None:
        super().__init__()
        self.out = nn.Linear(dim, n_fft + 2)
        self.istft = InverseSTFT(n_fft, hop)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        """Returns samples (B, T * hop) of frames (B, T, D); the transform runs in float32 or better."""
        magnitude, phase = self.out(x).transpose(1, 2).chunk(2, dim=1)  # (B, N / 2 + 1, T) each
        if magnitude.dtype not in (torch.float32, torch.float64):
            magnitude, phase = magnitude.float(), phase.float()
        # Clamped before the exponential, whose gradient would otherwise be infinite times zero.
        magnitude = magnitude.clamp_max(math.log(self.limit)).exp()
        samples: Tensor = self.istft(torch.polar(magnitude, phase))
        return samples
