"""CRASH: object-aware and context-aware features, temporal focus attention, a GRU and a risk for every frame.

Source: arXiv 2407.17757 and the public code Petrichor625/CRASH at commit dbda454. A frame's boxes are attended by the
previous hidden state (:mod:`.network.object_attention`), its own embedding is filtered in the frequency domain
(:mod:`.network.context`), the last hidden states are fused (:mod:`.network.focus`), and a GRU
(:mod:`.network.recurrence`) takes all of it in. Plain ``nn.Module``: no files, no training logic, no ``no_grad``
inside. Causal: frame t depends on frames <= t alone; only the auxiliary logits see the whole clip.

Shapes: B clips, T frames, N boxes, F feature width, D hidden width, L GRU layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.network.context import ContextBranch
from mmattn.video.crash.network.dsta import DstaModel
from mmattn.video.crash.network.focus import TemporalFocus
from mmattn.video.crash.network.gru import GruModel
from mmattn.video.crash.network.heads import VideoAggregation
from mmattn.video.crash.network.object_attention import ObjectAttention, mean_boxes
from mmattn.video.crash.network.recurrence import PartedGru
from mmattn.video.crash.network.risk import CrashOutput, Observation, RiskModel, RiskState

__all__ = ["CrashModel", "CrashOutput", "RiskModel", "RiskState", "build_model"]

# The published code leaves the hidden state alone until it has seen this many.
_FIRST_WINDOW = 3


def build_model(config: CrashConfig) -> RiskModel:
    """Builds the model of ``config.architecture`` with random weights, in evaluation mode."""
    architectures: dict[str, type[RiskModel]] = {"crash": CrashModel, "dsta": DstaModel, "gru": GruModel}
    return architectures[config.architecture].from_config(config)


class CrashModel(RiskModel):
    """The network; see :class:`.network.risk.RiskModel` for how it is called.

    Args:
        config: Architecture.
    """

    def __init__(self, config: CrashConfig) -> None:
        super().__init__(config)
        dim, layers = config.hidden_dim, config.num_layers
        self.object_attention = ObjectAttention(dim, layers) if config.use_oam else None
        units = max(1, 6 // config.channel_reduction) if config.channel_attention == "bottleneck" else 0
        self.context = ContextBranch(dim, config.grid, units, config.spectral_init) if config.use_cam else None
        self.focus = (
            TemporalFocus(dim, layers, config.tfa_layers, config.tfa_heads, config.tfa_output)
            if config.use_tfa
            else None
        )
        # The input's parts in the order of the published code: boxes, which the state chooses, frame, context.
        self.recurrence = PartedGru(dim, 3 if config.use_cam else 2, layers)

    def build_aggregation(self) -> nn.Module:
        """See :meth:`.network.risk.RiskModel.build_aggregation`."""
        return VideoAggregation(self.config.hidden_dim, self.config.aggregation_heads)

    def observe(self, features: Tensor, valid: Tensor | None) -> Observation:
        """See :meth:`.network.risk.RiskModel.observe`."""
        embedded = self.embed(features)
        frame, boxes = embedded[:, :, 0], embedded[:, :, 1:]
        known = [frame] if self.context is None else [frame, self.context(frame)]
        return Observation(boxes, self.recurrence.known(*known), valid)

    def advance(self, frame: Observation, state: RiskState) -> tuple[Tensor, RiskState]:
        """See :meth:`.network.risk.RiskModel.advance`."""
        if self.object_attention is None:
            objects, weights = mean_boxes(frame.boxes, frame.valid)
        else:
            objects, weights = self.object_attention(frame.boxes, state.hidden, frame.valid)
        hidden, history, projected = state.hidden, state.history, state.projected
        if self.focus is not None:
            keep = self.config.window - 1
            history = (*history[-keep:], hidden)
            projected = (*projected[-keep:], self.focus.project(hidden))
            if len(history) >= _FIRST_WINDOW:
                hidden = self.focus(torch.stack(history, dim=2), torch.stack(projected, dim=2))
        gates = frame.gates + self.recurrence.late(objects)
        return weights, RiskState(self.recurrence(gates, hidden), history, projected)

    def restore_state(self, tensors: Mapping[str, Tensor]) -> RiskState:
        """See :meth:`.network.risk.RiskModel.restore_state`; what the attention keeps is computed again."""
        state = super().restore_state(tensors)
        if self.focus is None:
            return state
        return replace(state, projected=tuple(self.focus.project(hidden) for hidden in state.history))
