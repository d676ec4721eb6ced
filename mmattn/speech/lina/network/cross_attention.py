"""How the decoder reads the text: the blind, position-aware cross-attention, and what all kinds share.

Source: theodorblackbird/lina-speech; the mechanism is Small-E's (arXiv 2406.04467). With c the encoded text and y the
decoder's hidden states,

    q = LN(W_q y),  k = LN(W_k c),  v = LN(W_v c),  P = positions of the text,
    A1 = softmax(q k^T / sqrt(d)),    u = A1 P,             attention by content gives an expected position,
    z = network(u),                                         one causal recurrent block that sees positions alone,
    A2 = softmax(z P^T / sqrt(d_blind)),   out = A2 v.      attention by position chooses what is read.

What reaches the decoder is chosen by position only, which keeps the alignment close to monotonic. There is one head and
no output projection.

Everything of the text (k, v, P) is a :class:`TextMemory`, made once per utterance by :meth:`CrossAttention.remember`.

Shapes: B batch, N audio frames, M text tokens, d width, D width of positions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.attention.rotary import RotaryEmbedding, rotate
from mmattn.kernels.products import StepLinear
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.network.blocks import MixerState, RecurrentBlock
from mmattn.speech.lina.network.text_encoder import ConvolutionalPositions, SinusoidalPositions

__all__ = ["BlindCrossAttention", "CrossAttention", "Projections", "TextMemory", "attend", "cross_mask", "rotate_from"]

BuildBlock = Callable[[int], RecurrentBlock]


@dataclass(frozen=True)
class TextMemory:
    """What is kept of B encoded texts, everything that the decoder's steps need of them.

    Attributes:
        tensors: Each (B, M, ...); which ones is the cross-attention's business.
        valid: (B, M) bool, False is padding; None is no padding.
    """

    tensors: tuple[Tensor, ...]
    valid: Tensor | None

    @property
    def length(self) -> int:
        """Text tokens M, padding included."""
        return self.tensors[0].shape[1]

    @property
    def mask(self) -> Tensor | None:
        """(B, 1, M), what a frame may attend; None is everything."""
        return None if self.valid is None else cross_mask(self.valid)

    def select(self, rows: Tensor) -> TextMemory:
        """Returns the memory of some of the texts, by index (R,)."""
        return TextMemory(tuple(t[rows] for t in self.tensors), None if self.valid is None else self.valid[rows])


def cross_mask(text_valid: Tensor, audio_valid: Tensor | None = None) -> Tensor:
    """Returns (B, N or 1, M), True where a frame may attend a text token: both are real.

    The first token is always visible, so that no row is empty; the rows of the audio's padding see it alone.

    Args:
        text_valid: (B, M) bool.
        audio_valid: (B, N) bool; None gives one row for all frames.

    >>> cross_mask(torch.tensor([[True, True]]), torch.tensor([[True, False]])).tolist()
    [[[True, True], [True, False]]]
    """
    mask = text_valid[:, None, :] if audio_valid is None else text_valid[:, None, :] & audio_valid[:, :, None]
    first = torch.arange(text_valid.shape[1], device=text_valid.device) == 0
    return mask | first


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, *, with_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Returns ``softmax(q k^T / sqrt(D)) v`` and, on request, the weights (..., N, M).

    Args:
        q: (..., N, D).
        k: (..., M, D).
        v: (..., M, E).
        mask: Broadcasts to (..., N, M), True may be attended, no row empty; None is everything.
        dropout: Probability that a weight is dropped.
        with_weights: Form the weights and return them, before dropout.
    """
    if not with_weights:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout), None
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
    weights = scores.softmax(dim=-1)
    return F.dropout(weights, dropout) @ v, weights


def rotate_from(x: Tensor, start: Tensor, freqs: Tensor) -> Tensor:
    """Returns x (B, N, D) rotated, the first row of each item at position ``start (B,)``."""
    positions = start[:, None] + torch.arange(x.shape[1], device=x.device)  # (B, N)
    return rotate(x.flatten(0, 1), positions.flatten(), freqs).view_as(x)


class Projections(nn.Module):
    """Queries of the audio, keys and values of the text, each a Linear and a LayerNorm of the full width.

    Args:
        dim: Width d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v = StepLinear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(dim) for _ in range(3))

    def query(self, y: Tensor) -> Tensor:
        """Returns (B, N, d)."""
        out: Tensor = self.ln_q(self.q(y))
        return out

    def key(self, text: Tensor) -> Tensor:
        """Returns (B, M, d)."""
        out: Tensor = self.ln_k(self.k(text))
        return out

    def value(self, text: Tensor) -> Tensor:
        """Returns (B, M, d)."""
        out: Tensor = self.ln_v(self.v(text))
        return out


class CrossAttention(nn.Module):
    """Base of the kinds of cross-attention.

    Args:
        config: Architecture.
    """

    def __init__(self, config: LinaConfig) -> None:
        super().__init__()
        self.dropout = config.cross_dropout

    @property
    def active_dropout(self) -> float:
        """Dropout of the weights: none at evaluation."""
        return self.dropout if self.training else 0.0

    def initial_state(self, batch: int) -> MixerState:
        """Returns the state before the first frame: empty, unless the attention has a network of its own."""
        return ()

    @abstractmethod
    def remember(self, text: Tensor, valid: Tensor | None, positions: Tensor | None = None) -> TextMemory:
        """Returns what is kept of B texts.

        Args:
            text: (B, M, d), encoded.
            valid: (B, M) bool, False is padding; None is no padding.
            positions: (B, M) int; None counts from 0.
        """

    @abstractmethod
    def forward(
        self,
        y: Tensor,
        memory: TextMemory,
        state: MixerState,
        *,
        mask: Tensor | None,
        start: Tensor,
        with_maps: bool,
    ) -> tuple[Tensor, MixerState, Tensor | None]:
        """Returns what is read of the text (B, N, d), the state after it, and on request the maps (B, A, N, M).

        Args:
            y: (B, N, d).
            memory: Of the texts.
            state: Before the first of the N frames.
            mask: (B, N or 1, M), True may be attended; None is everything.
            start: (B,) int, number of the first frame, for rotary positions.
            with_maps: Return the weights of the A attentions; the last of them is what the output is made of.
        """


class BlindCrossAttention(CrossAttention):
    """The attention of the module's description; its maps are A1 (content) and A2 (position).

    Args:
        config: Architecture.
        build_block: Makes the network over positions, a block of the given width.
    """

    def __init__(self, config: LinaConfig, build_block: BuildBlock) -> None:
        super().__init__(config)
        width = config.blind_dim
        self.projections = Projections(config.dim)
        self.positions: nn.Module = (
            ConvolutionalPositions(width, over_padding=config.positions_over_padding)
            if config.position == "convolutional"
            else SinusoidalPositions(width)
        )
        self.network = build_block(width)
        self.rotary = RotaryEmbedding(config.dim // 2) if config.cross_rotary else None

    def initial_state(self, batch: int) -> MixerState:
        """See :meth:`CrossAttention.initial_state`."""
        return self.network.initial_state(batch)

    def remember(self, text: Tensor, valid: Tensor | None, positions: Tensor | None = None) -> TextMemory:
        """See :meth:`CrossAttention.remember`."""
        k, v = self.projections.key(text), self.projections.value(text)
        if self.rotary is not None:
            k = self.rotary(k)
        if positions is None:
            positions = torch.arange(text.shape[1], device=text.device)[None]
        table = self.positions(positions, valid).to(text.dtype)
        return TextMemory((k, v, table.expand(len(text), -1, -1)), valid)

    def forward(
        self,
        y: Tensor,
        memory: TextMemory,
        state: MixerState,
        *,
        mask: Tensor | None,
        start: Tensor,
        with_maps: bool,
    ) -> tuple[Tensor, MixerState, Tensor | None]:
        """See :meth:`CrossAttention.forward`."""
        k, v, table = memory.tensors
        q = self.projections.query(y)
        if self.rotary is not None:
            q = rotate_from(q, start, self.rotary.freqs)
        expected, content = attend(q, k, table, mask, self.active_dropout, with_weights=with_maps)
        z, state = self.network(expected, state)
        out, position = attend(z, table, v, mask, self.active_dropout, with_weights=with_maps)
        if content is None or position is None:
            return out, state, None
        return out, state, torch.stack([content, position], dim=1)
