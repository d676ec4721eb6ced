"""The risk of a stream without end, by a model that was trained on clips.

A recurrent model that never saw more than ``num_frames`` steps does not stay what it was beyond them: after seconds of
calm it no longer answers at all. So no state here grows older than ``session_steps``, those of a training clip or
fewer. A new state begins every half of that length, and the oldest one is heard until its length is over: whatever came
longer ago has no influence. Two states live at a time; cost and memory per step are constant, and how the steps are cut
into calls changes nothing.

Shapes: B streams, T steps, N boxes, F feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.video.crash.network.risk import CrashOutput, RiskModel, RiskState

__all__ = ["RiskWindows"]


class _Window(NamedTuple):
    """A state and the steps it has seen."""

    state: RiskState
    age: int


class RiskWindows:
    """What streams remember, and their risk.

    Args:
        model: The risk model.
        streams: B.

    Attributes:
        length: Steps after which a state is given up: those of a training clip, unless the config says fewer.
        period: Steps from the beginning of one state to that of the next.
    """

    def __init__(self, model: RiskModel, streams: int = 1) -> None:
        self.model = model
        self.streams = streams
        self.length = model.config.session_steps or model.config.num_frames
        self.period = max(1, self.length // 2)
        self._windows = [self._begin()]

    def extend(self, features: Tensor, valid: Tensor | None = None) -> CrashOutput:
        """Returns what is said of the next steps; without auxiliary logits.

        Args:
            features: (B, T, N + 1, F).
            valid: (B, T, N + 1) bool, or None as the model decides.

        Raises:
            InputError: If the features do not fit the model.
        """
        hidden, weights = [], []
        for frame in self.model.frames(features, valid):
            self._turn()
            advanced = [self.model.advance(frame, window.state) for window in self._windows]
            self._windows = [
                _Window(state, window.age + 1) for (_, state), window in zip(advanced, self._windows, strict=True)
            ]
            attention, heard = advanced[0]
            hidden.append(heard.hidden[-1])
            weights.append(attention)
        return self.model.answer(hidden, weights)

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns what :meth:`restore` needs; the one that is heard first."""
        tensors = {"ages": torch.tensor([window.age for window in self._windows])}
        for number, window in enumerate(self._windows):
            ending = f"_{number}" if number else ""
            tensors |= {f"{name}{ending}": value for name, value in window.state.to_tensors().items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up what :meth:`to_tensors` returned.

        Raises:
            InputError: If the states are of another model, or their ages are none of its windows.
        """
        ages = [int(age) for age in tensors["ages"].tolist()]
        expected = self.model.initial_state(self.streams).hidden.shape
        windows = []
        for number, age in enumerate(ages):
            ending = f"_{number}" if number else ""
            hidden = tensors[f"hidden{ending}"]
            if hidden.shape != expected or not 0 <= age <= self.length:
                raise InputError(
                    f"The saved state is {tuple(hidden.shape)} and {age} steps old, expected {tuple(expected)} and at "
                    f"most {self.length}.",
                    "It is that of another model.",
                )
            windows.append(
                _Window(self.model.restore_state({"hidden": hidden, "history": tensors[f"history{ending}"]}), age)
            )
        self._windows = windows or [self._begin()]

    def _begin(self) -> _Window:
        return _Window(self.model.initial_state(self.streams), 0)

    def _turn(self) -> None:
        """Begins a state where one is due, and gives up the one whose length is over."""
        if self._windows[-1].age >= self.period:
            self._windows.append(self._begin())
        if self._windows[0].age >= self.length:
            del self._windows[0]
