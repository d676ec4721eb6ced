"""First training stage of the embedded Crane model: a small CLIP on drawn, captioned pictures.

The network is the one Crane runs, with a frozen convolutional trunk as patch embedding. Image-text contrast alone does
not localise at this size, so every path that Crane reads patches from is trained against two texts as well:

    loss = sum_paths w_path (20 focal + dice + 0.1 recall) + w_score CE(fused score) + w_clip InfoNCE
           + w_apart max(cos(t_normal, t_abnormal), 0)

over cells of the patch grid, with t_normal and t_abnormal the mean features of a few hand-written sentences. Training
sees windows of the grid first and whole pictures in the last steps.

Source: patch-text alignment in the spirit of arXiv 2504.11055; the recipe is this project's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.dattn import dattn, foundation_attention
from mmattn.vision.crane.network.prompts import encode_texts
from mmattn.vision.crane.network.scoring import fuse, image_logits, patch_logits
from mmattn.vision.crane.network.tower import VisionFeatures
from mmattn.vision.crane.network.trunk import CHANNELS, DISTANCES
from mmattn.vision.crane.synthetic.captions import ABNORMAL_SENTENCES, NORMAL_SENTENCES, caption
from mmattn.vision.crane.weights.store import StoredCrane

__all__ = ["CraneClipTask", "crop_windows", "info_nce", "patch_text_loss"]

COVERED = 0.12
"""Share of a cell that a defect must cover for the cell to count as damaged; smaller shares count as neither."""

STANDARDISED_TWINS = 150
"""Twins, spread over the training data, whose descriptions are looked at before training."""


class CraneClipTask(BaseTask):
    """Trains the CLIP of the embedded model.

    Args:
        config: The model; its CLIP is given by sizes and its trunk must be set.
        lr: Peak learning rate of AdamW.
        weight_decay: Decay of matrices.
        warmup: Steps to the peak; a cosine to 3 % follows.
        window: Side of the windows of the patch grid, in cells.
        whole_from: Share of the steps after which whole pictures are seen.
        whole_pairs: Twins per step then; the rest of the batch is left out.
        weight_eattn: Weight of the patch loss on E-Attn features.
        weight_plain: Weight of the patch loss on CLIP's own patch tokens.
        weight_dattn: Weight of the patch loss on D-Attn features.
        weight_score: Weight of the fused image score's cross-entropy.
        weight_clip: Weight of the image-text contrast.
        weight_apart: Weight of the term that keeps the two texts apart.
    """

    model: CraneModel

    def __init__(
        self,
        config: CraneConfig,
        lr: float = 1.2e-3,
        weight_decay: float = 0.05,
        warmup: int = 60,
        window: int = 12,
        whole_from: float = 0.95,
        whole_pairs: int = 2,
        weight_eattn: float = 1.0,
        weight_plain: float = 0.3,
        weight_dattn: float = 0.3,
        weight_score: float = 0.5,
        weight_clip: float = 0.3,
        weight_apart: float = 1.0,
    ) -> None:
        self.config = config
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.window, self.whole_from, self.whole_pairs = window, whole_from, whole_pairs
        self.weights = {"eattn": weight_eattn, "plain": weight_plain, "dattn": weight_dattn}
        self.weight_score, self.weight_clip, self.weight_apart = weight_score, weight_clip, weight_apart
        super().__init__()

    def configure_models(self) -> None:
        """Builds the model; the prompts wait for the second stage."""
        self.model = CraneModel.from_config(self.config)
        self._clip.visual.conv1.trunk.load_package_weights()
        self.model.prompt_learner.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        """Returns AdamW without decay on vectors, and a warm-up and cosine by step."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.98))
        total = self.trainer.estimated_stepping_batches

        def factor(step: int) -> float:
            if step < self.warmup:
                return (step + 1) / self.warmup
            share = (step - self.warmup) / max(total - self.warmup, 1)
            return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Measures, once, how the descriptions of cells are spread, so that the embedding sees them standardised."""
        if self.global_step > 0:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        twins = data.train_dataset()
        rows = []
        for index in np.linspace(0, len(twins) - 1, min(len(twins), STANDARDISED_TWINS), dtype=int).tolist():
            features, distances = twins[index]["features"].float().split((sum(CHANNELS), DISTANCES), dim=1)
            rows.append(self._clip.visual.conv1.describe(features, distances).transpose(0, 1).flatten(1))
        variance, mean = torch.var_mean(torch.cat(rows, 1), dim=1)
        self._clip.visual.conv1.norm.running_mean.copy_(mean)
        self._clip.visual.conv1.norm.running_var.copy_(variance)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Returns the loss () of a batch of twins."""
        rng = np.random.default_rng([self.global_step, 7])
        whole = self.global_step >= self.whole_from * self.trainer.estimated_stepping_batches
        pairs = self.whole_pairs if whole else len(batch["cover"])
        description, features, cover = self._cells(batch, pairs, whole, rng)
        vision, paths = self._paths(description, features)
        text = self._texts()
        labels = (cover > COVERED).flatten(1).any(1).long()
        losses = {name: patch_text_loss(patches, text, cover, self.config.tau_pixel) for name, patches in paths.items()}
        losses["score"] = self._score_loss(vision, text, labels)
        losses["clip"] = self._contrast(vision, batch, cover, rng)
        losses["apart"] = F.cosine_similarity(text[0, 0], text[0, 1], dim=0).clamp_min(0)
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, batch_size=pairs)
        weights = {**self.weights, "score": self.weight_score, "clip": self.weight_clip, "apart": self.weight_apart}
        total: Tensor = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        self.log("train/loss", total, prog_bar=True, batch_size=pairs)
        return total

    def on_train_end(self) -> None:
        """Writes the checkpoint folder ``clip`` into the run folder."""
        if self.trainer.log_dir is None or not self.trainer.is_global_zero:
            return
        card = "# Embedded Crane after its first stage\n\nIts prompts are untrained; `mmattn fit` does that next.\n"
        StoredCrane(self.config, self.model.tensors()).save(Path(self.trainer.log_dir) / "clip", card=card)

    @property
    def _clip(self) -> Any:
        """The CLIP under the model; open_clip has no types."""
        return self.model.clip

    def _cells(
        self, batch: dict[str, Any], pairs: int, whole: bool, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns descriptions (2P, D, h, w), trunk features (2P, C, h, w) and covered shares (2P, h, w)."""
        features = batch["features"][:pairs].float()  # (P, 2, C + 4, H, W)
        damaged = batch["cover"][:pairs]
        cover = torch.stack([torch.zeros_like(damaged), damaged], 1).flatten(0, 1)
        features = features.flatten(0, 1)
        features, distances = features.split((sum(CHANNELS), DISTANCES), dim=1)
        with torch.no_grad():
            description = self._clip.visual.conv1.describe(features, distances)
        if whole:
            return description, features, cover
        rows, columns = (places.repeat_interleave(2, 0) for places in crop_windows(damaged, self.window, rng))
        index = torch.arange(len(cover))[:, None, None]
        at = (rows[:, :, None], columns[:, None, :])
        return (
            description.permute(0, 2, 3, 1)[index, at[0], at[1]].permute(0, 3, 1, 2),
            features.permute(0, 2, 3, 1)[index, at[0], at[1]].permute(0, 3, 1, 2),
            cover[index, at[0], at[1]],
        )

    def _paths(self, description: Tensor, features: Tensor) -> tuple[VisionFeatures, dict[str, Tensor]]:
        """Returns what Crane reads, and the patch features (B, N, E) of every path that has a weight."""
        tower, grid = self.model.tower, (description.shape[2], description.shape[3])
        *_, last = tower.streams(description)
        if last.eattn is None or last.source is None:
            raise RuntimeError("the last block of a Crane tower is always dual")
        paths = {"eattn": tower.project(last.eattn[:, 1:]), "plain": tower.project(last.ori[:, 1:])}
        if self.weights["dattn"] > 0:
            mixing = foundation_attention(features, beta=self.config.beta, gamma=self.config.gamma)
            block = tower.visual.transformer.resblocks[-1]
            paths["dattn"] = tower.project(dattn(block, last.source, mixing, grid, grid))
        return VisionFeatures(tower.project(last.ori[:, 0]), (paths["eattn"],), grid), paths

    def _texts(self) -> Tensor:
        """Returns the two mean text features (1, 2, E), of the sentences and of Crane's prompts as they start out."""
        sentences = [*NORMAL_SENTENCES, *ABNORMAL_SENTENCES]
        features = F.normalize(encode_texts(self.model.clip, sentences, self.config.token_ids), dim=-1)
        normal, abnormal = features.split(len(NORMAL_SENTENCES))
        prompts = F.normalize(self.model.encode_text()[0], dim=-1)
        return torch.stack([torch.cat([normal, prompts[:1]]).mean(0), torch.cat([abnormal, prompts[1:]]).mean(0)])[None]

    def _score_loss(self, vision: VisionFeatures, text: Tensor, labels: Tensor) -> Tensor:
        """Returns the cross-entropy of the fused image score."""
        logits = [patch_logits(patches, text, self.config.tau_pixel) for patches in vision.patch_features]
        image = fuse(vision, logits, alpha=self.config.alpha, top_k=self.config.fusion_top_k)
        return F.cross_entropy(image_logits(image, text, self.config.tau_image), labels)

    def _contrast(
        self, vision: VisionFeatures, batch: dict[str, Any], cover: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Returns the image-text contrast with captions drawn for what the windows show."""
        captions = []
        for i, cells in enumerate((cover > COVERED).numpy()):
            defect = batch["defect"][i // 2] if cells.any() else ""
            captions.append(caption(rng, batch["category"][i // 2], defect, cells))
        text = encode_texts(self.model.clip, captions, self.config.token_ids)
        return info_nce(vision.image_features, text, captions, self._clip.logit_scale.exp().clamp(max=100.0))


def crop_windows(cover: Tensor, window: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draws one window per twin, around a damaged cell where there is one.

    Args:
        cover: Covered share of each cell, (P, H, W).
        window: Side of the windows, in cells.
        rng: Source of randomness.

    Returns:
        Row and column indices of the windows, (P, window) each.
    """
    starts = []
    for cells in cover:
        side = cells.shape[0]
        damaged = (cells > COVERED).nonzero()
        low, high = np.zeros(2, int), np.full(2, side - window)
        if len(damaged):
            cell = damaged[int(rng.integers(len(damaged)))].numpy()
            low, high = np.maximum(cell - window + 1, low), np.minimum(cell, high)
        starts.append(rng.integers(low, high + 1))
    first = torch.from_numpy(np.stack(starts))
    offsets = torch.arange(window)
    return first[:, :1] + offsets, first[:, 1:] + offsets


def patch_text_loss(patches: Tensor, text: Tensor, cover: Tensor, tau: float) -> Tensor:
    """Returns how badly patches tell damaged cells from flawless ones by two texts.

    Args:
        patches: (B, N, E).
        text: (1, 2, E), order normal, abnormal.
        cover: Share of each cell that is damaged, (B, h, w) with N = h w; shares in (0, .12] are left out.
        tau: Temperature.
    """
    logits = patch_logits(patches, text, tau)
    difference = logits[..., 1] - logits[..., 0]
    target = (cover.flatten(1) > COVERED).to(difference.dtype)
    counted = ((cover.flatten(1) == 0) | (target > 0)).to(difference.dtype)
    entropy = F.binary_cross_entropy_with_logits(difference, target, reduction="none") * counted
    probability = difference.sigmoid()
    wrong = target * (1 - probability) + (1 - target) * probability
    focal = (wrong.square() * entropy).sum() / counted.sum()
    recall = (entropy * target).sum() / target.sum().clamp_min(1)
    is_damaged = target.any(1)
    overlap = (probability * target).sum(1)
    dice = 1 - (2 * overlap + 1) / ((probability * counted).sum(1) + target.sum(1) + 1)
    return 20 * focal + (dice * is_damaged).sum() / is_damaged.sum().clamp_min(1) + 0.1 * recall


def info_nce(images: Tensor, texts: Tensor, captions: list[str], scale: Tensor) -> Tensor:
    """Returns the symmetric image-text contrast; equal captions share the probability (arXiv 2103.00020).

    Args:
        images: (B, E).
        texts: (B, E).
        captions: What the texts say.
        scale: Factor on the cosines.
    """
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    same = torch.tensor([[a == b for b in captions] for a in captions], dtype=logits.dtype, device=logits.device)
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
