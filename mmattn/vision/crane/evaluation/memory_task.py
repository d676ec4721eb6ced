"""Test of the two memory modes: few-shot against flawless pictures, mutual scoring inside an unlabelled set.

``mmattn test --config crane/embedded_memory`` measures each on photographs twice: the memory alone, without any text,
and blended with the zero-shot map as ``mmattn infer crane --normal-images`` and ``--mutual`` do.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.vision.crane.config import CraneInferOptions
from mmattn.vision.crane.evaluation.scores import CraneEvaluation
from mmattn.vision.crane.network.memory import MutualMemory, NormalMemory, PatchMemory, blend
from mmattn.vision.crane.synthetic.data import draw_any_photograph, normalise
from mmattn.vision.crane.weights.store import StoredCrane

__all__ = ["MemoryTask"]

_FIRST_NORMAL = 1000


class _Seen(NamedTuple):
    """What is kept of one picture: its key, its batch of one, memory features (C, h, w), zero-shot score and map."""

    key: str
    batch: dict[str, Any]
    features: Tensor
    score: Tensor
    anomaly_map: Tensor


class MemoryTask(BaseTask):
    """Tests the memories on photographs, whose crops show the same thing again and again.

    Args:
        checkpoint: The model.
        normals: Flawless crops per photograph for the few-shot mode; none of them is in the test.
        weight: Share of the memory when it is blended with the zero-shot map; null takes what ``mmattn infer`` does.
    """

    def __init__(self, checkpoint: str = "embedded", normals: int = 5, weight: float | None = None) -> None:
        self.checkpoint = checkpoint
        self.normals = normals
        self.weight = CraneInferOptions().memory_weight if weight is None else weight
        super().__init__()

    def configure_models(self) -> None:
        """Loads the model."""
        self.model = StoredCrane.load(self.checkpoint).build()

    def on_test_start(self) -> None:
        """Prepares the collection."""
        self.seen: dict[str, list[_Seen]] = defaultdict(list)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Keeps features, scores and maps of a batch."""
        vision = self.model.encode_image(batch["img"])
        output = self.model.score(vision, self.model.encode_text())
        features = self.model.memory_features(batch["img"], vision)
        for i, name in enumerate(batch["cls_name"]):
            one = {key: value[i : i + 1] for key, value in batch.items() if key != "img"}
            kept = _Seen(
                batch["path"][i], one, features[i].half(), output.score[i : i + 1], output.anomaly_map[i].half()
            )
            self.seen[name].append(kept)

    def on_test_epoch_end(self) -> None:
        """Scores every class with both memories, alone and blended, and prints the tables."""
        for mode in ("few-shot", "mutual"):
            with CraneEvaluation() as alone, CraneEvaluation() as blended, tempfile.TemporaryDirectory() as scratch:
                for name, pictures in self.seen.items():
                    memory = self._memory(mode, name, pictures, Path(scratch) / f"{name}.npy")
                    for picture in pictures:
                        self._add(alone, picture, memory, 1.0)
                        self._add(blended, picture, memory, self.weight)
                self.print(f"{mode}, memory alone\n{alone.compute()}\n")
                self.print(f"{mode}, blended with the zero-shot map, weight {self.weight}\n{blended.compute()}\n")

    def _add(self, evaluation: CraneEvaluation, picture: _Seen, memory: PatchMemory, weight: float) -> None:
        cells = memory.distances(picture.features.float(), key=picture.key)[None]
        maps, sigma = picture.anomaly_map[None].float(), self.model.config.sigma
        evaluation.update(picture.batch, *blend(picture.score, maps, cells, weight=weight, sigma=sigma))

    def _memory(self, mode: str, name: str, pictures: list[_Seen], path: Path) -> PatchMemory:
        if mode == "mutual":
            return MutualMemory.fit(((p.key, p.features.float()) for p in pictures), path, count=len(pictures))
        crops = [draw_any_photograph(name, _FIRST_NORMAL + i).picture for i in range(self.normals)]
        with torch.no_grad():
            return NormalMemory.fit(self.model.memory_features(normalise(np.stack(crops))))
