"""Cross-attentions of several heads, the alternatives to the blind one.

Source: theodorblackbird/lina-speech. ``PlainCrossAttention`` is softmax attention with LayerNorms after the projections
and no output projection. ``TwoStageCrossAttention`` attends by content, lets a recurrent block look at the positions
that were found, and attends by position:

    u = CA_1(query = y, key = c, value = c + p),   z = block(u),   out = CA_2(query = z, key = c + p, value = c),

with learned positions p. The published code of the second cannot be constructed around GLA and its first passes masks
of the wrong rank; there are no numbers to compare with beyond the layer itself.

Shapes: B batch, N audio frames, M text tokens, d width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.attention.rotary import RotaryEmbedding
from mmattn.errors import InputError
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.network.blocks import MixerState
from mmattn.speech.lina.network.cross_attention import (
    BuildBlock,
    CrossAttention,
    Projections,
    TextMemory,
    attend,
    rotate_from,
)

__all__ = ["LEARNED_POSITIONS", "PlainCrossAttention", "TwoStageCrossAttention"]

LEARNED_POSITIONS = 512
"""Longest text of :class:`TwoStageCrossAttention`, tokens."""


class PlainCrossAttention(CrossAttention):
    """Softmax attention of H heads; its map is their mean.

    Args:
        config: Architecture.
    """

    def __init__(self, config: LinaConfig) -> None:
        super().__init__(config)
        self.num_heads = config.cross_heads
        self.projections = Projections(config.dim)
        self.rotary = RotaryEmbedding(config.dim // self.num_heads // 2) if config.cross_rotary else None

    def remember(self, text: Tensor, valid: Tensor | None, positions: Tensor | None = None) -> TextMemory:
        """See :meth:`CrossAttention.remember`; positions matter to rotary keys alone."""
        k, v = self.projections.key(text), self.projections.value(text)
        if self.rotary is not None:
            start = torch.zeros(len(k), dtype=torch.long, device=k.device)
            k = self._rotated(k, start if positions is None else positions[:, 0])
        return TextMemory((k, v), valid)

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
        q = self.queries(y, start)
        k, v = memory.tensors
        out, weights = multihead(q, k, v, self.num_heads, mask, self.active_dropout, with_weights=with_maps)
        return out, state, None if weights is None else weights.mean(dim=1, keepdim=True)

    def queries(self, y: Tensor, start: Tensor) -> Tensor:
        """Returns what the text is asked for, (B, N, d), rotated from frame ``start (B,)`` on."""
        return self._rotated(self.projections.query(y), start)

    def _rotated(self, x: Tensor, start: Tensor) -> Tensor:
        """Returns x (B, N, d) with each head rotated, the first row of each item at ``start (B,)``."""
        if self.rotary is None:
            return x
        heads = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, N, d / H)
        starts = start.repeat_interleave(self.num_heads)
        return rotate_from(heads.flatten(0, 1), starts, self.rotary.freqs).view_as(heads).transpose(1, 2).flatten(2)


class TwoStageCrossAttention(CrossAttention):
    """Attention by content, a recurrent block, attention by position; its maps are the heads' means of both.

    Args:
        config: Architecture.
        build_block: Makes the block between, of the given width.
    """

    def __init__(self, config: LinaConfig, build_block: BuildBlock) -> None:
        super().__init__(config)
        self.num_heads = config.cross_heads
        self.content = Projections(config.dim)
        self.network = build_block(config.dim)
        self.position = Projections(config.dim)
        self.positions = nn.Embedding(LEARNED_POSITIONS, config.dim)

    def initial_state(self, batch: int) -> MixerState:
        """See :meth:`CrossAttention.initial_state`."""
        return self.network.initial_state(batch)

    def remember(self, text: Tensor, valid: Tensor | None, positions: Tensor | None = None) -> TextMemory:
        """See :meth:`CrossAttention.remember`.

        Raises:
            InputError: If a text has more tokens than there are positions.
        """
        if text.shape[1] > LEARNED_POSITIONS:
            raise InputError(
                f"The text has {text.shape[1]} tokens, this model knows {LEARNED_POSITIONS} positions.",
                "Split it into sentences.",
            )
        if positions is None:
            positions = torch.arange(text.shape[1], device=text.device)[None]
        placed = text + self.positions(positions)
        by_content = (self.content.key(text), self.content.value(placed))
        return TextMemory((*by_content, self.position.key(placed), self.position.value(text)), valid)

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
        k1, v1, k2, v2 = memory.tensors
        heads, dropout = self.num_heads, self.active_dropout
        found, first = multihead(self.content.query(y), k1, v1, heads, mask, dropout, with_weights=with_maps)
        z, state = self.network(found, state)
        out, second = multihead(self.position.query(z), k2, v2, heads, mask, dropout, with_weights=with_maps)
        if first is None or second is None:
            return out, state, None
        return out, state, torch.stack([first.mean(1), second.mean(1)], dim=1)


def multihead(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, mask: Tensor | None, dropout: float, *, with_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Returns the attention (B, N, d) of ``num_heads`` heads and on request their weights (B, H, N, M).

    Args:
        q: (B, N, d).
        k: (B, M, d).
        v: (B, M, d).
        num_heads: Heads H.
        mask: (B, N or 1, M), True may be attended; None is everything.
        dropout: Probability that a weight is dropped.
        with_weights: Return the weights too.
    """
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    # All heads see the same: the published code lets a mask of three axes meet the heads instead.
    mask = None if mask is None else mask[:, None]
    out, weights = attend(q, k, v, mask, dropout, with_weights=with_weights)
    return out.transpose(1, 2).flatten(2), weights
