"""The initial states of all training voices, learned together with the weights.

The paper tunes a state on a finished model. A small model that is to speak with many voices learns which part of its
state is the voice only if every training voice has a state of its own from the beginning (differs from the paper);
a new voice is then found by tuning, as published.

Shapes: S voices, B streams, r rank, H heads, K and V sizes of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.speech.lina.network.blocks import MixerState
from mmattn.speech.lina.network.decoder import DecoderState
from mmattn.speech.lina.voices.state import InitialState

__all__ = ["VoiceTable"]


class VoiceTable(nn.Module):
    """A sum of r outer products for every voice and recurrent block, random at first.

    Args:
        like: State of one stream, for the shapes.
        voices: Number of voices S.
        rank: Products r of each state.
        spread: Standard deviation of a product's second factor at first; that of the other is 1.
    """

    def __init__(self, like: DecoderState, voices: int, *, rank: int = 1, spread: float = 0.02) -> None:
        super().__init__()
        shapes = [layer[0].shape[1:] for layer in like.layers]
        self.keys = nn.ParameterList(torch.randn(voices, rank, h, k, 1) for h, k, _ in shapes)
        self.values = nn.ParameterList(spread * torch.randn(voices, rank, h, 1, v) for h, _, v in shapes)

    def forward(self, fresh: DecoderState, voices: Tensor) -> DecoderState:
        """Returns the state to start B streams from; gradients flow to the table.

        Args:
            fresh: The model's own start of B streams.
            voices: (B,) int numbers of the voices; a negative one leaves the model's own start.
        """
        known = (voices >= 0).view(-1, 1, 1, 1)
        rows = voices.clamp_min(0)
        layers: list[MixerState] = []
        for key, value, layer in zip(self.keys, self.values, fresh.layers, strict=True):
            product = (key[rows] @ value[rows]).sum(dim=1)  # (B, H, K, V)
            layers.append((torch.where(known, product.to(layer[0].dtype), layer[0]), *layer[1:]))
        return DecoderState(tuple(layers), fresh.alignment, fresh.position)

    def voice(self, number: int) -> InitialState:
        """Returns a copy of one voice, in the form of a tuned one."""
        tensors: dict[str, Tensor] = {}
        for i, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            tensors[f"layer{i}_k"] = key[number : number + 1].detach().clone()
            tensors[f"layer{i}_v"] = value[number : number + 1].detach().clone()
        return InitialState(tensors, scale=1.0)
