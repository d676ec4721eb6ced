"""One frame of gated linear attention with few and large operations, for generation.

A step of one frame is bound by the number of operations, not by arithmetic. Here the five projections of a layer are
one product and its three convolutions one sum. In float32 the layer's own weights become views of the packed ones, so
nothing is held twice, and loading or training them changes both; lighter weights are copies beside them.

Shapes: B streams, D width, H heads, K and V widths of a head, C = H (2 K + V) channels of q, k and v together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.kernels.linear.gla import gated_linear_attention_step
from mmattn.kernels.products import Precision, step_product

__all__ = ["PackedGla"]


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
