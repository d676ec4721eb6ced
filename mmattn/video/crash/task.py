"""Training and testing of CRASH and its baselines with Lightning.

Source: arXiv 2407.17757 and the public code Petrichor625/CRASH at commit dbda454: Adam at 1.2e-4, batches of 10,
gradients clipped to a norm of 10 (``trainer.gradient_clip_val``), and a learning rate that is halved when the loss has
not fallen for five epochs. There the loss of an epoch is that of its last batch; here its mean, unless
``plateau_monitor`` says "train/loss".

Every epoch writes a checkpoint folder ``epoch_N`` into the run folder that ``mmattn infer crash --checkpoint`` reads. A
test prints every metric, and writes them with reliability diagrams and some curves into ``test`` in the run folder. Its
threshold and temperature come from the validation clips.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from mmattn.core.config_fields import changed
from mmattn.core.training.task import BaseTask
from mmattn.errors import InputError
from mmattn.metrics.accident import legacy_metrics, video_ap
from mmattn.video.crash.config import CrashConfig, CrashLossOptions
from mmattn.video.crash.evaluation.after_calm import CalmClips, check_lengths
from mmattn.video.crash.evaluation.report import (
    Batch,
    log_scores,
    risk_of,
    validation_batches,
    validation_point,
    write_curves,
    write_test,
)
from mmattn.video.crash.evaluation.scores import CrashEvaluation, score
from mmattn.video.crash.losses import CrashLosses, crash_loss
from mmattn.video.crash.model import CrashOutput, RiskModel, build_model
from mmattn.video.crash.weights.store import StoredCrash

__all__ = ["CrashTask"]


class CrashTask(BaseTask):
    """Trains and tests one risk model.

    Args:
        config: The model; null takes the config of ``initial_checkpoint``, or else the published CRASH.
        overrides: Fields to change in that config, wherever it came from.
        initial_checkpoint: Weights to start from: "embedded", a checkpoint folder or hf:repo[/folder][@revision].
        test_checkpoint: Weights that a test takes when no others are named, by ``initial_checkpoint`` or
            ``--ckpt_path``; with it a config alone repeats the numbers of a shipped model.
        loss: The objective; null takes the published one.
        lr: Learning rate of Adam; with "one_cycle" its peak.
        weight_decay: Above 0 takes AdamW.
        schedule: "plateau" halves the rate when ``plateau_monitor`` stops falling; "one_cycle" (arXiv 1708.07120) warms
            up over the share ``warmup`` of the steps and falls to nothing; "constant" leaves it.
        plateau_monitor: "train/epoch_loss", "val/loss", or "train/loss", the last batch's, as published.
        warmup: Share of all steps in which "one_cycle" rises.
        detector: Folder of the embedded detector, kept in every checkpoint so that it runs on videos; null takes that
            of the data where it has one.
        examples: Test clips per dataset and label whose curves are written.
        test_lengths: Lengths of the streams that a test judges clips in, in clips: above 1 they come after calm ones of
            the validation data.
    """

    model: RiskModel

    def __init__(
        self,
        config: CrashConfig | None = None,
        overrides: dict[str, Any] | None = None,
        initial_checkpoint: str | None = None,
        test_checkpoint: str | None = None,
        loss: CrashLossOptions | None = None,
        lr: float = 1.2e-4,
        weight_decay: float = 0.0,
        schedule: Literal["plateau", "one_cycle", "constant"] = "plateau",
        plateau_monitor: str = "train/epoch_loss",
        warmup: float = 0.1,
        detector: str | None = None,
        examples: int = 2,
        test_lengths: list[int] | None = None,
    ) -> None:
        if not 0.0 < warmup < 1.0 or lr <= 0.0:
            raise InputError(f"lr is {lr} and warmup {warmup}, expected lr above 0 and warmup between 0 and 1.")
        self.test_lengths = [1, 4, 20] if test_lengths is None else test_lengths
        check_lengths(self.test_lengths)
        self.config = config
        self.overrides = overrides or {}
        self.initial_checkpoint = initial_checkpoint
        self.test_checkpoint = test_checkpoint
        self.loss = loss or CrashLossOptions()
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.plateau_monitor = plateau_monitor
        self.warmup = warmup
        self.detector = detector
        self.examples = examples
        super().__init__()

    def configure_models(self) -> None:
        """Builds the model."""
        stored = None if self.initial_checkpoint is None else StoredCrash.load(self.initial_checkpoint)
        config = changed(self.config or (stored.config if stored else CrashConfig()), self.overrides)
        # Models are built in evaluation mode, and Lightning trains every part in the mode it finds it in.
        self.model = (build_model(config) if stored is None else stored.build(config)).train()
        self.perception_tensors = {} if stored is None else stored.part

    def setup(self, stage: str) -> None:
        """Takes the weights of ``test_checkpoint`` for a test that names no others."""
        names_others = self.initial_checkpoint is not None or getattr(self.trainer, "ckpt_path", None) is not None
        if stage == "test" and self.test_checkpoint is not None and not names_others:
            stored = StoredCrash.load(self.test_checkpoint)
            self.model = stored.build(changed(stored.config, self.overrides))

    def configure_metrics(self) -> None:
        """Starts the collection of validation clips."""
        self.validation = CrashEvaluation()

    def configure_optimizers(self) -> Any:
        """Returns Adam, or AdamW with weight decay, and the schedule."""
        kind = torch.optim.AdamW if self.weight_decay else torch.optim.Adam
        optimizer = kind(self.model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        if self.schedule == "constant":
            return optimizer
        if self.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", factor=0.5, patience=5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": self.plateau_monitor}}
        steps = max(int(self.trainer.estimated_stepping_batches), 2)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def forward(self, batch: Batch) -> CrashOutput:
        """Returns what the model says about a batch of clips."""
        output: CrashOutput = self.model(batch["features"], batch["valid"])
        return output

    def risks(self, batch: Batch) -> Tensor:
        """Returns the risks (B, T) of a batch of clips."""
        return risk_of(self(batch))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Returns the loss () of a batch."""
        losses = self._losses(self(batch), batch)
        size = len(batch["label"])
        self.log("train/loss", losses.total, prog_bar=True, batch_size=size)
        self.log("train/epoch_loss", losses.total, on_step=False, on_epoch=True, batch_size=size)
        self._log_parts("train", losses, size)
        return losses.total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Logs the losses and collects the risks."""
        output = self(batch)
        losses = self._losses(output, batch)
        self.log("val/loss", losses.total, prog_bar=True, batch_size=len(batch["label"]))
        self._log_parts("val", losses, len(batch["label"]))
        self.validation.update(batch, risk_of(output))

    def on_validation_epoch_start(self) -> None:
        """Starts the collection over."""
        self.validation = CrashEvaluation()

    def on_validation_epoch_end(self) -> None:
        """Logs video AP, legacy AP and mTTA of the validation clips, those that are defined."""
        clips = self.validation.clips()
        legacy = legacy_metrics(clips.risk, clips.label, clips.toa, float(clips.fps[0]))
        values = {"video_ap": video_ap(clips.risk, clips.label, clips.toa), "legacy_ap": legacy.ap,
                  "legacy_mtta": legacy.mtta}  # fmt: skip
        for name, value in values.items():
            if not math.isnan(value):
                self.log(f"val/{name}", value, prog_bar=name == "video_ap")

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Steps the schedule, but for "plateau": that has been, before Lightning wrote the checkpoint of the epoch."""
        if self.schedule != "plateau":
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Steps the "plateau", and writes the checkpoint folder of the epoch, unless checkpoints are turned off."""
        monitored = self.trainer.callback_metrics.get(self.plateau_monitor)
        if self.schedule == "plateau" and monitored is not None:  # Lightning complains where it is missing
            super().lr_scheduler_step(cast(Any, self.lr_schedulers()), monitored)
        folder = self.trainer.log_dir
        if folder is None or self.trainer.checkpoint_callback is None or not self.trainer.is_global_zero:
            return
        epoch = self.current_epoch + 1
        numbers = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        detector = getattr(getattr(self.trainer, "datamodule", None), "detector", None)
        self.stored(detector).save(Path(folder) / f"epoch_{epoch}", card=model_card(epoch, numbers))

    def on_test_start(self) -> None:
        """Chooses the threshold on the validation clips.

        Raises:
            InputError: On more than one device, because metrics need all clips at once.
        """
        if self.trainer.world_size > 1:
            raise InputError("The metrics need all clips in one place.", "Test with --trainer.devices 1.")
        self.point = validation_point(self, self.risks)
        self.evaluation, self.alone = CrashEvaluation(), CrashEvaluation()
        self.calm = CalmClips.of(validation_batches(self))
        self.num_tested = 0

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Collects the risks of a batch: of the clips alone, and after calm."""
        if 1 in self.test_lengths:
            risks = self.risks(batch)
            for collected in (self.evaluation, self.alone):
                collected.update(batch, risks)
        if self.calm is not None:
            for length in (length for length in self.test_lengths if length > 1):
                risks = self.calm.risks(self.model, batch, length, self.num_tested)
                self.evaluation.update(self.calm.named(batch, length), risks)
        self.num_tested += len(batch["label"])

    def on_test_epoch_end(self) -> None:
        """Prints the table, logs its numbers and writes everything."""
        clips = self.evaluation.clips()
        table, diagrams = score(clips, self.point)
        self.print(str(table))
        log_scores(self, table)
        if self.trainer.loggers:
            folder = Path(self.trainer.log_dir or ".") / "test"
            write_test(folder, table, diagrams)
            if 1 in self.test_lengths:
                write_curves(folder / "curves", self.alone.clips(), self.point.threshold, self.examples)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Returns the risks (B, T); ``mmattn infer crash`` is what writes them to files."""
        return self.risks(batch)

    def _losses(self, output: CrashOutput, batch: Batch) -> CrashLosses:
        rho = (self.model.rho_1, self.model.rho_2)
        return crash_loss(output, batch["label"], batch["toa"], batch["fps"], self.loss, rho=rho)

    def _log_parts(self, stage: str, losses: CrashLosses, batch_size: int) -> None:
        for name in ("frame", "auxiliary"):
            self.log(f"{stage}/{name}", getattr(losses, name), batch_size=batch_size)

    def stored(self, detector: str | None = None) -> StoredCrash:
        """Returns what a checkpoint folder of this model holds.

        Args:
            detector: The data's detector, used where the task names none; None where no detector perceived, as with
                exact states.

        Raises:
            CheckpointError: If the detector is none.
        """
        tensors = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        stored = StoredCrash(self.model.config, tensors, self.perception_tensors)
        if self.model.config.perception != "embedded":
            return stored
        if self.detector is not None:
            return stored.with_detector(self.detector)
        return stored if detector is None else stored.with_detector(detector)


def model_card(epoch: int, metrics: dict[str, float]) -> str:
    """Returns the card of a checkpoint written during training."""
    values = "\n".join(f"- {name}: {value:.4f}" for name, value in sorted(metrics.items()))
    return (
        f"# CRASH after epoch {epoch}\n\nTrained with `mmattn fit`; `config.yaml` beside this folder holds the whole "
        f"experiment. Advisory only: a risk score is no basis for driving a vehicle.\n\nNumbers of its last "
        f"step:\n\n{values}\n"
    )
