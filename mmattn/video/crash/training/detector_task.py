"""Training of the embedded detector on drawn frames, and how well it finds road users on those of the validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.video.crash.perception.detector import STRIDE, VALUES, CrashDetector, DetectorOutput, decode_boxes
from mmattn.video.crash.training.detector_losses import detector_losses

__all__ = ["CrashDetectorTask", "match"]

_LAMP = VALUES.index("lamp")


class CrashDetectorTask(BaseTask):
    """Trains :class:`CrashDetector`.

    Args:
        widths: Channels at strides 2, 4, 8, 16 and 32.
        neck: Channels of the path back to stride 4.
        lr: Peak learning rate of AdamW.
        weight_decay: Decay of all weights.
        threshold: Smallest score that counts in validation.
    """

    detector: CrashDetector

    def __init__(
        self,
        widths: list[int] | None = None,
        neck: int = 48,
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        threshold: float = 0.3,
    ) -> None:
        self.widths = widths or [16, 32, 64, 96, 128]
        self.neck, self.lr, self.weight_decay, self.threshold = neck, lr, weight_decay, threshold
        super().__init__()

    def configure_models(self) -> None:
        """Builds the detector."""
        self.detector = CrashDetector(self.widths, self.neck).to(memory_format=torch.channels_last)

    def configure_metrics(self) -> None:
        """Starts the counts of the validation."""
        self.counts = Counts()

    def configure_optimizers(self) -> Any:
        """Returns AdamW, and a warm-up over a tenth of the steps and a cosine to 1 %."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(lr_factor, total=total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Returns the loss () of a batch of frames."""
        output = self.detector(batch["picture"].to(memory_format=torch.channels_last))
        losses = detector_losses(output, batch)
        total: Tensor = torch.stack(list(losses.values())).sum()
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, batch_size=len(batch["picture"]))
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch["picture"]))
        return total

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Counts hits and errors of a batch of frames."""
        output = self.detector(batch["picture"].to(memory_format=torch.channels_last))
        losses = detector_losses(output, batch)
        self.log_dict({f"val/{name}": value for name, value in losses.items()}, batch_size=len(batch["picture"]))
        self.counts.add(output, batch, self.threshold)

    def on_validation_epoch_end(self) -> None:
        """Logs recall, false boxes per frame and the median errors."""
        self.log_dict({f"val/{name}": value for name, value in self.counts.summary().items()})
        self.counts = Counts()

    def on_train_end(self) -> None:
        """Writes the checkpoint folder ``detector`` into the run folder."""
        if self.trainer.log_dir is None or not self.trainer.is_global_zero:
            return
        card = "# Embedded detector of CRASH\n\nTrained on drawn frames; it has never seen a photograph.\n"
        config = {"widths": list(self.widths), "neck": self.neck}
        folder = Path(self.trainer.log_dir) / "detector"
        save_checkpoint(folder, self.detector.state_dict(), system="crash", config=config, card=card)


def lr_factor(step: int, total: int) -> float:
    """Returns the share of the peak learning rate at a step: a linear tenth of the way up, a cosine down to 1 %."""
    warmup = max(total // 10, 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1.0)))


@dataclass
class Counts:
    """Hits and errors of the validation so far."""

    true: int = 0
    tall: int = 0
    hit: int = 0
    hit_tall: int = 0
    false: int = 0
    frames: int = 0
    errors: dict[str, list[float]] = field(default_factory=dict)

    def add(self, output: DetectorOutput, batch: dict[str, Tensor], threshold: float) -> None:
        """Adds a batch."""
        for i, found in enumerate(decode_boxes(output, threshold)):
            centre = (batch["heat"][i] >= 1.0).any(0)
            v, u = (index.numpy() for index in centre.nonzero(as_tuple=True))
            value = batch["values"][i][:, centre].numpy()
            middle = np.stack([u + value[0], v + value[1]], 1) * STRIDE
            half = np.exp(value[2:4].T) * STRIDE / 2
            box = np.concatenate([middle - half, middle + half], 1)
            pairs = match(found.box, box)
            tall = 2 * half[:, 1] > 10
            hits = np.array([j for _, j in pairs], int)
            self.true, self.tall = self.true + len(box), self.tall + int(tall.sum())
            self.hit, self.hit_tall = self.hit + len(pairs), self.hit_tall + int(tall[hits].sum())
            self.false, self.frames = self.false + len(found.box) - len(pairs), self.frames + 1
            self._measure(found.place[:, 1], found.lamp, found.velocity, value, pairs)
            self.errors.setdefault("speed_error", []).append(float((output.speed[i] - batch["speed"][i]).abs()))

    def _measure(
        self, far: np.ndarray, lamp: np.ndarray, velocity: np.ndarray, value: np.ndarray, pairs: list[tuple[int, int]]
    ) -> None:
        for i, j in pairs:
            distance = abs(float(np.log(far[i]) - value[4, j]))
            self.errors.setdefault("log_distance_error", []).append(distance)
            motion = np.abs(velocity[i] - 10 * value[9:, j])
            self.errors.setdefault("velocity_error", []).append(float(motion.mean()))
            if value[7, j] > 0.3:
                wrong = float((lamp[i] > 0.5) != (value[_LAMP, j] > 0.5))
                self.errors.setdefault("lamp_error", []).append(wrong)

    def summary(self) -> dict[str, float]:
        """Returns recall (all, and boxes over 10 pixels high), false boxes per frame and mean errors."""
        rates = {
            "recall": self.hit / max(self.true, 1),
            "recall_tall": self.hit_tall / max(self.tall, 1),
            "false_per_frame": self.false / max(self.frames, 1),
        }
        return rates | {name: float(np.mean(values)) for name, values in self.errors.items()}


def match(found: np.ndarray, true: np.ndarray) -> list[tuple[int, int]]:
    """Pairs boxes (n, 4) and (m, 4) that overlap by half, the best first."""
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    common = np.maximum(high - low, 0).prod(-1)
    area_a, area_b = (found[:, 2:] - found[:, :2]).prod(1), (true[:, 2:] - true[:, :2]).prod(1)
    overlap = common / np.maximum(area_a[:, None] + area_b - common, 1e-6)
    pairs = []
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = divmod(int(flat), overlap.shape[1])
        if overlap[i, j] < 0.5:
            break
        pairs.append((i, j))
        overlap[i], overlap[:, j] = -1, -1
    return pairs
