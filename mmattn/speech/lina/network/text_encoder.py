"""The text side: its encoder, and the positions that are all the blind cross-attention sees of it.

Source: theodorblackbird/lina-speech.

The encoder is a stack of bidirectional self-attention blocks without a final norm. Queries and keys are rotated in the
first half of every head; there is no output projection. Padding is never attended; a padded row attends itself alone,
so that no row is empty.

Positions are "sinusoidal", with e = 0 .. D/2 - 1 and f_e = 10000^(-2e/D):

    P(p) = [sin(p f_e), sin(p f_e + pi/2)],

or "convolutional": a learned table, then a depthwise convolution of 31 taps over the text. The published code runs it
over the padding of a batch too, so that the last 15 positions of a short text depend on its neighbours; here the rows
of the padding are zero, as the convolution's own, unless ``over_padding`` asks for the published behaviour.

Shapes: B batch, M text tokens, D width, H heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.attention.rotary import RotaryEmbedding
from mmattn.errors import InputError
from mmattn.speech.lina.network.blocks import MixingBlock

__all__ = [
    "CONVOLUTION",
    "TABLE",
    "ConvolutionalPositions",
    "SelfAttention",
    "SinusoidalPositions",
    "TextEncoder",
    "self_attention_mask",
    "sinusoid",
]

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


def self_attention_mask(valid: Tensor) -> Tensor:
    """Returns (B, M, M), True where a text token sees another: both are real.

    Args:
        valid: (B, M) bool, False is padding.

    >>> self_attention_mask(torch.tensor([[True, False]])).tolist()
    [[[True, False], [False, False]]]
    """
    return valid[:, None, :] & valid[:, :, None]


class SelfAttention(nn.Module):
    """Softmax attention of all tokens on all tokens.

    Args:
        dim: Width D.
        num_heads: Heads H; half of a head's width must be even.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rotary = RotaryEmbedding(dim // num_heads // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns (B, M, D).

        Args:
            x: (B, M, D).
            mask: (B, M, M), True where a row may attend, no row empty; None is everywhere.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, M, D / H)
        mask = None if mask is None else mask[:, None]
        mixed = F.scaled_dot_product_attention(self.rotary(q), self.rotary(k), v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)


class TextEncoder(nn.Module):
    """A stack of self-attention blocks.

    Args:
        dim: Width D.
        num_heads: Heads H.
        num_layers: Blocks.
        dropout: Dropout after each block, in training.
    """

    def __init__(self, dim: int, num_heads: int, num_layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MixingBlock(SelfAttention(dim, num_heads), dim, dropout) for _ in range(num_layers))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Returns (B, M, D).

        Args:
            x: (B, M, D) embeddings.
            valid: (B, M) bool, False is padding; None is no padding.
        """
        mask = None
        if valid is not None and not bool(valid.all()):
            mask = self_attention_mask(valid) | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x
