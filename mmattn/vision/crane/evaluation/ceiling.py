"""A small supervised U-Net on the frozen trunk: the ceiling that the embedded model's test is read against.

It is trained on the categories *and* the defects of the test, drawn with other seeds: what zero-shot methods never see.
``mmattn fit --config crane/embedded_unet``, then ``mmattn test`` with the same config and ``--ckpt_path``.

Source: arXiv 1505.04597, with group norm and bilinear upsampling, over features of the trunk in the place of pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmattn.core.training.task import BaseTask
from mmattn.vision.crane.evaluation.baselines import SIGMA, with_maximum
from mmattn.vision.crane.evaluation.scores import CraneEvaluation
from mmattn.vision.crane.network.scoring import smooth_maps, upsample_maps
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk
from mmattn.vision.crane.synthetic.data import SyntheticDataModule, normalise
from mmattn.vision.crane.synthetic.scenes import SPLITS, draw_pair

__all__ = ["PairDataModule", "UNet", "UNetTask"]


class UNet(nn.Module):
    """Feature maps (B, C, H, W) in, defect logits (B, H, W) out; H and W are multiples of 4.

    Args:
        channels: Channels C of the input.
        width: Channels at full resolution; the two levels below have twice and three times as many.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(_double(a + b, b) for b, a in pairwise(widths))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits."""
        x, skipped = features, []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skipped.append(x)
        for block, skip in zip(reversed(self.up), reversed(skipped[:-1]), strict=True):
            larger = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([larger, skip], 1))
        logits: Tensor = self.head(x)
        return logits[:, 0]


def _double(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (channels, width):
        layers += [nn.Conv2d(given, width, 3, padding=1), nn.GroupNorm(4, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class _Pairs(Dataset[dict[str, Tensor]]):
    """Item i: the flawless and the damaged picture of drawing i of a split, ``{img (2, 3, S, S), mask (2, S, S)}``."""

    def __init__(self, split: str, count: int) -> None:
        self.split, self.count = SPLITS[split], count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        categories, defects, first = self.split
        category, defect = categories[index % len(categories)], defects[index // len(categories) % len(defects)]
        twins = draw_pair(category, defect, first + index)
        masks = torch.from_numpy(np.stack([twin.mask for twin in twins])).float()
        return {"img": normalise(np.stack([twin.picture for twin in twins])), "mask": masks}


class PairDataModule(SyntheticDataModule):
    """Twins of the test's own categories and defects for training, the generated test for testing.

    Args:
        pairs: Drawings of one epoch, always the same.
        batch_size: Drawings per batch; each is seen flawless and damaged.
        num_workers: Drawing processes.
        seed: Seed of the training order.
    """

    def __init__(self, pairs: int = 2400, batch_size: int = 4, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(
            test_splits=["test"], batch_size=batch_size, eval_batch_size=8, num_workers=num_workers, seed=seed
        )
        self.pairs = pairs

    def train_dataset(self) -> _Pairs:  # type: ignore[override]
        """Returns the twins."""
        return _Pairs("ceiling", self.pairs)


class UNetTask(BaseTask):
    """Trains and tests the U-Net; the trunk stays as ImageNet left it.

    Args:
        width: Channels at the trunk's resolution.
        lr: Peak learning rate of a one-cycle schedule.
    """

    model: UNet

    def __init__(self, width: int = 64, lr: float = 2e-3) -> None:
        self.width, self.lr = width, lr
        super().__init__()

    def configure_models(self) -> None:
        """Builds the networks."""
        self.trunk = EfficientNetLite0Trunk().load_package_weights()
        self.model = UNet(self.trunk.embed_dim, self.width)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, S, S) of images (B, 3, S, S)."""
        with torch.no_grad():
            features = self.trunk(images)
        return upsample_maps(self.model(features), images.shape[-1])

    def configure_optimizers(self) -> Any:
        """Returns AdamW with one cycle over all steps."""
        optimizer = torch.optim.AdamW(self.model.parameters(), self.lr, weight_decay=1e-3)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=max(total, 2))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Returns cross-entropy and dice () of a batch of twins."""
        logits, target = self(batch["img"].flatten(0, 1)), batch["mask"].flatten(0, 1)
        probability = logits.sigmoid()
        overlap = (probability * target).sum()
        dice = 1 - (2 * overlap + 1) / (probability.sum() + target.sum() + 1)
        loss = F.binary_cross_entropy_with_logits(logits, target) + dice
        self.log("train/loss", loss, prog_bar=True, batch_size=len(target))
        return loss

    def on_test_start(self) -> None:
        """Prepares the evaluation."""
        sizes: dict[tuple[str, str], int] = getattr(getattr(self.trainer, "datamodule", None), "test_sizes", dict)()
        self.evaluation = CraneEvaluation(sizes)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Adds a batch to the evaluation."""
        maps = smooth_maps(self(batch["img"]).sigmoid(), SIGMA)
        self.evaluation.update(batch, *with_maximum(maps))

    def on_test_epoch_end(self) -> None:
        """Prints the table."""
        with self.evaluation as evaluation:
            self.print(f"supervised U-Net\n{evaluation.compute()}\n")
