"""Simple methods that the embedded CRASH is compared with on the same clips. None of them is trained.

* chance: a level of its own for every clip.
* growth: the fastest growing box that is on its way to the middle of the picture; what a camera alone can see.
* time_to_collision: how soon a road user, going on as it does, touches the camera car.
* danger: the same with accelerations, for all pairs of road users, and by how near they come (a rule of our own).

The rules read what the embedded perception has measured of each tracked box, by the names of its features. Their
numbers are turned into [0, 1] by exp(-seconds); metrics that rank clips are not touched by that.

Shapes: B clips, T frames, N boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.errors import InputError
from mmattn.video.crash.evaluation.report import log_scores, validation_point, write_test
from mmattn.video.crash.evaluation.scores import CrashEvaluation, score
from mmattn.video.crash.perception.features import BOX_FEATURES, FEATURES, FRAME_FEATURES

__all__ = ["BaselineTask", "chance", "danger", "growth", "time_to_collision"]

Rule = Callable[[Mapping[str, Any]], Tensor]

_MIDDLE = 0.25
_SLOWEST = 1e-3


def chance(batch: Mapping[str, Any], seed: int = 0) -> Tensor:
    """Returns (B, T) noise around a level for each clip, the same for the same clip id every time."""
    rows = []
    for name in batch["id"]:
        # Python's own hash of a string differs from run to run.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + int.from_bytes(str(name).encode()[-7:], "big"))
        level = torch.rand((), generator=generator)
        rows.append(0.8 * level + 0.2 * torch.rand(batch["features"].shape[1], generator=generator))
    return torch.stack(rows)


def growth(batch: Mapping[str, Any]) -> Tensor:
    """Returns (B, T) exp(-time to collision) of the box that grows fastest among those heading for the middle.

    A box that grows by a share g per second, without changing its course, fills the view in 1 / g seconds. It counts if
    by then its centre, going on, lies in the middle quarter of the picture's width, or it covers the middle already.
    """
    u, rate, shift = (_box(batch, name) for name in ("u", "width_rate", "u_rate"))
    width = torch.exp(2 * (_box(batch, "log_width") - 1))  # share of the picture's width
    seconds = 1 / rate.clamp_min(_SLOWEST)
    arrival = u + 2 * shift * width * seconds
    heads_here = (arrival.abs() < _MIDDLE) | (u.abs() < width)
    return _largest(torch.exp(-seconds), heads_here & (rate > _SLOWEST), batch)


def time_to_collision(batch: Mapping[str, Any]) -> Tensor:
    """Returns (B, T) exp(-t) with t the first of a few moments ahead at which a road user touches the camera car.

    Every road user keeps its velocity. Between two moments the gap is taken to change evenly.
    """
    names = [name for name in BOX_FEATURES if name.startswith("ego_steady_") and name[-1].isdigit()]
    ahead = torch.tensor([float(name.rpartition("_")[2]) for name in names])
    gaps = torch.stack([_box(batch, name) for name in names], dim=-1)  # (B, T, N, A) tanh(metres / 4)
    touches = gaps <= 0
    first = touches.float().argmax(dim=-1, keepdim=True)
    before = (first - 1).clamp_min(0)
    far, near = gaps.gather(-1, before), gaps.gather(-1, first)
    share = (far / (far - near).clamp_min(_SLOWEST)).clamp(0, 1)
    seconds = (ahead[before] + share * (ahead[first] - ahead[before])).squeeze(-1)
    return _largest(torch.exp(-seconds), touches.any(dim=-1), batch)


def danger(batch: Mapping[str, Any]) -> Tensor:
    """Returns (B, T) the larger of the frame's features ``ego_danger`` and ``pair_danger``."""
    _check(batch)
    at = [len(BOX_FEATURES) + FRAME_FEATURES.index(name) for name in ("ego_danger", "pair_danger")]
    found: Tensor = batch["features"][:, :, 0, at].amax(dim=-1).clamp(0, 1)
    return found


RULES: dict[str, Rule] = {"growth": growth, "time_to_collision": time_to_collision, "danger": danger}


class BaselineTask(BaseTask):
    """Tests the baselines on the clips of a data module; ``mmattn test --config crash/embedded_baselines``.

    Args:
        rules: Also test the rules, which need the features of the embedded perception; false tests chance alone.
        seed: Of chance.
    """

    def __init__(self, rules: bool = True, seed: int = 0) -> None:
        self.rules = rules
        self.seed = seed
        super().__init__()

    def configure_models(self) -> None:
        """Names the methods."""
        self.methods: dict[str, Rule] = {
            "chance": lambda batch: chance(batch, self.seed),
            **(RULES if self.rules else {}),
        }

    def on_test_start(self) -> None:
        """Chooses a threshold for each method on the validation clips."""
        self.points = {name: validation_point(self, method) for name, method in self.methods.items()}
        self.evaluations = {name: CrashEvaluation() for name in self.methods}

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Adds a batch to every evaluation."""
        for name, method in self.methods.items():
            self.evaluations[name].update(batch, method(batch))

    def on_test_epoch_end(self) -> None:
        """Prints and writes a table per method."""
        for name, evaluation in self.evaluations.items():
            table, diagrams = score(evaluation.clips(), self.points[name])
            self.print(f"{name}\n{table}\n")
            log_scores(self, table, prefix=f"test/{name}")
            if self.trainer.loggers:
                write_test(Path(self.trainer.log_dir or ".") / "test" / name, table, diagrams)


def _check(batch: Mapping[str, Any]) -> None:
    if batch["features"].shape[-1] != FEATURES:
        raise InputError(
            f"The rules read the embedded perception's {FEATURES} features, and these clips have "
            f"{batch['features'].shape[-1]}.",
            "Set model.init_args.rules: false to test chance alone.",
        )


def _box(batch: Mapping[str, Any], name: str) -> Tensor:
    """Returns a feature of the boxes, (B, T, N)."""
    _check(batch)
    values: Tensor = batch["features"][:, :, 1:, BOX_FEATURES.index(name)]
    return values


def _largest(values: Tensor, counts: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Returns (B, T) the largest value among the boxes that count and exist, 0 without one."""
    return torch.where(counts & batch["valid"][:, :, 1:], values, 0.0).amax(dim=-1)
