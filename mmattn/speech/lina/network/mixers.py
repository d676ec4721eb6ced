"""What mixes over time in the decoder's blocks: gated linear attention, simple GLA or RWKV6 with one kind of state.

The layers are :mod:`mmattn.attention`'s. Here their states are plain tuples of tensors with the batch on the first
axis, so that streams can be selected, repeated and put together whatever the layer.

Shapes: B streams, T frames, D width, H heads, K and V widths of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.attention.recurrent.qkv_mixer import MixerState as QkvState
from mmattn.attention.recurrent.qkv_mixer import QkvMixer
from mmattn.attention.recurrent.rwkv6 import Rwkv6, Rwkv6State
from mmattn.attention.recurrent.simple_gla import SimpleGatedLinearAttention
from mmattn.kernels.products import Packable, Packed, Precision
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.network.blocks import MixerState, TimeMixer
from mmattn.speech.lina.network.packed_gla import PackedGla

__all__ = ["QkvTimeMixer", "Rwkv6TimeMixer", "build_mixer"]


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
        """Lays the weights of gated linear attention out for steps of one frame; see :class:`.packed_gla.PackedGla`."""
        if isinstance(self.layer, GatedLinearAttention):
            packed = PackedGla(self.layer, precision)
            self.packed = Packed(packed, packed.weights, reads=precision == "float32")

    def initial_state(self, batch: int) -> MixerState:
        """See :meth:`.blocks.TimeMixer.initial_state`: zeros."""
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
        """See :meth:`.blocks.TimeMixer.forward`."""
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
        """See :meth:`.blocks.TimeMixer.initial_state`: zeros."""
        layer, like = self.layer, self.layer.o_proj.weight
        heads, keys = layer.bonus.shape
        recurrent = like.new_zeros(
            (batch, heads, keys, like.shape[1] // heads), dtype=torch.promote_types(like.dtype, torch.float32)
        )
        return recurrent, like.new_zeros(batch, layer.dim)

    def forward(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """See :meth:`.blocks.TimeMixer.forward`."""
        recurrent, last = state
        mixed, after = self.layer(x, Rwkv6State(recurrent, last))
        return mixed, (after.recurrent, after.last)
