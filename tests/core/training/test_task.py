from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from mmattn.core.training.task import BaseTask, frozen_keys, to_plain
from mmattn.errors import CheckpointError


@dataclass(frozen=True)
class Sizes:
    width: int = 3
    factors: tuple[float, ...] = (1.0, 2.0)


class LineTask(BaseTask):
    """Fits the trained layer on top of a frozen one."""

    def __init__(self, sizes: Sizes = Sizes(), folder: Path = Path("data"), lr: float = 0.1) -> None:
        self.sizes = sizes
        self.folder = folder
        self.lr = lr
        self.calls: list[str] = []
        super().__init__()

    def configure_models(self) -> None:
        self.calls.append("models")
        self.frozen = nn.Sequential(nn.Linear(2, self.sizes.width), nn.BatchNorm1d(self.sizes.width))
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(self.sizes.width, 1)

    def configure_losses(self) -> None:
        self.calls.append("losses")

    def configure_metrics(self) -> None:
        self.calls.append("metrics")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frozen(x))

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return (self(batch[0]) - 1).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=self.lr)


def train(task: LineTask, folder: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 2)), batch_size=4)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / "task.ckpt")
    return folder / "task.ckpt"


def test_hooks_run_in_order_and_see_the_arguments() -> None:
    task = LineTask(Sizes(width=5))
    assert task.calls == ["models", "losses", "metrics"]
    assert task.head.in_features == 5


def test_hyper_parameters_are_plain_values() -> None:
    task = LineTask(Sizes(width=4), Path("pictures"), lr=0.5)
    saved = {k: v for k, v in task.hparams.items() if not k.startswith("_")}
    assert saved == {"sizes": {"width": 4, "factors": [1.0, 2.0]}, "folder": "pictures", "lr": 0.5}


def test_checkpoint_has_no_frozen_weights_and_loads_into_a_task_that_has_them(tmp_path: Path) -> None:
    torch.manual_seed(1)
    task = LineTask(Sizes(width=4), lr=0.5)
    path = train(task, tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == {"head.weight", "head.bias"}

    torch.manual_seed(1)  # the frozen part is re-created the way it was made
    loaded = LineTask.load_from_checkpoint(path)
    assert (loaded.sizes, loaded.folder, loaded.lr) == (Sizes(width=4, factors=(1.0, 2.0)), Path("data"), 0.5)
    torch.testing.assert_close(loaded.head.weight, task.head.weight, rtol=0, atol=0)
    assert torch.equal(loaded.frozen[0].weight, task.frozen[0].weight)


def test_checkpoint_without_a_trained_tensor_is_refused_by_name(tmp_path: Path) -> None:
    path = train(LineTask(), tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["state_dict"]["head.bias"]
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match=r"1 missing \(head\.bias\)"):
        LineTask.load_from_checkpoint(path)


def test_resuming_continues_from_the_saved_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    task = LineTask()
    path = train(task, tmp_path)
    torch.manual_seed(1)
    resumed = LineTask()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 2)), batch_size=4)
    trainer.fit(resumed, data, ckpt_path=path)
    assert trainer.global_step == 2
    assert torch.equal(resumed.head.weight, task.head.weight)


def test_frozen_keys_cover_buffers_of_frozen_parts_only() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    module[0].requires_grad_(False)
    assert frozen_keys(module) == {
        "0.weight",
        "0.bias",
        "0.running_mean",
        "0.running_var",
        "0.num_batches_tracked",
    }


def test_plain_form_keeps_nesting() -> None:
    colour = Enum("Colour", ["RED"])
    assert to_plain({"a": [Sizes()], "b": colour.RED, "c": (Path("x"), None, True)}) == {
        "a": [{"width": 3, "factors": [1.0, 2.0]}],
        "b": "RED",
        "c": ["x", None, True],
    }
