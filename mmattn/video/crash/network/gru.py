"""A plain GRU on frame and boxes: the baseline that says whether attention earns its keep.

Same embedding, head, auxiliary branch and loss as CRASH. The boxes enter as their mean and maximum, so nothing but the
GRU itself depends on the past.

Shapes: B clips, T frames, N boxes, D width, L GRU layers.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.network.heads import VideoAggregation
from mmattn.video.crash.network.object_attention import max_boxes, mean_boxes
from mmattn.video.crash.network.recurrence import PartedGru
from mmattn.video.crash.network.risk import Observation, RiskModel, RiskState

__all__ = ["GruModel"]


class GruModel(RiskModel):
    """The network; see :class:`.risk.RiskModel` for how it is called.

    Args:
        config: Architecture. Of CRASH's own fields it uses the sizes alone.
    """

    def __init__(self, config: CrashConfig) -> None:
        super().__init__(config)
        self.recurrence = PartedGru(config.hidden_dim, 3, config.num_layers, num_late=0)

    def build_aggregation(self) -> nn.Module:
        """See :meth:`.risk.RiskModel.build_aggregation`."""
        return VideoAggregation(self.config.hidden_dim, self.config.aggregation_heads)

    def observe(self, features: Tensor, valid: Tensor | None) -> Observation:
        """See :meth:`.risk.RiskModel.observe`."""
        embedded = self.embed(features)
        frame, boxes = embedded[:, :, 0], embedded[:, :, 1:]
        gates = self.recurrence.known(mean_boxes(boxes, valid)[0], max_boxes(boxes, valid), frame)
        return Observation(boxes, gates, valid)

    def advance(self, frame: Observation, state: RiskState) -> tuple[Tensor, RiskState]:
        """See :meth:`.risk.RiskModel.advance`; every box has the same weight."""
        _, weights = mean_boxes(frame.boxes, frame.valid)
        return weights, RiskState(self.recurrence(frame.gates, state.hidden))
