"""The block every part of Lina is made of, and what mixes over time in the decoder's.

A block mixes over time, then over channels, each on a normalised residual. Source: theodorblackbird/lina-speech. With
LN a LayerNorm with bias (eps 1e-5),

    x <- x + mixer(LN_1(x)),    x <- x + SwiGLU(LN_2(x)),    x <- dropout(x).

The decoder's mixers are :mod:`mmattn.attention.recurrent`'s: gated linear attention, simple GLA or RWKV6. Here their
states are plain tuples of tensors with the batch on the first axis, so that streams can be selected, repeated and put
together whatever the layer.

A step of one frame is bound by the number of operations, not by arithmetic. For it the five projections of a gated
linear attention are one product and its three convolutions one sum (:class:`PackedGla`). In float32 the layer's own
weights become views of the packed ones, so nothing is held twice, and loading or training them changes both; lighter
weights are copies beside them.

Shapes: B streams, T frames, D width, H heads, K and V widths of a head, C = H (2 K + V) channels of q, k, v together.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.attention.recurrent.qkv_mixer import MixerState as QkvState
from mmattn.attention.recurrent.qkv_mixer import QkvMixer
from mmattn.attention.recurrent.rwkv6 import Rwkv6, Rwkv6State
from mmattn.attention.recurrent.simple_gla import SimpleGatedLinearAttention
from mmattn.kernels.linear.gla import gated_linear_attention_step
from mmattn.kernels.products import Packable, Packed, Precision, StepLinear, step_product
from mmattn.speech.lina.config import LinaConfig

__all__ = [
    "MixerState",
    "MixingBlock",
    "PackedGla",
    "QkvTimeMixer",
    "RecurrentBlock",
    "ResidualBlock",
    "Rwkv6TimeMixer",
    "SwiGLU",
    "TimeMixer",
    "build_mixer",
]

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


class PackedGla:
    """The weights of a layer, laid out for steps.

    Args:
        layer: Whose weights are taken over, as views in "float32".
        precision: Of the weights of the two large products.

    Attributes:
        weights: Those that it was made of.
    """

    def __init__(self, layer: GatedLinearAttention, precision: Precision) -> None:
        self.layer = layer
        low, self._high = layer.gk_proj
        projections: list[nn.Module] = [layer.q_proj, layer.k_proj, layer.v_proj, layer.g_proj, low]
        own: list[Tensor] = [part.get_parameter("weight") for part in projections]
        weight = _share(own) if precision == "float32" else torch.cat([part.detach() for part in own])
        self._project_in = step_product(weight, None, precision)
        self._project_out = step_product(layer.o_proj.weight, None, precision)
        self._taps: Tensor | None = None
        if layer.use_short_conv:
            self._taps = _share([c.weight for c in (layer.q_conv1d, layer.k_conv1d, layer.v_conv1d)])[:, 0]
        self.weights = [*own, layer.o_proj.weight]

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the mixed frame (B, 1, D) and the state after it, without gradients.

        Args:
            x: (B, 1, D).
            state: (B, H, K, V) and, with convolutions, their last inputs (B, C, taps), newest last.
        """
        layer = self.layer
        channels, heads = 2 * layer.key_dim + layer.value_dim, layer.num_heads
        products = self._project_in(x[:, 0])
        qkv, gate, low = products.split([channels, layer.value_dim, products.shape[1] - channels - layer.value_dim], 1)
        caches: tuple[Tensor, ...] = ()
        if self._taps is not None:
            cache = torch.cat([state[1][:, :, 1:], qkv[:, :, None]], dim=2)
            qkv, caches = F.silu((cache * self._taps).sum(dim=2)), (cache,)
        q, k, v = (
            part.unflatten(1, (heads, -1)) for part in qkv.split([layer.key_dim, layer.key_dim, layer.value_dim], 1)
        )
        decay = F.logsigmoid(self._high(low)).unflatten(1, (heads, -1)) / layer.gate_logit_normalizer
        out, recurrent = gated_linear_attention_step(q, k, v, decay, state[0])
        out = layer.g_norm_swish_gate(out, gate.unflatten(1, (heads, -1))).flatten(1)
        return self._project_out(out)[:, None], (recurrent, *caches)


def _share(parameters: list[Tensor]) -> Tensor:
    """Returns the parameters one below the other, and makes them views of that."""
    with torch.no_grad():
        packed = torch.cat([parameter.detach() for parameter in parameters])
        for parameter, part in zip(parameters, packed.split([len(p) for p in parameters]), strict=True):
            parameter.data = part
    return packed


def build_mixer(config: LinaConfig, width: int) -> TimeMixer:
    """Returns the mixer of a block: called with (B, T, D) and a state, it returns (B, T, D) and the next state.

    Args:
        config: Architecture.
        width: Width D of the block, ``config.dim`` or that of the positions.
    """
    heads, expand_k, expand_v = config.num_heads, config.expand_k, config.expand_v
    if config.mixer == "rwkv6":
        return Rwkv6TimeMixer(Rwkv6(width, num_heads=heads, expand_k=expand_k, expand_v=expand_v))
    layer = SimpleGatedLinearAttention if config.mixer == "simple_gla" else GatedLinearAttention
    return QkvTimeMixer(
        layer(
            width,
            num_heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            use_short_conv=config.short_conv,
            gate_logit_normalizer=config.gate_normalizer,
        )
    )


class QkvTimeMixer(Packable, TimeMixer):
    """Gated linear attention or simple GLA; the state is (B, H, K, V) and, with convolutions, their last inputs.

    These are (B, C, taps), newest last, the channels C of q, k and v below each other.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: QkvMixer) -> None:
        super().__init__()
        self.layer = layer

    def pack(self, precision: Precision = "float32") -> None:
        """Lays the weights of gated linear attention out for steps of one frame; see :class:`PackedGla`."""
        if isinstance(self.layer, GatedLinearAttention):
            packed = PackedGla(self.layer, precision)
            self.packed = Packed(packed, packed.weights, reads=precision == "float32")

    def initial_state(self, batch: int) -> MixerState:
        """See :meth:`TimeMixer.initial_state`: zeros."""
        layer, like = self.layer, self.layer.q_proj.weight
        keys, values = layer.key_dim, layer.value_dim
        recurrent = like.new_zeros(
            (batch, layer.num_heads, keys // layer.num_heads, values // layer.num_heads),
            dtype=torch.promote_types(like.dtype, torch.float32),
        )
        if not layer.use_short_conv:
            return (recurrent,)
        taps = layer.q_conv1d.kernel_size[0]
        return recurrent, like.new_zeros(batch, 2 * keys + values, taps)

    def forward(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """See :meth:`TimeMixer.forward`."""
        packed = self.packed
        if packed is not None and x.shape[1] == 1 and packed.serves(x):
            return packed.value.step(x, state)
        layer, caches = self.layer, None
        if layer.use_short_conv:
            q, k, v = state[1].split([layer.key_dim, layer.key_dim, layer.value_dim], dim=1)
            caches = (q, k, v)
        mixed, after = layer(x, QkvState(state[0], caches))
        return mixed, (after.recurrent,) if after.conv is None else (after.recurrent, torch.cat(after.conv, dim=1))


class Rwkv6TimeMixer(TimeMixer):
    """RWKV6; the state is (B, H, K, V) and the last input (B, D).

    Args:
        layer: The layer.
    """

    def __init__(self, layer: Rwkv6) -> None:
        super().__init__()
        self.layer = layer

    def initial_state(self, batch: int) -> MixerState:
        """See :meth:`TimeMixer.initial_state`: zeros."""
        layer, like = self.layer, self.layer.o_proj.weight
        heads, keys = layer.bonus.shape
        recurrent = like.new_zeros(
            (batch, heads, keys, like.shape[1] // heads), dtype=torch.promote_types(like.dtype, torch.float32)
        )
        return recurrent, like.new_zeros(batch, layer.dim)

    def forward(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """See :meth:`TimeMixer.forward`."""
        recurrent, last = state
        mixed, after = self.layer(x, Rwkv6State(recurrent, last))
        return mixed, (after.recurrent, after.last)
