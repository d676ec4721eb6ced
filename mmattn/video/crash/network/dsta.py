"""DSTA, the baseline CRASH grew out of: additive attention over boxes, gated sum over the last hidden states.

Source: arXiv 2106.10197 and the public code monjurulkarim/DSTA. The published code does not register the tensors of
the box attention as parameters, so they are neither trained nor saved and a released checkpoint is evaluated with new
random ones. Here they are parameters like any other.

Shapes: B clips, T frames, N boxes, D width, L GRU layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmattn.kernels.products import linear
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.network.object_attention import masked_softmax
from mmattn.video.crash.network.recurrence import PartedGru
from mmattn.video.crash.network.risk import Observation, RiskModel, RiskState

__all__ = ["AdditiveAttention", "DstaModel", "GatedHistory", "TimeWeights"]

_FIRST_WINDOW = 3


class DstaModel(RiskModel):
    """The network; see :class:`.risk.RiskModel` for how it is called.

    Args:
        config: Architecture. Of CRASH's own fields it uses the sizes, ``temporal_window`` and ``num_frames``.
    """

    def __init__(self, config: CrashConfig) -> None:
        super().__init__(config)
        dim = config.hidden_dim
        self.object_attention = AdditiveAttention(dim)
        self.history_gate = GatedHistory(dim)
        self.recurrence = PartedGru(dim, 2, config.num_layers)

    def build_aggregation(self) -> nn.Module:
        """See :meth:`.risk.RiskModel.build_aggregation`."""
        return TimeWeights(self.config.num_frames)

    def observe(self, features: Tensor, valid: Tensor | None) -> Observation:
        """See :meth:`.risk.RiskModel.observe`."""
        embedded = self.embed(features)
        frame, boxes = embedded[:, :, 0], embedded[:, :, 1:]
        gates = self.recurrence.known(frame)
        keys = self.object_attention.keys(boxes)
        # Without the mask of the config the published rule holds: slots of zeros lose their weight, the rest keep it.
        nonzero = (features[..., 1:, :] != 0).any(dim=-1) if valid is None else valid
        return Observation(boxes, gates, nonzero, keys)

    def advance(self, frame: Observation, state: RiskState) -> tuple[Tensor, RiskState]:
        """See :meth:`.risk.RiskModel.advance`."""
        keys = self.object_attention.keys(frame.boxes) if frame.keys is None else frame.keys
        renormalise = self.config.mask_empty_boxes
        objects, weights = self.object_attention(frame.boxes, keys, state.hidden[-1], frame.valid, renormalise)
        history = (*state.history[-(self.config.temporal_window - 1) :], state.hidden)
        hidden = self.history_gate(torch.stack(history)) if len(history) >= _FIRST_WINDOW else state.hidden
        gates = frame.gates + self.recurrence.late(objects)
        return weights, RiskState(self.recurrence(gates, hidden), history)


class AdditiveAttention(nn.Module):
    """Box weights ``softmax_boxes(sum(w tanh(U_h h + U_o o + b)))``.

    Args:
        dim: Width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_hidden = nn.Parameter(0.01 * torch.randn(dim, dim))
        self.from_boxes = nn.Parameter(0.01 * torch.randn(dim, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight = nn.Parameter(0.5 * torch.randn(dim, 1))

    def keys(self, boxes: Tensor) -> Tensor:
        """Returns the share (..., N, D) of box embeddings (..., N, D), which no hidden state changes."""
        return linear(boxes, self.from_boxes.T, self.bias)

    def forward(
        self, boxes: Tensor, keys: Tensor, hidden: Tensor, valid: Tensor | None, renormalise: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns the weighted sum (B, D) of the boxes and their weights (B, N).

        Args:
            boxes: (B, N, D).
            keys: (B, N, D), of :meth:`keys`.
            hidden: (B, D).
            valid: (B, N) bool, or None when all boxes exist.
            renormalise: Softmax among the valid boxes; otherwise over all of them, the others' weight being lost.
        """
        mixed = (keys + linear(hidden, self.from_hidden.T)[:, None]).tanh()
        weights = masked_softmax((mixed @ self.weight).squeeze(-1), valid if renormalise else None)
        if valid is not None:
            weights = weights * valid
        return (weights[:, None] @ boxes).squeeze(1), weights


class GatedHistory(nn.Module):
    """Sum of the last hidden states, each feature with weights of its own over time.

    Args:
        dim: Width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))
        nn.init.kaiming_normal_(self.weight, a=math.sqrt(5))

    def forward(self, history: Tensor) -> Tensor:
        """Returns the fused states (L, B, D) of a window (K, L, B, D)."""
        return (linear(history.tanh(), self.weight.T).softmax(dim=0) * history).sum(dim=0)


class TimeWeights(nn.Module):
    """The auxiliary branch: states attend to each other by dot product, then one learned weight per frame.

    Args:
        num_frames: Frames that have a weight; what follows takes no part.
    """

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_frames, 1))
        nn.init.kaiming_normal_(self.weight, a=math.sqrt(5))

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the clip embeddings (B, 2D) of hidden states (B, T, D)."""
        hidden = hidden[:, : len(self.weight)]
        # Mean and maximum over a single layer are that layer itself, twice.
        states = torch.cat([hidden, hidden], dim=-1)
        mixed = (states @ states.transpose(1, 2)).softmax(dim=-1) @ states
        return (mixed * self.weight[: states.shape[1]]).sum(dim=1)
