"""The decoder: recurrent blocks, the cross-attention with a residual, and as many recurrent blocks again.

Source: ``AttentiveGLA`` of theodorblackbird/lina-speech. There is no norm after the last block. The recurrent state has
a constant size; :class:`DecoderState` is never changed in place, so an older one can be taken up again.

Shapes: B batch, N audio frames, M text tokens, d width, L blocks of each half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.network.blocks import MixerState, RecurrentBlock, build_mixer
from mmattn.speech.lina.network.cross_attention import BlindCrossAttention, CrossAttention, TextMemory
from mmattn.speech.lina.network.multihead_cross import PlainCrossAttention, TwoStageCrossAttention

__all__ = ["AttentiveDecoder", "DecoderState"]


@dataclass(frozen=True)
class DecoderState:
    """What the decoder remembers of B streams.

    Attributes:
        layers: States of the 2 L blocks, those before the cross-attention first.
        alignment: State of the cross-attention's own network; empty if it has none.
        position: (B,) int, frames taken in.
    """

    layers: tuple[MixerState, ...]
    alignment: MixerState
    position: Tensor

    @property
    def batch(self) -> int:
        """Streams B."""
        return len(self.position)

    def select(self, rows: Tensor) -> DecoderState:
        """Returns the state of some of the streams, by index (R,); an index may occur more than once."""
        layers = tuple(tuple(tensor[rows] for tensor in layer) for layer in self.layers)
        return DecoderState(layers, tuple(tensor[rows] for tensor in self.alignment), self.position[rows])

    def like(self, other: DecoderState) -> DecoderState:
        """Returns the state on the device and in the precision of another one of the same model."""
        layers = tuple(
            tuple(a.to(b) for a, b in zip(mine, theirs, strict=True))
            for mine, theirs in zip(self.layers, other.layers, strict=True)
        )
        alignment = tuple(a.to(b) for a, b in zip(self.alignment, other.alignment, strict=True))
        return DecoderState(layers, alignment, self.position.to(other.position))

    def for_next_text(self, fresh: DecoderState) -> DecoderState:
        """Returns the state to go on with after a text's end: the voice stays, the place in the text is forgotten.

        Args:
            fresh: :meth:`AttentiveDecoder.initial_state` of as many streams.
        """
        return replace(fresh, layers=self.layers)

    @staticmethod
    def concatenate(states: Sequence[DecoderState]) -> DecoderState:
        """Returns the state of all streams, in order."""
        layers = tuple(
            tuple(torch.cat(tensors) for tensors in zip(*same_layer, strict=True))
            for same_layer in zip(*(state.layers for state in states), strict=True)
        )
        alignment = tuple(torch.cat(tensors) for tensors in zip(*(state.alignment for state in states), strict=True))
        return DecoderState(layers, alignment, torch.cat([state.position for state in states]))


class AttentiveDecoder(nn.Module):
    """Blocks, cross-attention, blocks.

    Args:
        config: Architecture.

    Attributes:
        recompute: Form the blocks' intermediate values again in the backward pass instead of keeping them.
    """

    def __init__(self, config: LinaConfig) -> None:
        super().__init__()
        self.recompute = False

        def block(width: int) -> RecurrentBlock:
            return RecurrentBlock(build_mixer(config, width), width, config.dropout)

        self.lower = nn.ModuleList(block(config.dim) for _ in range(config.num_layers))
        self.cross: CrossAttention
        if config.cross_attention == "blind":
            self.cross = BlindCrossAttention(config, block)
        elif config.cross_attention == "two_stage":
            self.cross = TwoStageCrossAttention(config, block)
        else:
            self.cross = PlainCrossAttention(config)
        self.upper = nn.ModuleList(block(config.dim) for _ in range(config.num_layers))

    def initial_state(self, batch: int) -> DecoderState:
        """Returns the state before the first frame of ``batch`` streams."""
        layers = tuple(block.initial_state(batch) for block in self._blocks())
        position = torch.zeros(batch, dtype=torch.long, device=next(self.parameters()).device)
        return DecoderState(layers, self.cross.initial_state(batch), position)

    def forward(
        self, y: Tensor, memory: TextMemory, state: DecoderState, *, mask: Tensor | None, with_maps: bool = False
    ) -> tuple[Tensor, DecoderState, Tensor | None]:
        """Returns the hidden states (B, N, d), the state after them, and on request the maps (B, A, N, M).

        Args:
            y: (B, N, d) embedded audio.
            memory: Of the texts.
            state: Before the first of the N frames.
            mask: (B, N or 1, M), True may be attended; None is everything.
            with_maps: Return the cross-attention's weights.
        """
        half = len(self.lower)
        y, before = self._run(self.lower, y, state.layers[:half])
        read, alignment, maps = self.cross(
            y, memory, state.alignment, mask=mask, start=state.position, with_maps=with_maps
        )
        y, after = self._run(self.upper, y + read, state.layers[half:])
        return y, DecoderState((*before, *after), alignment, state.position + y.shape[1]), maps

    def _run(
        self, blocks: nn.ModuleList, y: Tensor, states: Sequence[MixerState]
    ) -> tuple[Tensor, tuple[MixerState, ...]]:
        after: list[MixerState] = []
        for block, state in zip(blocks, states, strict=True):
            if self.recompute and torch.is_grad_enabled():
                y, new = checkpoint(block, y, state, use_reentrant=False)
            else:
                y, new = block(y, state)
            after.append(new)
        return y, tuple(after)

    def _blocks(self) -> list[RecurrentBlock]:
        return [block for block in (*self.lower, *self.upper) if isinstance(block, RecurrentBlock)]
