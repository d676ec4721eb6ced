"""Training and testing of Crane's prompts with Lightning.

Source: arXiv 2504.11055 and the public code AlirezaSalehy/Crane at commit 39181f9. CLIP and the foundation model stay
frozen and in evaluation mode; Adam with betas (0.6, 0.999) moves the prompt tensors alone. In training the prompts are
conditioned on each picture, patch probabilities become pixels by nearest neighbour, and image logits have a temperature
of 0.01; in testing the prompts are static and the model is used as it is.

Every epoch writes a checkpoint folder ``epoch_N`` into the run folder that ``mmattn infer crane --checkpoint`` reads. A
test prints the scores per class and their means, and writes them with a few pictures into ``test`` in the run folder.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmattn.core.config_fields import changed
from mmattn.core.training.datamodule import BaseDataModule
from mmattn.core.training.task import BaseTask
from mmattn.errors import InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.evaluation.scores import CraneEvaluation
from mmattn.vision.crane.evaluation.table import SCORES
from mmattn.vision.crane.losses import CraneLosses, crane_loss
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.preprocess import CLIP_MEAN, CLIP_STD
from mmattn.vision.crane.network.scoring import CraneOutput, Interpolation
from mmattn.vision.crane.network.tower import VisionFeatures
from mmattn.vision.crane.results import CraneResult
from mmattn.vision.crane.training.feature_cache import Annotated, CachedDataset, FeatureCache, fill, fingerprint, unpack
from mmattn.vision.crane.weights.store import StoredCrane

__all__ = ["CraneTask"]

Batch = dict[str, Any]
"""``img`` (B, 3, S, S) or cached features, ``mask`` (B, 1, S, S), ``label`` (B,), ``has_mask`` (B,) bool, ``path``."""


class CraneTask(BaseTask):
    """Trains and tests one Crane model.

    Args:
        config: The model; null takes the config of ``initial_checkpoint``, or else the published Crane.
        overrides: Fields to change in that config, such as sigma or the foundation, wherever it came from.
        initial_checkpoint: Weights to start from: "embedded", a checkpoint folder or hf:repo[/folder][@revision].
        pretrained: Load the CLIP and foundation weights that the config names; false leaves them random.
        lr: Learning rate of Adam.
        betas: Betas of Adam; 0.6 is the published first one.
        interpolation: How patch probabilities become pixels in the training loss.
        feature_cache: Folder where features of the frozen tower are kept, so that they are computed once per picture
            and not once per epoch; null computes them every time. Needs training data without augmentation.
        examples: Test pictures per class and label that are written with their heat maps.
    """

    model: CraneModel

    def __init__(
        self,
        config: CraneConfig | None = None,
        overrides: dict[str, bool | int | float | str | list[int] | None] | None = None,
        initial_checkpoint: str | None = None,
        pretrained: bool = True,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.6, 0.999),
        interpolation: Interpolation = "nearest",
        feature_cache: str | None = None,
        examples: int = 1,
    ) -> None:
        self.config = config
        self.overrides = overrides or {}
        self.initial_checkpoint = initial_checkpoint
        self.pretrained = pretrained
        self.lr = lr
        self.betas = betas
        self.interpolation: Interpolation = interpolation
        self.feature_cache = feature_cache
        self.examples = examples
        self.learns_maps = True
        super().__init__()

    def configure_models(self) -> None:
        """Builds the model and freezes all but the prompts."""
        stored = None if self.initial_checkpoint is None else StoredCrane.load(self.initial_checkpoint)
        config = changed(self.config or (stored.config if stored else CraneConfig()), self.overrides)
        if stored is None:
            pretrained = self.pretrained and config.clip_pretrained is not None
            self.model = CraneModel.from_config(config, pretrained=pretrained)
        else:
            self.model = stored.build(config, pretrained=self.pretrained)
        self.model.requires_grad_(False)
        self.model.prompt_learner.requires_grad_(True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam over the prompt tensors."""
        return torch.optim.Adam(self.model.prompt_learner.parameters(), lr=self.lr, betas=self.betas)

    def train(self, mode: bool = True) -> CraneTask:
        """Keeps the model in evaluation mode, which is how the published prompts were trained."""
        super().train(mode)
        self.model.eval()
        return self

    def setup(self, stage: str) -> None:
        """Checks that the data has the model's picture size, and steps between the training data and its loader.

        Raises:
            InputError: If the sizes differ, or the cache cannot serve this data.
        """
        data = getattr(self.trainer, "datamodule", None)
        size = getattr(getattr(data, "preprocess", None), "image_size", self.model.config.image_size)
        if size != self.model.config.image_size:
            raise InputError(
                f"The data makes pictures of {size} pixels, and this model reads {self.model.config.image_size}.",
                f"Set data.init_args.image_size to {self.model.config.image_size}.",
            )
        if isinstance(data, BaseDataModule):
            data.wrap_train = self._prepared
        elif self.feature_cache is not None:
            raise InputError("feature_cache needs a data module of mmattn.", "Set model.init_args.feature_cache: null.")

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Returns the loss () of a batch of annotated pictures."""
        condition = self.model.prompt_learner.draw_conditioning()
        losses = self._losses(batch, condition=condition)
        self._log_losses("train", losses, len(batch["label"]))
        return losses.total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Logs the losses with the prompts as they are used in testing."""
        losses = self._losses(batch, condition=self.model.config.inference_context)
        self._log_losses("val", losses, len(batch["label"]))

    def on_test_start(self) -> None:
        """Prepares the evaluation.

        Raises:
            InputError: On more than one device, because a class is scored over all its pictures at once.
        """
        if self.trainer.world_size > 1:
            raise InputError("Scores per class need all pictures in one place.", "Test with --trainer.devices 1.")
        data = getattr(self.trainer, "datamodule", None)
        self.evaluation = CraneEvaluation(getattr(data, "test_sizes", dict)())
        self.drawn: Counter[tuple[str, ...]] = Counter()

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Adds a batch to the evaluation and draws the first pictures of each class."""
        output: CraneOutput = self.model(batch["img"])
        self.evaluation.update(batch, output.score, output.anomaly_map)
        if self.trainer.loggers:
            self._draw(batch, output)

    def on_test_epoch_end(self) -> None:
        """Prints the table, logs the means and writes both."""
        with self.evaluation as evaluation:
            table = evaluation.compute()
        self.print(str(table))
        for row in table.means():
            scores = {name: getattr(row, name) for name in SCORES}
            self.log_dict({f"test/{row.dataset}/{name}": v for name, v in scores.items() if not math.isnan(v)})
        if self.trainer.loggers:
            table.write_csv(self._test_folder() / "metrics.csv")
            table.write_json(self._test_folder() / "metrics.json")

    def predict_step(self, batch: Batch, batch_index: int) -> CraneOutput:
        """Returns scores and maps; ``mmattn infer crane`` is what writes them to files."""
        output: CraneOutput = self.model(batch["img"])
        return output

    def on_train_epoch_end(self) -> None:
        """Writes the checkpoint folder of the epoch, unless checkpoints are turned off."""
        folder = self.trainer.log_dir
        if folder is None or self.trainer.checkpoint_callback is None or not self.trainer.is_global_zero:
            return
        epoch = self.current_epoch + 1
        losses = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        stored = StoredCrane(self.model.config, self.model.tensors())
        stored.save(Path(folder) / f"epoch_{epoch}", card=model_card(epoch, losses))

    def _vision(self, batch: Batch) -> VisionFeatures:
        """Returns the features of a batch, from the cache where the batch comes from there."""
        if "img" not in batch:
            return unpack(batch)
        with torch.no_grad():
            return self.model.encode_image(batch["img"])

    def _losses(self, batch: Batch, *, condition: bool) -> CraneLosses:
        vision = self._vision(batch)
        text = self.model.encode_text(vision.image_features if condition else None)
        return crane_loss(
            vision,
            text,
            batch["label"],
            batch["mask"] if self.learns_maps else None,
            self.model.config,
            has_mask=batch.get("has_mask"),
            interpolation=self.interpolation,
        )

    def _log_losses(self, stage: str, losses: CraneLosses, batch_size: int) -> None:
        self.log(f"{stage}/loss", losses.total, prog_bar=True, batch_size=batch_size)
        for name in ("focal", "dice", "cross_entropy"):
            self.log(f"{stage}/{name}", getattr(losses, name), batch_size=batch_size)

    def _test_folder(self) -> Path:
        return Path(self.trainer.log_dir or ".") / "test"

    def _draw(self, batch: Batch, output: CraneOutput) -> None:
        """Writes the heat map of pictures, as the model saw them, until every class has ``examples`` of each label."""
        for i, path in enumerate(batch["path"]):
            dataset = batch["dataset"][i] if "dataset" in batch else ""
            place = (dataset, batch["cls_name"][i], "anomalous" if batch["label"][i] else "normal")
            if self.drawn[place] >= self.examples:
                continue
            self.drawn[place] += 1
            picture = as_picture(batch["img"][i])
            result = CraneResult(
                score=float(output.score[i]),
                anomaly_map=output.anomaly_map[i].float().cpu().numpy(),
                image=picture,
                image_size=(picture.shape[0], picture.shape[1]),
            )
            # names come from the dataset's files, and must not lead out of this folder
            folder = self._test_folder().joinpath("examples", *(re.sub(r"[^\w-]+", "_", name) for name in place))
            folder.mkdir(parents=True, exist_ok=True)
            result.save(folder, Path(path).name)

    def _prepared(self, items: Dataset[Any]) -> Dataset[Any]:
        """Returns the training data, cached where asked for, after a look at whether it has any masks.

        In a dataset without a single mask the empty masks of its normal pictures are the only ones there are; learning
        from those alone would teach the maps to be empty, so the score alone is learned.
        """
        records = getattr(items, "records", [])
        self.learns_maps = not records or any(record.mask_path for record in records)
        return items if self.feature_cache is None else self._cached(items)

    def _cached(self, items: Dataset[Any]) -> Dataset[Any]:
        """Returns the training data with features in the place of pictures; computes those that are missing."""
        if not isinstance(items, Annotated) or getattr(items, "is_random", False):
            raise InputError(
                "feature_cache needs training pictures that are files and the same in every epoch.",
                "Turn augmentation off, or set model.init_args.feature_cache: null.",
            )
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        cache = FeatureCache(str(self.feature_cache), fingerprint(self.model))
        fill(cache, self.model, items, batch_size=data.eval_batch_size, num_workers=data.num_workers)
        return CachedDataset(items, cache)


def as_picture(image: Tensor) -> npt.NDArray[np.uint8]:
    """Returns a CLIP-normalised image (3, S, S) as the picture (S, S, 3) uint8 RGB that the model saw."""
    mean, std = (torch.tensor(x, device=image.device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
    pixels = ((image.float() * std + mean) * 255).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def model_card(epoch: int, metrics: dict[str, float]) -> str:
    """Returns the card of a checkpoint written during training."""
    values = "\n".join(f"- {name}: {value:.4f}" for name, value in sorted(metrics.items()))
    return (
        f"# Crane prompts after epoch {epoch}\n\nTrained with `mmattn fit`; `config.yaml` beside this folder holds the "
        f"whole experiment. Backbone weights that have a name are re-created by it and not stored here.\n\n"
        f"Losses of its last step:\n\n{values}\n"
    )
