import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.core.training.lightning_cli import CommandLine, build, cli_main
from mmattn.core.training.task import BaseTask
from mmattn.errors import InputError

QUIET = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


@dataclass(frozen=True)
class Shape:
    width: int = 2
    depth: int = 1


class ToyTask(BaseTask):
    """Pulls one weight towards one."""

    def __init__(self, lr: float = 0.1, momentum: float = 0.0, shape: Shape = Shape()) -> None:
        self.lr = lr
        self.momentum = momentum
        self.shape = shape
        super().__init__()

    def configure_models(self) -> None:
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return (self.weight - 1).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=self.lr, momentum=self.momentum)


class ToyData(BaseDataModule):
    """Two numbers."""

    def train_dataset(self) -> TensorDataset:
        return TensorDataset(torch.zeros(2))


class BrokenTask(ToyTask):
    """A task that cannot be built."""

    def configure_models(self) -> None:
        raise InputError("Width 7 is odd.", "Set model.init_args.width to 8.")


class InterruptedTask(ToyTask):
    """A task somebody stops with Ctrl-C."""

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        raise KeyboardInterrupt


class BrokenData(BaseDataModule):
    """Data that cannot be read."""

    def train_dataset(self) -> TensorDataset:
        raise InputError("Folder 'data/none' does not exist.", "Set data.init_args.root.")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "toy.yaml", {"lr": 0.25})


def write(path: Path, init_args: dict[str, Any]) -> Path:
    model = {"class_path": f"{__name__}.ToyTask", "init_args": init_args}
    data = {"class_path": f"{__name__}.ToyData", "init_args": {"batch_size": 2}}
    path.write_text(json.dumps({"trainer": QUIET, "model": model, "data": data}))
    return path


@pytest.fixture
def checkpoint(config: Path) -> Path:
    flags = ["--model.init_args.momentum", "0.5", "--model.init_args.shape.depth", "7"]
    cli = build(["fit", "--config", str(config), *flags])
    cli.trainer.save_checkpoint(config.parent / "a.ckpt")
    return config.parent / "a.ckpt"


def parse(*args: str) -> CommandLine:
    """Builds everything and runs nothing."""

    class ParseOnly(CommandLine):
        def _run_subcommand(self, subcommand: str) -> None:
            pass

    return build(["fit", *args], command_line=ParseOnly)


def test_fit_trains_the_named_task(config: Path) -> None:
    cli = build(["fit", "--config", str(config)])
    # one step of gradient descent from 0: 0 - 0.25 * 2 * (0 - 1)
    assert cli.model.weight.item() == pytest.approx(0.5)
    assert cli_main(["fit", "--config", str(config)]) == 0


def test_later_configs_and_then_flags_win(config: Path) -> None:
    overlay = config.parent / "overlay.yaml"
    overlay.write_text("model:\n  init_args:\n    lr: 1e-4\n    momentum: 0.9\n")
    cli = parse("--config", str(config), f"--config={overlay}", "--model.init_args.momentum", "0.1")
    assert (cli.model.lr, cli.model.momentum) == (1e-4, 0.1)


def test_checkpoint_fills_in_what_nobody_wrote(config: Path, checkpoint: Path) -> None:
    cli = parse("--config", str(config), "--ckpt_path", str(checkpoint))
    assert (cli.model.lr, cli.model.momentum, cli.model.shape) == (0.25, 0.5, Shape(depth=7))


def test_explicit_flag_beats_config_and_checkpoint(config: Path, checkpoint: Path) -> None:
    flags = ["--model.init_args.lr", "5", "--ckpt_path", str(checkpoint)]
    cli = parse("--config", str(config), *flags)
    assert (cli.model.lr, cli.model.momentum) == (5.0, 0.5)
    cli = build(["fit", "--config", str(config), "--trainer.max_epochs", "2", *flags])
    assert cli.trainer.global_step == 2
    assert cli.model.lr == 5.0


def test_config_beats_checkpoint_inside_a_dataclass_and_leaves_its_other_fields(config: Path, checkpoint: Path) -> None:
    write(config, {"shape": {"width": 9}})
    cli = parse("--config", str(config), "--ckpt_path", str(checkpoint))
    assert cli.model.shape == Shape(width=9, depth=7)
    assert cli.model.lr == 0.25


def test_saved_config_is_plain_and_can_be_used_again(config: Path) -> None:
    flags = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.init_args.save_dir", "logs"]
    first = build(["fit", "--config", str(config), *flags, "--model.init_args.momentum", "0.5"])
    saved = Path(first.trainer.log_dir) / "config.yaml"
    again = parse("--config", str(saved))
    assert (again.model.lr, again.model.momentum) == (0.25, 0.5)


def test_default_logger_writes_csv_without_tensorboard(config: Path) -> None:
    config.write_text(config.read_text().replace('"logger": false, ', ""))
    cli = parse("--config", str(config))
    assert type(cli.trainer.logger).__name__ == "CSVLogger"
    assert Path(cli.trainer.log_dir) == Path("runs/version_0")


FAILURES = {
    "missing config": (["--config", "nope.yaml"], "Config 'nope.yaml' is neither a file nor a shipped config"),
    "unknown option": (["--model.init_args.nope", "3"], "Option 'nope' is not accepted"),
    "unknown trainer option": (["--trainer.nope", "3"], "unrecognized arguments: --trainer.nope 3"),
    "unknown class": (["--model", "nowhere.Task"], "No module named 'nowhere'"),
    "wrong type": (["--model.init_args.lr", "fast"], "fast"),
    "missing checkpoint": (["--ckpt_path", "nope.ckpt"], "nope.ckpt' does not exist"),
    "not our task": (["--model", "torch.nn.Linear"], "torch.nn.Linear"),
    "bad trainer": (["--trainer.accelerator", "abacus"], "abacus"),
    "task error": (["--model", f"{__name__}.BrokenTask"], "error: Width 7 is odd."),
    "data error": (["--data", f"{__name__}.BrokenData"], "Folder 'data/none' does not exist."),
}


@pytest.mark.parametrize(("flags", "message"), FAILURES.values(), ids=FAILURES.keys())
def test_error_is_one_message_and_code_2(
    config: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli_main(["fit", "--config", str(config), *flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    shown = error[error.index("error: ") :]
    assert message in shown
    assert "Traceback" not in error
    assert len(shown.splitlines()) <= 3
    assert "usage:" not in error


def test_unreadable_checkpoint_is_one_message(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "bad.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(SystemExit) as stop:
        cli_main(["fit", "--config", str(config), "--ckpt_path", "bad.ckpt"])
    assert stop.value.code == 2
    assert "bad.ckpt" in capsys.readouterr().err


class Ran(Exception):
    """Code from a checkpoint was run."""


class Bomb:
    """Unpickled, it raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _explode, ()


def _explode() -> None:
    raise Ran


ADDRESSES = {
    "http": ("fit", "http://127.0.0.1:9", False), "file": ("fit", "file://", False), "short": ("fit", "file:", False),
    "registry": ("fit", "registry:", False), "s3 in YAML": ("validate", "s3://bucket", True),
    "chain": ("predict", "filecache::file://", True), "https in YAML": ("test", "https://127.0.0.1:9", True),
}  # fmt: skip


@pytest.mark.parametrize(("command", "scheme", "in_yaml"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_an_address_is_refused_in_every_spelling_before_anything_is_loaded(
    config: Path, capsys: pytest.CaptureFixture[str], command: str, scheme: str, in_yaml: bool
) -> None:
    bomb = config.parent / "bomb.ckpt"
    torch.save({"state_dict": Bomb()}, bomb)
    flags = ["--ckpt_path", f"{scheme}{bomb}"]
    if in_yaml:
        (config.parent / "more.yaml").write_text(json.dumps({"ckpt_path": flags[1]}))
        flags = ["--config", "more.yaml"]
    with pytest.raises(SystemExit) as stop:
        cli_main([command, "--config", str(config), *flags])
    assert stop.value.code == 2
    assert "is an address, expected a file on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "source"), [("fit", None), ("test", "last"), ("fit", "a.ckpt"),
                                                 ("predict", "best"), ("validate", "a.ckpt")])  # fmt: skip
def test_every_checkpoint_is_loaded_as_weights_only(
    config: Path, checkpoint: Path, source: str | None, command: str
) -> None:
    class ParseOnly(CommandLine):
        def _run_subcommand(self, subcommand: str) -> None:
            pass

    flags = [] if source is None else ["--ckpt_path", source]
    cli = build([command, "--config", str(config), *flags], command_line=ParseOnly)
    assert cli.config[command]["weights_only"] is True
    # Neither Lightning nor fsspec takes an absolute path for an address.
    assert cli.config[command]["ckpt_path"] == (str(checkpoint.absolute()) if source == "a.ckpt" else source)


def test_weights_only_cannot_be_turned_off(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli_main(["fit", "--config", str(config), "--weights_only", "false"])
    assert "weights_only is false" in capsys.readouterr().err


def test_a_last_checkpoint_that_runs_code_does_not(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    folder = config.parent / "runs"
    folder.mkdir()
    torch.save({"state_dict": Bomb()}, folder / "last.ckpt")
    callback = ["--trainer.callbacks", "lightning.pytorch.callbacks.ModelCheckpoint",
                "--trainer.callbacks.dirpath", str(folder), "--trainer.enable_checkpointing", "true"]  # fmt: skip
    with pytest.raises(Exception, match=r"[Ww]eights") as caught:
        build(["fit", "--config", str(config), *callback, "--ckpt_path", "last"])
    assert not isinstance(caught.value, Ran)


def test_interrupt_reaches_the_shell(config: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cli_main(["fit", "--config", str(config), "--model", f"{__name__}.InterruptedTask"])


def test_help_shows_an_example_and_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli_main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "mmattn fit --config" in shown
