"""Training that was stopped and resumed is the training that nothing stopped, bit for bit."""

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from mmattn.core.training.datamodule import BaseDataModule, EpochShuffle
from mmattn.core.training.lightning_cli import build
from mmattn.core.training.resuming import AtomicCheckpoints
from mmattn.errors import MediaError

ROOT = Path(__file__).parents[3]
EPOCHS = 2
# Two processes that import torch: ten seconds.
LONG = pytest.mark.skipif("MMATTN_FUZZ" not in os.environ, reason="the long form, run with MMATTN_FUZZ=1")


def crane(folder: Path) -> dict[str, Any]:
    from tests.vision.crane.fake_datasets import write_dataset
    from tests.vision.crane.tiny import tiny_config

    write_dataset("custom", folder / "pictures")
    data = {"train_dataset": "custom", "train_root": str(folder / "pictures"), "image_size": 48, "batch_size": 1}
    # Every second item is a mosaic of pictures that are drawn when it is loaded.
    data |= {"aug_rate": 0.5, "num_workers": 0}
    return described("vision.crane", "Crane", {"config": tiny_config().to_dict()}, data)


def crash(folder: Path) -> dict[str, Any]:
    from tests.video.crash.fake_datasets import BOXES, WIDTH, WRITERS

    WRITERS["dad"](folder / "clips", per_kind=4)
    size = {"feature_dim": WIDTH, "num_boxes": BOXES, "hidden_dim": 8, "grid": [2, 4], "classifier_dim": 4}
    config = {**size, "perception": "none", "fps": 20.0, "num_frames": 100}
    data = {"layout": "dad", "root": str(folder / "clips"), "batch_size": 2, "num_workers": 0}
    return described("video.crash", "Crash", {"config": config, "plateau_monitor": "train/loss"}, data)


def lina(folder: Path) -> dict[str, Any]:
    from mmattn.speech.lina.text.tokenizers import build_tokenizer
    from mmattn.speech.lina.weights.store import save_codec
    from tests.speech.lina.codec.tiny import embedded
    from tests.speech.lina.tiny import tiny_config
    from tests.speech.lina.tiny_folder import CODEC, write_recording

    save_codec(folder / "codec", embedded(config=CODEC), card="# tiny\n")
    for number in range(6):
        write_recording(folder / "speech" / "train" / "anna" / f"{number}.wav", "hello there", 0.3 + 0.1 * number)
    vocabulary = build_tokenizer("characters", {}).vocab_size
    config = tiny_config(text_vocab=vocabulary, position="sinusoidal").to_dict()
    task = {"config": config, "codec": str(folder / "codec"), "warmup_steps": 3, "frame_masking": 0.5}
    data = {"root": str(folder / "speech"), "codec": str(folder / "codec"), "tokenizer": "characters", "batch_size": 2}
    return described("speech.lina", "Lina", task, data)


def described(package: str, name: str, task: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": {"class_path": f"mmattn.{package}.task.{name}Task", "init_args": task},
        "data": {"class_path": f"mmattn.{package}.data.{name}DataModule", "init_args": data},
    }


SYSTEMS: dict[str, Callable[[Path], dict[str, Any]]] = {"crane": crane, "crash": crash, "lina": lina}


def saving(folder: Path) -> list[dict[str, Any]]:
    """Callbacks that keep a checkpoint of every step and one of every epoch's end."""
    usual = {"dirpath": str(folder / "checkpoints"), "save_top_k": -1, "auto_insert_metric_name": False}
    kinds = (
        {"every_n_train_steps": 1, "filename": "step-{step}", "save_on_train_epoch_end": False},
        {"every_n_epochs": 1, "filename": "epoch-{epoch}", "save_on_train_epoch_end": True},
    )
    name = "lightning.pytorch.callbacks.ModelCheckpoint"
    return [{"class_path": name, "init_args": {**usual, **kind}} for kind in kinds]


def flags(folder: Path, settings: dict[str, Any], run: str) -> list[str]:
    """The command that trains, with a loss for every step in ``runs/RUN/metrics.csv``."""
    logger = {"save_dir": str(folder / "runs"), "name": "", "version": run}
    trainer = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": EPOCHS,
        "log_every_n_steps": 1,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger},
        "callbacks": saving(folder / "runs" / run),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    config = folder / f"{run}.yaml"
    config.write_text(json.dumps({**settings, "trainer": trainer}))
    return ["fit", "--config", str(config)]


def losses(folder: Path, run: str) -> dict[int, float]:
    with (folder / "runs" / run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    name = next(key for key in rows[0] if key in ("train/loss", "train/loss_step"))
    return {int(row["step"]): float(row[name]) for row in rows if row[name]}


def state(folder: Path, run: str, name: str) -> dict[str, Any]:
    stored = torch.load(folder / "runs" / run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {key: stored[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")}


def differing(one: Any, other: Any, where: str = "") -> list[str]:
    """Names the places in which two nested states are not the same to the bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [text for key in one for text in differing(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            text for i, pair in enumerate(zip(one, other, strict=True)) for text in differing(*pair, f"{where}[{i}]")
        ]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [where]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any], int]]:
    @functools.cache
    def train(system: str) -> tuple[Path, dict[str, Any], int]:
        """A run that nothing stopped: its folder, settings and number of steps in an epoch."""
        folder = tmp_path_factory.mktemp(system)
        settings = SYSTEMS[system](folder)
        cli = build(flags(folder, settings, "whole"))
        return folder, settings, cli.trainer.global_step // EPOCHS

    return train


@pytest.mark.parametrize("place", ["at the end of an epoch", "in the middle of an epoch"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_resumed_training_equals_uninterrupted_training(
    whole: Callable[[str], tuple[Path, dict[str, Any], int]], system: str, place: str
) -> None:
    folder, settings, steps = whole(system)
    assert steps >= 3
    stopped, start = {
        "at the end of an epoch": ("epoch-0", steps),
        "in the middle of an epoch": (f"step-{steps + 1}", steps + 1),
    }[place]
    run = stopped
    # What this process drew before does not matter.
    torch.rand(7)
    saved = folder / "runs" / "whole" / "checkpoints" / f"{stopped}.ckpt"
    cli = build([*flags(folder, settings, run), "--ckpt_path", str(saved)])
    assert cli.trainer.global_step == EPOCHS * steps
    for name in ("epoch-1", f"step-{EPOCHS * steps}"):
        assert differing(state(folder, run, name), state(folder, "whole", name)) == []
    expected = {step: loss for step, loss in losses(folder, "whole").items() if step >= start}
    assert losses(folder, run) == expected
    assert len(set(expected.values())) == len(expected) == EPOCHS * steps - start


@pytest.mark.parametrize("kind", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=LONG)], ids=["kill -9", "ctrl-c"])
def test_stopped_training_goes_on_from_its_last_checkpoint(
    whole: Callable[[str], tuple[Path, dict[str, Any], int]], kind: signal.Signals
) -> None:
    folder, settings, steps = whole("crash")
    run = kind.name
    command = flags(folder, {**settings, "seed_everything": 0}, run)
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-m", "mmattn", *command, "--trainer.max_epochs", "1000000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=listens,
    )
    checkpoints = folder / "runs" / run / "checkpoints"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(checkpoints.glob("step-*.ckpt"))) < steps + 1:
        time.sleep(0.02)
    process.send_signal(kind)
    _, err = process.communicate(timeout=120)
    assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    # Every checkpoint with a final name is whole, the newest included.
    stored = {int(file.stem.partition("-")[2]): file for file in checkpoints.glob("step-*.ckpt")}
    for file in stored.values():
        torch.load(file, weights_only=True)
    name = f"step-{steps + 1}"
    assert differing(state(folder, run, name), state(folder, "whole", name)) == []
    epochs = max(stored) // steps + 1
    again = [*command, "--ckpt_path", str(stored[max(stored)]), "--trainer.max_epochs", str(epochs)]
    assert build(again).trainer.global_step == epochs * steps


class Noisy(Dataset[torch.Tensor]):
    """Items that are drawn when they are loaded."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return index + torch.rand(())


class NoisyData(BaseDataModule):
    def train_dataset(self) -> Noisy:
        return Noisy()


@LONG
def test_a_loader_with_processes_takes_the_order_of_its_epoch() -> None:
    """Torch's own asks for the order when it is made, which Lightning does before it tells the epoch."""
    loader = NoisyData(batch_size=2, num_workers=1, seed=5).train_dataloader()
    batches = iter(loader)
    loader.sampler.set_epoch(3)
    order = EpochShuffle([0] * 6, seed=5)
    order.set_epoch(3)
    assert torch.cat(list(batches)).floor().tolist() == list(order)


def test_batches_have_draws_of_their_own_where_the_run_has_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    loader = NoisyData(batch_size=2).train_dataloader()
    first = torch.cat(list(loader))
    assert torch.equal(torch.cat(list(loader)), first)
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert not torch.equal(torch.cat(list(loader)), first)
    monkeypatch.delenv("PL_GLOBAL_SEED")
    second = torch.cat(list(loader))
    assert not torch.equal(torch.cat(list(loader)), second)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.ckpt"
    AtomicCheckpoints().save_checkpoint({"x": torch.ones(3)}, file)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(MediaError, match=r"a\.ckpt: the disk is full"):
        AtomicCheckpoints().save_checkpoint({"x": torch.zeros(3)}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    assert torch.load(file, weights_only=True)["x"].tolist() == [1, 1, 1]
