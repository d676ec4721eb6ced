"""Test of the two memory modes: few-shot against flawless pictures, mutual scoring inside an unlabelled set.

``mmattn test --config crane/embedded_memory`` measures both on the frozen trunk's features, without any text: the map
is the memory's distance alone, smoothed as Crane's, and the score its maximum.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.core.checkpoint import load_checkpoint
from mmattn.core.resolver import resolve
from mmattn.core.task import BaseTask
from mmattn.vision.crane.baselines import SIGMA, embedded_trunk, with_maximum
from mmattn.vision.crane.evaluation import CraneEvaluation
from mmattn.vision.crane.memory import MutualMemory, NormalMemory, PatchMemory
from mmattn.vision.crane.scoring import smooth_maps, upsample_maps
from mmattn.vision.crane.synthetic_data import normalise
from mmattn.vision.crane.synthetic_photos import draw_photograph

__all__ = ["MemoryTask"]

_FIRST_NORMAL = 1000


class MemoryTask(BaseTask):
    """Tests the memories on photographs, whose crops show the same thing again and again.

    Args:
        checkpoint: Where the trunk comes from.
        normals: Flawless crops per photograph for the few-shot mode; none of them is in the test.
    """

    def __init__(self, checkpoint: str = "embedded", normals: int = 5) -> None:
        self.checkpoint = checkpoint
        self.normals = normals
        super().__init__()

    def configure_models(self) -> None:
        """Builds the trunk."""
        tensors, _ = load_checkpoint(resolve("crane", self.checkpoint), "crane")
        self.trunk = embedded_trunk(tensors)

    def on_test_start(self) -> None:
        """Prepares the collections."""
        self.features: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
        self.batches: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Keeps the features of a batch."""
        features = self.trunk(batch["img"])
        for i, name in enumerate(batch["cls_name"]):
            one = {key: value[i : i + 1] for key, value in batch.items() if key != "img"}
            self.features[name].append((batch["path"][i], features[i].half()))
            self.batches[name].append(one)

    def on_test_epoch_end(self) -> None:
        """Scores every class with both memories and prints the tables."""
        for mode in ("few-shot", "mutual"):
            with CraneEvaluation() as evaluation, tempfile.TemporaryDirectory() as scratch:
                for name, pairs in self.features.items():
                    memory = self._memory(mode, name, pairs, Path(scratch) / f"{name}.npy")
                    for (key, features), batch in zip(pairs, self.batches[name], strict=True):
                        cells = memory.distances(features.float(), key=key)[None]
                        side = batch["mask"].shape[-1]
                        maps = smooth_maps(upsample_maps(cells, side), SIGMA)
                        evaluation.update(batch, *with_maximum(maps))
                self.print(f"{mode}\n{evaluation.compute()}\n")

    def _memory(self, mode: str, name: str, pairs: list[tuple[str, Tensor]], path: Path) -> PatchMemory:
        if mode == "mutual":
            return MutualMemory.fit(((key, f.float()) for key, f in pairs), path, count=len(pairs))
        crops = [draw_photograph(name, _FIRST_NORMAL + i).picture for i in range(self.normals)]
        with torch.no_grad():
            return NormalMemory.fit(self.trunk(normalise(np.stack(crops))))
