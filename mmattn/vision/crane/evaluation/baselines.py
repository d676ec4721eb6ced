"""Simple methods that Crane's embedded model is compared with on the same pictures.

None of them is trained. Each turns a batch of CLIP-normalised images (B, 3, S, S) into maps (B, S, S); the score of a
picture is its map's maximum:

* :class:`ChanceBaseline`: smooth noise.
* :class:`ZScoreBaseline`: how many standard deviations a pixel's colour and gradient are from the picture's mean.
* :class:`SelfSimilarityBaseline`: how far a cell of the frozen trunk is from the cells most like it in the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.core.weights.loading import load_into
from mmattn.core.weights.stored_model import split_part
from mmattn.vision.crane.evaluation.scores import CraneEvaluation
from mmattn.vision.crane.network.preprocess import CLIP_MEAN, CLIP_STD
from mmattn.vision.crane.network.scoring import smooth_maps, upsample_maps
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk, self_distances
from mmattn.vision.crane.weights.store import StoredCrane

__all__ = ["BaselineTask", "ChanceBaseline", "Method", "SelfSimilarityBaseline", "ZScoreBaseline", "embedded_trunk"]

SIGMA = 4.0
"""Smoothing of every baseline's map, in pixels, as Crane's."""

TRUNK_PREFIX = "clip.visual.conv1.trunk."
"""Where the embedded checkpoint keeps the trunk."""

Method = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (B, 3, S, S) in, scores (B,) and maps (B, S, S) out."""


class ChanceBaseline:
    """Smooth noise that has not seen the picture.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores and maps."""
        noise = torch.rand(len(images), *images.shape[2:], generator=self.generator)
        return with_maximum(smooth_maps(noise, SIGMA))


class ZScoreBaseline:
    """Mean absolute z-score of a pixel's Lab colour and gradient within its own picture."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores and maps."""
        std, mean = torch.tensor(CLIP_STD).view(3, 1, 1), torch.tensor(CLIP_MEAN).view(3, 1, 1)
        pictures = (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()
        return with_maximum(smooth_maps(torch.stack([torch.from_numpy(z_scores(p)) for p in pictures]), SIGMA))


def z_scores(picture: np.ndarray) -> np.ndarray:
    """Returns (H, W) mean absolute z-scores of a picture (H, W, 3), float32 RGB in [0, 1]."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    channels = cv2.GaussianBlur(np.dstack([lab, gradient]), (0, 0), 2)
    scores = np.abs(channels - channels.mean((0, 1))) / (channels.std((0, 1)) + 1e-6)
    return scores.mean(2).astype(np.float32)


class SelfSimilarityBaseline:
    """Distance of each trunk cell to its nearest cells elsewhere in the picture, summed over the trunk's stages.

    Args:
        trunk: The frozen trunk.
    """

    def __init__(self, trunk: EfficientNetLite0Trunk) -> None:
        self.trunk = trunk

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores and maps."""
        cells = self_distances(self.trunk(images))[:, 1:].sum(1)
        return with_maximum(smooth_maps(upsample_maps(cells, images.shape[-1]), SIGMA))


def with_maximum(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest value of each map (B, H, W), and the maps."""
    return maps.amax((1, 2)), maps


def embedded_trunk(tensors: Mapping[str, Tensor]) -> EfficientNetLite0Trunk:
    """Returns the trunk inside the tensors of an embedded checkpoint.

    Raises:
        CheckpointError: If there is none.
    """
    trunk = EfficientNetLite0Trunk()
    load_into(trunk, split_part(tensors, TRUNK_PREFIX)[1], hint="Only embedded models have such a trunk.")
    return trunk


class BaselineTask(BaseTask):
    """Tests all baselines on the pictures of a data module; ``mmattn test --config crane/embedded_baselines``.

    Args:
        checkpoint: Where the trunk comes from.
    """

    methods: dict[str, Method]

    def __init__(self, checkpoint: str = "embedded") -> None:
        self.checkpoint = checkpoint
        super().__init__()

    def configure_models(self) -> None:
        """Builds the methods; the trunk is the embedded model's."""
        self.methods = {
            "chance": ChanceBaseline(),
            "z_score": ZScoreBaseline(),
            "self_similarity": SelfSimilarityBaseline(embedded_trunk(StoredCrane.load(self.checkpoint).tensors)),
        }

    def on_test_start(self) -> None:
        """Prepares an evaluation per method."""
        sizes: dict[tuple[str, str], int] = getattr(getattr(self.trainer, "datamodule", None), "test_sizes", dict)()
        self.evaluations = {name: CraneEvaluation(sizes) for name in self.methods}

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Adds a batch to every evaluation."""
        for name, method in self.methods.items():
            self.evaluations[name].update(batch, *method(batch["img"]))

    def on_test_epoch_end(self) -> None:
        """Prints a table per method."""
        for name, evaluation in self.evaluations.items():
            with evaluation:
                self.print(f"{name}\n{evaluation.compute()}\n")
