"""From a spectrum to samples: the inverse short-time Fourier transform at the end of both our decoders.

Source: Vocos, arXiv 2306.00814: a linear layer gives log-magnitude and phase of each frame, and frames overlap.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvNeXtBlock", "InverseSTFT", "SpectrumHead"]


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
