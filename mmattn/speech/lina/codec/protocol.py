"""What Lina asks of a codec: audio to tokens and back.

Shapes: B batch, Q codebooks, T frames. Waves are mono ``float32`` (B, samples), nominally in [-1, 1]; codes are
``int64`` in [0, codebook_size). A frame lasts ``hop`` samples, and T frames decode to exactly ``T * hop`` samples.

The codecs differ in what a frame depends on. Convolutions see a few frames to each side, and a piece of the tokens with
that ``context`` around it decodes to the samples of the whole; attention, group norms and LSTMs see everything, and
pieces only come close (:mod:`.stream`).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Codec", "check_codes", "check_wave", "snr_db"]


class Codec(Protocol):
    """Encodes waves as discrete frames and decodes them."""

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""

    @property
    def hop(self) -> int:
        """Samples per frame."""

    @property
    def codebooks(self) -> int:
        """Tokens per frame Q."""

    @property
    def codebook_size(self) -> int:
        """Number of tokens of each codebook."""

    @property
    def context(self) -> int | None:
        """Frames on each side that a decoded frame depends on; None where it depends on all."""

    def encode(self, wave: Tensor) -> Tensor:
        """Returns codes (B, Q, ceil(samples / hop)) of a wave (B, samples); the last frame is completed by padding."""

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the wave (B, T * hop) of codes (B, Q, T)."""


def check_wave(wave: Tensor) -> None:
    """Checks the input of :meth:`Codec.encode`.

    Raises:
        ValueError: ``wave`` is not a floating (B, samples).
    """
    if wave.ndim != 2 or not wave.is_floating_point():
        raise ValueError(f"Got a wave of shape {tuple(wave.shape)} and {wave.dtype}, expected floats (batch, samples).")


def check_codes(codec: Codec, codes: Tensor) -> None:
    """Checks the input of :meth:`Codec.decode`.

    Raises:
        ValueError: ``codes`` is not an integer (B, Q, T), or a code lies outside its codebook.
    """
    if codes.ndim != 3 or codes.shape[1] != codec.codebooks or codes.is_floating_point():
        raise ValueError(
            f"Got codes of shape {tuple(codes.shape)} and {codes.dtype}, expected integers (batch, {codec.codebooks}, "
            "frames)."
        )
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codec.codebook_size:
        raise ValueError(
            f"Got codes from {int(codes.min())} to {int(codes.max())}, expected [0, {codec.codebook_size})."
        )


def snr_db(reference: Tensor, estimate: Tensor) -> Tensor:
    """Returns the signal-to-noise ratio in dB of waves (..., samples) against their reference, (...); inf if equal.

    >>> snr_db(torch.tensor([1.0, -1.0]), torch.tensor([0.9, -0.9])).round().item()
    20.0
    """
    signal = reference.double().square().sum(-1)
    noise = (reference.double() - estimate.double()).square().sum(-1)
    ratio: Tensor = 10 * torch.log10(signal / noise)
    return torch.where(noise == 0, torch.full_like(ratio, torch.inf), ratio)
