"""Clips as a drive meets them: after calm, many times as long as a training clip.

A test of single clips says nothing of the minute before. Here each clip follows others in which nothing happens, in one
stream, and is judged as it would be alone; a model that forgets how to answer shows it at once.

Shapes: B clips, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.video.crash.evaluation.report import Batch, risk_of
from mmattn.video.crash.network.risk import RiskModel
from mmattn.video.crash.stream.windows import RiskWindows

__all__ = ["CalmClips", "check_lengths"]

# Neighbouring clips get different calm.
_STEP = 7
_MOST = 40


def check_lengths(lengths: list[int]) -> None:
    """Requires lengths of streams, in clips.

    Raises:
        InputError: If one is below 1.
    """
    if any(length < 1 for length in lengths):
        raise InputError(
            f"test_lengths is {lengths}, expected numbers of clips of at least 1.", "For example [1, 4, 20]."
        )


class CalmClips(NamedTuple):
    """Clips without an accident, to come before others.

    Attributes:
        features: (C, T, N + 1, F).
        valid: (C, T, N + 1) bool.
    """

    features: Tensor
    valid: Tensor

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> CalmClips | None:
        """Returns the first clips without an accident, at most 40; None if there is none."""
        features: list[Tensor] = []
        valid: list[Tensor] = []
        for batch in batches:
            calm = batch["label"] == 0
            features += list(batch["features"][calm])
            valid += list(batch["valid"][calm])
            if len(features) >= _MOST:
                break
        return cls(torch.stack(features[:_MOST]), torch.stack(valid[:_MOST])) if features else None

    @torch.no_grad()
    def risks(self, model: RiskModel, batch: Batch, length: int, first: int = 0) -> Tensor:
        """Returns the risks (B, T) of clips that end streams of ``length`` clips.

        Args:
            model: The model, in evaluation mode.
            batch: Clips.
            length: Clips of a stream, the one that is judged included.
            first: Number of the batch's first clip, which chooses the calm before it.
        """
        features: Tensor = batch["features"]
        windows = RiskWindows(model, len(features))
        clips = torch.arange(first, first + len(features))
        for place in range(length - 1):
            chosen = (clips * _STEP + 3 * place) % len(self.features)
            windows.extend(*(x[chosen].to(features.device) for x in self))
        return risk_of(windows.extend(features, batch["valid"]))

    def named(self, batch: Batch, length: int) -> dict[str, Any]:
        """Returns the batch under the name that its scores get: "CCD, 4 clips long"."""
        return {**batch, "dataset": [f"{name}, {length} clips long" for name in batch["dataset"]]}
