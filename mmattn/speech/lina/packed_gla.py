"""One frame of gated linear attention with few and large operations, for generation.

A step of one frame is bound by the number of operations, not by arithmetic. Here the five projections of a layer are
one product and its three convolutions one sum. The layer's own weights become views of the packed ones, so nothing is
held twice, and loading or training them changes both.

Shapes: B streams, D width, H heads, K and V widths of a head, C = H (2 K + V) channels of q, k and v together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.attention.gla import GatedLinearAttention
from mmattn.kernels.linear.gla import gated_linear_attention_step

__all__ = ["PackedGla"]


class PackedGla:
    """The weights of a layer, laid out for steps.

    Args:
        layer: Whose weights are taken over as views.
    """

    def __init__(self, layer: GatedLinearAttention) -> None:
        self.layer = layer
        low, self._high = layer.gk_proj
        self._projections: list[nn.Module] = [layer.q_proj, layer.k_proj, layer.v_proj, layer.g_proj, low]
        own: list[Tensor] = [part.get_parameter("weight") for part in self._projections]
        self._weight = _share(own)
        self._taps: Tensor | None = None
        if layer.use_short_conv:
            self._taps = _share([c.weight for c in (layer.q_conv1d, layer.k_conv1d, layer.v_conv1d)])[:, 0]

    @property
    def holds(self) -> bool:
        """Whether the layer's weights still are views; moving the model to another device or precision parts them."""
        own = self._projections[0].get_parameter("weight")
        return own.data_ptr() == self._weight.data_ptr() and own.dtype == self._weight.dtype

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the mixed frame (B, 1, D) and the state after it, without gradients.

        Args:
            x: (B, 1, D).
            state: (B, H, K, V) and, with convolutions, their last inputs (B, C, taps), newest last.
        """
        layer = self.layer
        channels, heads = 2 * layer.key_dim + layer.value_dim, layer.num_heads
        products = F.linear(x[:, 0], self._weight)
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
        return layer.o_proj(out)[:, None], (recurrent, *caches)


def _share(parameters: list[Tensor]) -> Tensor:
    """Returns the parameters one below the other, and makes them views of that."""
    with torch.no_grad():
        packed = torch.cat([parameter.detach() for parameter in parameters])
        for parameter, part in zip(parameters, packed.split([len(p) for p in parameters]), strict=True):
            parameter.data = part
    return packed
