"""Lina-Speech decoding as its description reads: every step recomputes what the cross-attention needs of the text.

This is the straightforward form of arXiv 2410.23320 and of the public code theodorblackbird/lina-speech, on tensors of
its names: keys, values and positions of the whole text are made again for every frame, each projection is a product of
its own, and the recurrence is a step of its definition. The fast form in ``mmattn.speech.lina`` is measured against it.
It covers the published architecture: gated linear attention with short convolutions, blind cross-attention,
convolutional positions.

Shapes: B streams, M text tokens, N audio columns, Q codebooks, V ids, d width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.bench.peers.linear import gla_recurrence_step

__all__ = ["LayerState", "PerStepLina"]

_GATE_DIVISOR = 16.0
_TAPS = 4


class LayerState(NamedTuple):
    """What one layer remembers.

    Attributes:
        recurrent: (B, H, K, V).
        inputs: Last inputs (B, channels, 4) of the q, k and v convolutions.
    """

    recurrent: Tensor
    inputs: list[Tensor]


class PerStepLina:
    """The network, frame by frame.

    Args:
        weights: By their published names.
        text_heads: Heads of the text encoder.
        encode_every_step: Also encode the text again for every frame; the public code does that once.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, text_heads: int, encode_every_step: bool = False) -> None:
        self._weights, self._text_heads, self._encode_every_step = weights, text_heads, encode_every_step
        halves = [
            [f"attentive_rnn.{half}.{i}." for i in range(self._count(f"attentive_rnn.{half}"))]
            for half in ("encoder", "decoder")
        ]
        self._lower, self._upper = halves
        self._cross = "attentive_rnn.cross_att."

    @torch.inference_mode()
    def decode(self, text: Tensor, audio: Tensor) -> Tensor:
        """Returns the logits (B, N, Q, V) after each of N given columns, taken in one by one.

        Args:
            text: (B, M) int, of one length.
            audio: (B, N, Q) int, delayed.
        """
        names = [*self._lower, f"{self._cross}pos_net.", *self._upper]
        states = {name: self._start(name, len(text)) for name in names}
        encoded = self.encode(text)
        logits = []
        for column in audio.unbind(1):
            if self._encode_every_step:
                encoded = self.encode(text)
            logits.append(self._step(column, encoded, states))
        return torch.stack(logits, dim=1)

    def encode(self, text: Tensor) -> Tensor:
        """Returns the encoded text (B, M, d)."""
        x = self._weights["txt_embed.weight"][text]
        for i in range(self._count("txt_encoder.sa")):
            name = f"txt_encoder.sa.{i}."
            parts = self._linear(f"{name}tmix.qkv", self._norm(f"{name}norm1", x)).chunk(3, dim=-1)
            q, k, v = (part.unflatten(-1, (self._text_heads, -1)).transpose(1, 2) for part in parts)
            freqs = self._weights[f"{name}tmix.rotary.freqs"]
            mixed = F.scaled_dot_product_attention(_rotated(q, freqs), _rotated(k, freqs), v)
            x = self._feed_forward(name, x + mixed.transpose(1, 2).flatten(2))
        return x

    def _step(self, column: Tensor, encoded: Tensor, states: dict[str, LayerState]) -> Tensor:
        """Returns the logits (B, Q, V) after a column (B, Q), and replaces the states."""
        tables = self._weights["rvq_embed.weight"]
        y = torch.stack([table[ids] for table, ids in zip(tables, column.unbind(1), strict=True)]).sum(0)
        for name in self._lower:
            y = self._block(name, y, states)
        y = y + self._read(y, encoded, states)
        for name in self._upper:
            y = self._block(name, y, states)
        return torch.einsum("qvd, bd -> bqv", self._weights["logits_head.weight"], y)

    def _read(self, y: Tensor, encoded: Tensor, states: dict[str, LayerState]) -> Tensor:
        """Returns what the blind cross-attention reads of the text (B, d)."""
        cross = self._cross
        q, k, v = (
            self._norm(f"{cross}ln_{part}", self._linear(f"{cross}{part}", of))
            for part, of in (("q", y), ("k", encoded), ("v", encoded))
        )
        rows = self._weights[f"{cross}pos_embed.embed.weight"][: encoded.shape[1]].T[None]
        kernel, bias = (self._weights[f"{cross}pos_embed.dw_conv.{part}"] for part in ("weight", "bias"))
        table = F.conv1d(rows, kernel, bias, padding="same", groups=len(kernel)).transpose(1, 2)
        table = table.expand(len(encoded), -1, -1)
        expected = _attend(q, k, table)
        z = self._block(f"{cross}pos_net.", expected, states)
        return _attend(z, table, v)

    def _block(self, name: str, x: Tensor, states: dict[str, LayerState]) -> Tensor:
        mixed, states[name] = self._mix(f"{name}tmix.", self._norm(f"{name}norm1", x), states[name])
        return self._feed_forward(name, x + mixed)

    def _mix(self, name: str, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Returns what gated linear attention makes of one frame (B, D), and its state."""
        parts, inputs = [], []
        for part, cache in zip("qkv", state.inputs, strict=True):
            cache = torch.cat([cache[..., 1:], self._linear(f"{name}{part}_proj", x)[..., None]], dim=-1)
            out = F.conv1d(cache, self._weights[f"{name}{part}_conv1d.weight"], groups=cache.shape[1])
            parts.append(F.silu(out[..., 0]))
            inputs.append(cache)
        gate = self._linear(f"{name}gk_proj.1", self._linear(f"{name}gk_proj.0", x))
        heads = state.recurrent.shape[1]
        q, k, v, g = (part.unflatten(1, (heads, -1)) for part in (*parts, F.logsigmoid(gate) / _GATE_DIVISOR))
        out, recurrent = gla_recurrence_step(q, k, v, g, state.recurrent)
        norm = self._weights[f"{name}g_norm_swish_gate.weight"]
        swish = F.silu(self._linear(f"{name}g_proj", x)).unflatten(1, (heads, -1))
        out = F.rms_norm(out, norm.shape, norm, 1e-5) * swish
        return self._linear(f"{name}o_proj", out.flatten(1)), LayerState(recurrent, inputs)

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        gate, value = self._linear(f"{name}cmix.p_in", self._norm(f"{name}norm2", x)).chunk(2, dim=-1)
        return x + self._linear(f"{name}cmix.p_out", F.silu(gate) * value)

    def _start(self, name: str, batch: int) -> LayerState:
        widths = [len(self._weights[f"{name}tmix.{part}_proj.weight"]) for part in "qkv"]
        head = len(self._weights[f"{name}tmix.g_norm_swish_gate.weight"])
        heads = widths[2] // head
        like = self._weights["txt_embed.weight"]
        inputs = [like.new_zeros(batch, width, _TAPS) for width in widths]
        return LayerState(like.new_zeros(batch, heads, widths[0] // heads, head), inputs)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _count(self, prefix: str) -> int:
        first = len(prefix.split("."))
        return len({name.split(".")[first] for name in self._weights if name.startswith(f"{prefix}.")})


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns (B, E) for one query (B, D) on k (B, M, D) and v (B, M, E)."""
    scores = (q[:, None] @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
    return (scores.softmax(dim=-1) @ v)[:, 0]


def _rotated(x: Tensor, freqs: Tensor) -> Tensor:
    """Returns x (B, H, M, D), pairs of the first features of every head rotated by their position."""
    angles = torch.arange(x.shape[2], device=x.device)[:, None] * freqs
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., : 2 * len(freqs)].unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([turned, x[..., 2 * len(freqs) :]], dim=-1)
