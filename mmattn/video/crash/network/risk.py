"""What CRASH and its baselines share: features in, risk out, frame by frame or a clip at once.

A risk model splits a frame's work in two. :meth:`RiskModel.observe` does what needs nothing but the frame and may run
over a whole clip in one go; :meth:`RiskModel.advance` does what depends on the state, one frame after the other. Both
:meth:`RiskModel.forward` and :meth:`RiskModel.step` are made of these two, so that streaming and batch agree.

Shapes: B clips, T frames, N boxes, F feature width, D hidden width, L GRU layers. Slot 0 of the N + 1 slots is the
frame itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from mmattn.core.weights.loading import load_into
from mmattn.errors import InputError
from mmattn.kernels.products import Linear, Packable
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.network.heads import Classifier

__all__ = ["CrashOutput", "Observation", "RiskModel", "RiskState"]


class CrashOutput(NamedTuple):
    """What a risk model says about B clips.

    Attributes:
        logits: (B, T, 2), [..., 1] is an accident; the risk is ``softmax(logits)[..., 1]``.
        box_attention: (B, T, N) weights of the boxes, not negative; they sum to 1, or less where boxes are masked.
        hidden: (B, T, D) state of the last GRU layer after each frame.
        aux_logits: (B, 2) of the whole clip, for the auxiliary loss; None without that branch, and while streaming.
        uncertainty: (B, T) standard deviation of the risk over Monte-Carlo passes; None without them.
    """

    logits: Tensor
    box_attention: Tensor
    hidden: Tensor
    aux_logits: Tensor | None
    uncertainty: Tensor | None = None


@dataclass(frozen=True)
class RiskState:
    """What a stream remembers between frames; never changed in place, so an older one can be taken up again.

    Attributes:
        hidden: (L, B, D) states of the GRU.
        history: Hidden states that entered the last frames, oldest first: what the temporal attention looks back on.
        projected: What that attention's first layer keeps of each of them.
    """

    hidden: Tensor
    history: tuple[Tensor, ...] = ()
    projected: tuple[Tensor, ...] = ()

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns what :meth:`RiskModel.restore_state` needs: ``hidden`` and ``history`` (K, L, B, D)."""
        history = torch.stack(self.history) if self.history else self.hidden.new_zeros(0, *self.hidden.shape)
        return {"hidden": self.hidden, "history": history}


class Observation(NamedTuple):
    """What is known of frames before the state is; leading axes (B, T), or (B,) for one frame.

    Attributes:
        boxes: (..., N, D) embeddings.
        gates: (..., 3D) share of the frame in the GRU's first gates, bias included.
        valid: (..., N) boxes that exist; None when all take part.
        keys: (..., N, D) of DSTA's attention.
    """

    boxes: Tensor
    gates: Tensor
    valid: Tensor | None = None
    keys: Tensor | None = None

    def frames(self) -> Iterator[Observation]:
        """Yields the frames of a clip. Unbinding makes one backward of all slices, not T backwards of whole clips."""
        fields = [[None] * self.gates.shape[1] if x is None else x.unbind(1) for x in self]
        return (Observation(*frame) for frame in zip(*fields, strict=True))


class RiskModel(nn.Module):
    """Base of the three architectures: embedding, frame head, loss weights, and the loop over frames.

    Args:
        config: Architecture.
    """

    def __init__(self, config: CrashConfig) -> None:
        super().__init__()
        self.config = config
        self.phi_x = Linear(config.feature_dim, config.hidden_dim)
        self.head = Classifier(config.hidden_dim, config.classifier_dim, config.dropout)
        aux_head = Classifier(2 * config.hidden_dim, config.classifier_dim, config.dropout)
        self.auxiliary = nn.Sequential(self.build_aggregation(), aux_head) if config.use_aux else None
        self.rho_1 = nn.Parameter(torch.ones(()))
        self.rho_2 = nn.Parameter(torch.ones(()))

    @classmethod
    def from_config(cls, config: CrashConfig) -> Self:
        """Builds the model with random weights, in evaluation mode."""
        return cls(config).eval()

    @abstractmethod
    def build_aggregation(self) -> nn.Module:
        """Returns what turns hidden states (B, T, D) into the clip embeddings (B, 2D) of the auxiliary head."""

    @abstractmethod
    def observe(self, features: Tensor, valid: Tensor | None) -> Observation:
        """Does what depends on single frames only.

        Args:
            features: (B, T, N + 1, F).
            valid: (B, T, N) bool, or None when all boxes take part.
        """

    @abstractmethod
    def advance(self, frame: Observation, state: RiskState) -> tuple[Tensor, RiskState]:
        """Takes one frame in; returns its box weights (B, N) and the next state."""

    def forward(self, features: Tensor, valid: Tensor | None = None) -> CrashOutput:
        """Scores whole clips, the auxiliary head included.

        Args:
            features: (B, T, N + 1, F).
            valid: (B, T, N + 1) bool, slots that hold something; None takes those whose features are not all zero.
                Used only if the config masks empty boxes.

        Raises:
            InputError: If the features have another shape than the config says.
        """
        output, _ = self.extend(features, self.initial_state(len(features)), valid)
        return output if self.auxiliary is None else output._replace(aux_logits=self.auxiliary(output.hidden))

    def extend(self, features: Tensor, state: RiskState, valid: Tensor | None = None) -> tuple[CrashOutput, RiskState]:
        """Scores the next T frames of B streams, as :meth:`forward` would with the same past.

        Args:
            features: (B, T, N + 1, F).
            state: Of :meth:`initial_state`, or what the last call returned.
            valid: As in :meth:`forward`.

        Returns:
            The output without auxiliary logits, and the next state.

        Raises:
            InputError: If the features do not fit the config or the state.
        """
        if features.ndim == 4 and features.shape[0] != state.hidden.shape[1]:
            raise InputError(f"Got frames of {features.shape[0]} streams for a state of {state.hidden.shape[1]}.")
        hidden, weights = [], []
        for frame in self.frames(features, valid):
            attention, state = self.advance(frame, state)
            hidden.append(state.hidden[-1])
            weights.append(attention)
        return self.answer(hidden, weights), state

    def frames(self, features: Tensor, valid: Tensor | None = None) -> Iterator[Observation]:
        """Returns what is known of T frames before any state is, one after the other.

        Args:
            features: (B, T, N + 1, F).
            valid: As in :meth:`forward`.

        Raises:
            InputError: If the features do not fit the config.
        """
        self._check(features, valid)
        return self.observe(features, self._box_mask(features, valid)).frames()

    def answer(self, hidden: Sequence[Tensor], weights: Sequence[Tensor]) -> CrashOutput:
        """Returns the output, without auxiliary logits, of T states of the last layer (B, D) and box weights (B, N)."""
        states = torch.stack(list(hidden), dim=1)
        logits, uncertainty = self._read(states)
        return CrashOutput(logits, torch.stack(list(weights), dim=1), states, None, uncertainty)

    def step(self, features: Tensor, state: RiskState, valid: Tensor | None = None) -> tuple[Tensor, Tensor, RiskState]:
        """Scores the next frame of B streams: :meth:`extend` for one frame.

        Args:
            features: (B, N + 1, F).
            state: As in :meth:`extend`.
            valid: (B, N + 1), as in :meth:`forward`.

        Returns:
            Logits (B, 2), box weights (B, N) and the next state.

        Raises:
            InputError: As :meth:`extend`.
        """
        output, state = self.extend(features[:, None], state, None if valid is None else valid[:, None])
        return output.logits[:, 0], output.box_attention[:, 0], state

    def initial_state(self, batch_size: int = 1) -> RiskState:
        """Returns the state of B streams before their first frame."""
        shape = (self.config.num_layers, batch_size, self.config.hidden_dim)
        return RiskState(self.rho_1.new_zeros(shape))

    def restore_state(self, tensors: Mapping[str, Tensor]) -> RiskState:
        """Returns the state that :meth:`RiskState.to_tensors` described."""
        return RiskState(tensors["hidden"].to(self.rho_1), tuple(tensors["history"].to(self.rho_1).unbind(0)))

    def pack_weights(self) -> Self:
        """Lays the weights out for scoring on the CPU, which takes as much memory again, and returns the model.

        Scores stay the same up to rounding; a streamed frame of the published size takes a quarter less time. Undone by
        ``train()``, ``load_state_dict()`` and ``to()``; see :class:`~mmattn.kernels.products.Packable`.
        """
        for module in self.modules():
            if isinstance(module, Packable):
                module.pack()
        return self

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what ``state_dict()`` returned.

        Raises:
            CheckpointError: If names or shapes do not fit.
        """
        load_into(self, tensors, hint="Its config.json belongs to other weights.")

    def embed(self, features: Tensor) -> Tensor:
        """Returns the embeddings (..., D), not negative, of features (..., F)."""
        embedded: Tensor = self.phi_x(features).relu()
        return embedded

    def _read(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns logits (..., 2) of hidden states (..., D) and, if several passes are averaged, their spread (...)."""
        is_random = self.config.legacy_eval_dropout and not self.training
        if is_random and self.config.mc_samples > 1:
            return self.head.sample(hidden, self.config.mc_samples)
        return self.head(hidden, drop=True if is_random else None), None

    def _box_mask(self, features: Tensor, valid: Tensor | None) -> Tensor | None:
        if not self.config.mask_empty_boxes:
            return None
        return (features[..., 1:, :] != 0).any(dim=-1) if valid is None else valid[..., 1:]

    def _check(self, features: Tensor, valid: Tensor | None) -> None:
        slots, width = self.config.num_boxes + 1, self.config.feature_dim
        if features.ndim != 4 or features.shape[2:] != (slots, width):
            raise InputError(
                f"Features have shape {tuple(features.shape)}, expected (clips, frames, {slots}, {width}): the frame "
                f"and {self.config.num_boxes} boxes, {width} numbers each.",
                "They were made with another backbone or number of boxes than the checkpoint.",
            )
        if features.shape[0] == 0 or features.shape[1] == 0:
            raise InputError(f"Features have shape {tuple(features.shape)}, expected at least one clip and one frame.")
        if valid is not None and valid.shape != features.shape[:-1]:
            raise InputError(f"valid has shape {tuple(valid.shape)}, expected {tuple(features.shape[:-1])}.")
