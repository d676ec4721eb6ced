"""Positions of text tokens: what the blind cross-attention is allowed to see of them.

Source: theodorblackbird/lina-speech. "sinusoidal", with e = 0 .. D/2 - 1 and f_e = 10000^(-2e/D):

    P(p) = [sin(p f_e), sin(p f_e + pi/2)].

"convolutional": a learned table, then a depthwise convolution of 31 taps over the text. The published code runs it over
the padding of a batch too, so that the last 15 positions of a short text depend on its neighbours; here the rows of the
padding are zero, as the convolution's own, unless ``over_padding`` asks for the published behaviour.

Shapes: B batch, M text tokens, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmattn.errors import InputError

__all__ = ["CONVOLUTION", "TABLE", "ConvolutionalPositions", "SinusoidalPositions", "sinusoid"]

TABLE = 2000
"""Longest text of convolutional positions, tokens."""

CONVOLUTION = 31
"""Taps of their convolution."""


def sinusoid(positions: Tensor, dim: int) -> Tensor:
    """Returns (..., D) float32 for positions (...).

    >>> sinusoid(torch.tensor([0]), 4).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    exponent = torch.arange(dim // 2, device=positions.device, dtype=torch.float32) * (-2.0 / dim)
    angles = positions.float()[..., None] * 10000.0**exponent
    return torch.cat([angles.sin(), (angles + math.pi / 2).sin()], dim=-1)


class SinusoidalPositions(nn.Module):
    """Fixed sines.

    Args:
        dim: Width D, even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, positions: Tensor, valid: Tensor | None) -> Tensor:
        """Returns (B, M, D); arguments as :meth:`ConvolutionalPositions.forward`, the padding does not matter."""
        return sinusoid(positions, self.dim)


class ConvolutionalPositions(nn.Module):
    """A learned table of 2000 rows and a depthwise convolution.

    Args:
        dim: Width D.
        over_padding: Convolve the padding too.
    """

    def __init__(self, dim: int, *, over_padding: bool = False) -> None:
        super().__init__()
        self.over_padding = over_padding
        self.embed = nn.Embedding(TABLE, dim)
        self.convolution = nn.Conv1d(dim, dim, CONVOLUTION, padding="same", groups=dim)

    def forward(self, positions: Tensor, valid: Tensor | None) -> Tensor:
        """Returns (B, M, D).

        Args:
            positions: (B, M) or (1, M) int.
            valid: (B, M) bool, False is padding; None is no padding.

        Raises:
            InputError: If a text has more tokens than the table has rows.
        """
        if positions.shape[1] > TABLE:
            raise InputError(
                f"The text has {positions.shape[1]} tokens, this model knows {TABLE} positions.",
                "Split it into sentences.",
            )
        rows = self.embed(positions)
        if valid is not None and not self.over_padding:
            rows = rows * valid[..., None]
        out: Tensor = self.convolution(rows.transpose(1, 2))
        return out.transpose(1, 2)
