"""The block every part of Lina is made of: mix over time, then over channels, each on a normalised residual.

Source: theodorblackbird/lina-speech. With LN a LayerNorm with bias (eps 1e-5),

    x <- x + mixer(LN_1(x)),    x <- x + SwiGLU(LN_2(x)),    x <- dropout(x).

Shapes: B batch, T length, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.kernels.products import StepLinear

__all__ = ["MixerState", "MixingBlock", "RecurrentBlock", "ResidualBlock", "SwiGLU", "TimeMixer"]

MixerState: TypeAlias = tuple[Tensor, ...]
"""What a mixer remembers: its recurrent matrix (B, H, K, V), then others, each with the batch on the first axis."""


class SwiGLU(nn.Module):
    """Feed-forward ``W_out (silu(gate) * value)`` with ``gate, value = W_in x`` of width ``4 D // 3`` each.

    Args:
        dim: Width D.

    >>> SwiGLU(32).p_in.out_features
    84
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim // 3
        self.p_in = StepLinear(dim, 2 * hidden)
        self.p_out = StepLinear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., D) for (..., D)."""
        gate, value = self.p_in(x).chunk(2, dim=-1)
        out: Tensor = self.p_out(F.silu(gate) * value)
        return out


class ResidualBlock(nn.Module):
    """What both blocks share; a block says how its mixer is called.

    Args:
        mixer: Module over (B, T, D).
        dim: Width D.
        dropout: Probability that a unit of the block's result is dropped in training.
    """

    def __init__(self, mixer: nn.Module, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = SwiGLU(dim)
        self.dropout = nn.Dropout(dropout)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Returns the block's result (B, T, D) of its input ``x`` and of what the mixer made of it."""
        x = x + mixed
        out: Tensor = self.dropout(x + self.feed_forward(self.norm2(x)))
        return out


class MixingBlock(ResidualBlock):
    """A block whose mixer is called with (B, T, D) and a mask, and returns (B, T, D)."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns (B, T, D); the mask is the mixer's."""
        return self.finish(x, self.mixer(self.norm1(x), mask))


class TimeMixer(nn.Module):
    """Base of the mixers that carry a state from call to call."""

    @abstractmethod
    def initial_state(self, batch: int) -> MixerState:
        """Returns the state before the first frame of ``batch`` streams."""

    @abstractmethod
    def forward(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """Returns the mixed frames (B, T, D) and the state after them; the given one is left as it is."""


class RecurrentBlock(ResidualBlock):
    """A block around a :class:`TimeMixer`.

    Args:
        mixer: The mixer.
        dim: Width D.
        dropout: Probability that a unit of the block's result is dropped in training.
    """

    mixer: TimeMixer

    def __init__(self, mixer: TimeMixer, dim: int, dropout: float = 0.0) -> None:
        super().__init__(mixer, dim, dropout)

    def forward(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """Returns (B, T, D) and the state after it; the given state is left as it is."""
        mixed, after = self.mixer(self.norm1(x), state)
        return self.finish(x, mixed), after

    def initial_state(self, batch: int) -> MixerState:
        """Returns the mixer's state before the first frame of ``batch`` streams."""
        return self.mixer.initial_state(batch)
