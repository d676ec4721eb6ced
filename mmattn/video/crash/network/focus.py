"""Temporal focus attention (TFA): the last hidden states attend to each other before every GRU step.

Source: arXiv 2407.17757 and ``RSDlayerAttention.py`` of Petrichor625/CRASH. Each GRU layer has a stack of its own. On
the window x_0 (K states), layer i = 1..n computes

    a = MHA(x_{i-1}),   x_i = softmax_features(gelu(W a + b)) + a,

without output projection, residual, norm, mask or positional code; with P_i the mean of x_i over the window, the
stack's result is ``sum_i softmax(w)_i P_i``. Order within the window therefore does not matter. The published code
then takes a softmax over the features, which turns the GRU's memory into a probability vector; see ``output``.

What the first layer needs of a state does not change while the state is in the window: :meth:`TemporalFocus.project`
computes it once per state instead of once per state and frame.

Shapes: L stacks, B clips, K states, D width, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.kernels import attention
from mmattn.kernels.products import Linear, stacked
from mmattn.video.crash.config import TfaOutput

__all__ = ["TemporalFocus"]


class TemporalFocus(nn.Module):
    """L stacks of attention over a window of hidden states, run side by side.

    Args:
        dim: Width D.
        num_stacks: Stacks L, one per GRU layer.
        num_layers: Attention layers of a stack.
        num_heads: Heads H.
        output: What becomes of the aggregated states, see :class:`.config.CrashConfig`.
    """

    def __init__(
        self, dim: int, num_stacks: int = 2, num_layers: int = 3, num_heads: int = 8, output: TfaOutput = "softmax"
    ) -> None:
        super().__init__()
        self.output = output
        self.layers = nn.ModuleList(FocusLayer(dim, num_stacks, num_heads) for _ in range(num_layers))
        self.mix = nn.Parameter(torch.randn(num_stacks * (num_layers + 1)))  # w, stack after stack
        has_norms = output in ("layernorm", "residual")
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_stacks if has_norms else 0))

    def project(self, hidden: Tensor) -> Tensor:
        """Returns what the first layer keeps of states (L, ..., D): queries, keys and values (L, ..., 3D)."""
        first: Any = self.layers[0]
        return stacked(first.qkv, hidden)

    def forward(self, states: Tensor, projected: Tensor | None = None) -> Tensor:
        """Returns the fused hidden states (L, B, D) of a window.

        Args:
            states: (L, B, K, D), the newest last.
            projected: :meth:`project` of them, if already known.
        """
        weights = self.mix.view(len(states), -1).softmax(dim=-1) / states.shape[2]  # (L, n + 1)
        first, *others = weights.T[..., None, None].unbind(0)
        fused, x = first * states.sum(dim=2), states
        for layer, weight in zip(self.layers, others, strict=True):
            x = layer(x, projected)
            fused = torch.addcmul(fused, weight, x.sum(dim=2))
            projected = None
        return self._finish(fused, states[:, :, -1])

    def _finish(self, fused: Tensor, newest: Tensor) -> Tensor:
        """Applies the output rule to fused states (L, B, D)."""
        if self.output == "identity":
            return fused
        if self.output == "softmax":
            return fused.softmax(dim=-1)
        normal = stacked(self.norms, fused)
        return normal if self.output == "layernorm" else newest + 0.5 * normal


class FocusLayer(nn.Module):
    """One layer of every stack.

    Args:
        dim: Width D.
        num_stacks: Stacks L.
        num_heads: Heads H.
    """

    def __init__(self, dim: int, num_stacks: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.ModuleList(Linear(dim, 3 * dim) for _ in range(num_stacks))
        self.dense = nn.ModuleList(Linear(dim, dim) for _ in range(num_stacks))

    def forward(self, x: Tensor, qkv: Tensor | None = None) -> Tensor:
        """(L, B, K, D) -> (L, B, K, D).

        Args:
            x: States; not read when their projections are given.
            qkv: Queries, keys and values (L, B, K, 3D).
        """
        qkv = stacked(self.qkv, x) if qkv is None else qkv
        heads = qkv.flatten(0, 1).unflatten(-1, (3, self.num_heads, -1))  # (LB, K, 3, H, d)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v).transpose(1, 2).reshape(*qkv.shape[:-1], -1)
        return F.gelu(stacked(self.dense, attended)).softmax(dim=-1) + attended
