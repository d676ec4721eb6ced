"""``mmattn fit | validate | test | predict``: LightningCLI over every task and data module of the project.

The task and its data are named in YAML (``class_path`` and ``init_args``), several ``--config`` files merge from left
to right, and a config of the package may be named without its path (``--config crane/embedded``).

A value that is given in several places is taken from the strongest: a flag on the command line, then the config files
(the last one first), then the hyper-parameters stored in the ``--ckpt_path`` file, then the default. So everything
somebody wrote down holds, and a checkpoint fills in what nobody wrote. (LightningCLI on its own lets the checkpoint
override all.)
"""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mmattn.core.training.configs import resolve_configs
from mmattn.core.training.datamodule import BaseDataModule
from mmattn.core.training.resuming import AtomicCheckpoints
from mmattn.core.training.task import BaseTask
from mmattn.core.weights.torch_file import load_torch_file
from mmattn.errors import InputError, MmattnError, describe
from mmattn.media.regular import expanded

__all__ = ["CommandLine", "build", "cli_main"]

LOGGER = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": ""}}
"""Default logger: metrics.csv and config.yaml under ``runs/version_N``; needs no further package."""

DESCRIPTION = "Trains and tests. Example: mmattn fit --config crane/mvtec --data.init_args.train_root data/mvtec"

EXPECTED_WARNINGS = (
    r"Total length of `list` across ranks is zero",  # fit without validation data
    r"You passed in a `val_dataloader` but have no `validation_step`",  # the base has one for every task
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen backbones
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside Lightning
)

CHECKPOINT_WORDS = ("best", "last", "hpc")
"""Words Lightning accepts for ``--ckpt_path`` besides paths and addresses."""


def cli_main(args: Sequence[str] | None = None) -> int:
    """Runs one training command and returns 0.

    Args:
        args: Sub-command and flags, for example ``["fit", "--config", "crane/mvtec"]``; None takes ``sys.argv``.

    Raises:
        SystemExit: With code 2 after one message on stderr, when an option, a file or the data cannot be used.
        KeyboardInterrupt: After Ctrl-C, when Lightning has closed its loggers.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_no_advertisement)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).propagate = False  # they have handlers of their own
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    try:
        build(args)
    except (MmattnError, MisconfigurationException) as error:
        fail(*describe(error))
    except UnpicklingError:
        fail("The checkpoint holds more than tensors and plain containers; reading it could run code.",
             "Name one that this project wrote with --ckpt_path FILE.")  # fmt: skip
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        fail(str(error), "Check the path and the current folder; relative paths start there.")
    return 0


def build(args: Sequence[str] | None = None, command_line: type[CommandLine] | None = None) -> CommandLine:
    """Parses ``args``, runs the sub-command and returns the command line with its ``trainer`` and ``model``.

    Args:
        args: As for :func:`cli_main`.
        command_line: Class to build, a subclass that stops after parsing for example; None takes
            :class:`CommandLine`.
    """
    words = list(sys.argv[1:] if args is None else args)
    return (command_line or CommandLine)(
        BaseTask,
        BaseDataModule,
        args=resolve_configs(words),
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,  # the automatic one would take every parameter, the frozen ones included
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"logger": LOGGER},
        parser_class=ReadableParser,
        parser_kwargs={"prog": "mmattn", "description": DESCRIPTION},
    )


class CommandLine(LightningCLI):
    """LightningCLI with the order of precedence of this module; see there."""

    model: LightningModule
    datamodule: LightningDataModule

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses ``args``, with the hyper-parameters of ``--ckpt_path`` as the weakest config file."""
        self.words = list(args) if isinstance(args, list) else []
        self.config = parser.parse_args(self.words)

    def _parse_ckpt_path(self) -> None:
        """Parses again with the checkpoint's hyper-parameters put in front of everything that was given.

        Whatever spelling the checkpoint has, and wherever it was written, it is loaded with ``weights_only=True``.

        Raises:
            InputError: If the checkpoint is an address, or ``weights_only`` was turned off.
        """
        subcommand = self.config.get("subcommand")
        if subcommand is None:
            return
        if self.config[subcommand].get("weights_only") is False:
            raise InputError(
                "weights_only is false; checkpoints are read without running code from them, always.", "Leave it out."
            )
        path = self.config[subcommand].get("ckpt_path")
        if path is not None and str(path) not in CHECKPOINT_WORDS:
            self._parse_stored(subcommand, local_checkpoint(str(path)))
        self.config[subcommand]["weights_only"] = True

    def _parse_stored(self, subcommand: str, path: Path) -> None:
        hyper_parameters = read_hyper_parameters(path)
        if hyper_parameters:
            at = self.words.index(subcommand) + 1
            stored = ["--config", json.dumps({"model": hyper_parameters})]
            self.config = self.parser.parse_args([*self.words[:at], *stored, *self.words[at:]])
        # As an absolute path, which neither Lightning nor fsspec takes for an address.
        self.config[subcommand]["ckpt_path"] = str(path)

    def instantiate_classes(self) -> None:
        """Builds data, task and trainer.

        Raises:
            MmattnError: What one of them raised, freed from the parser's account of types it does not match.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, MmattnError):
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer.

        Raises:
            InputError: If the trainer refuses an option or a combination of options.
        """
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, MisconfigurationException) as error:
            raise InputError(f"The trainer's options cannot be used: {error}") from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a plugin of the user's own stays
            trainer.strategy.checkpoint_io = AtomicCheckpoints()
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs it; after Ctrl-C Lightning saves nothing more and exits with 1, and a shell expects the interrupt."""
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:
            if self.trainer.interrupted:
                raise KeyboardInterrupt from None
            raise


class SaveConfig(SaveConfigCallback):
    """Saves the whole configuration into the run folder; a run without a logger has none and writes nothing."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes ``config.yaml``."""
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class ReadableParser(LightningArgumentParser):
    """Parser whose errors are the message alone, without the list of all options and without parser vocabulary."""

    NOISE = ("Does not validate against any", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the cleaned message and exits with code 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        lines = (line.strip() for line in message.splitlines())
        text = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(self.NOISE))
        fail(text, f"All options: {self.prog.replace(' [options]', '')} --help")


def local_checkpoint(source: str) -> Path:
    """Returns the absolute path of a checkpoint on this machine.

    Raises:
        InputError: If it is an address of any kind, ``http://``, ``file:``, ``s3://`` or a chain of them with ``::``.

    >>> local_checkpoint("/runs/last.ckpt").as_posix()
    '/runs/last.ckpt'
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source) or "::" in source:
        raise InputError(
            f"The checkpoint '{source}' is an address, expected a file on this machine.",
            "Download it first and give its path.",
        )
    return expanded(source).absolute()


def read_hyper_parameters(path: Path) -> dict[str, Any]:
    """Returns the task stored in a Lightning checkpoint as ``{"class_path": ..., "init_args": ...}``, or ``{}``.

    Raises:
        CheckpointError: If the file is missing or unreadable.
    """
    if path.is_dir():  # sharded checkpoints hold no hyper-parameters
        return {}
    checkpoint = load_torch_file(path)
    values = {k: v for k, v in checkpoint.get("hyper_parameters", {}).items() if k != "_instantiator"}
    if "_class_path" not in values:
        return {}
    return {"class_path": values.pop("_class_path"), "init_args": values}


def is_no_advertisement(record: logging.LogRecord) -> bool:
    """Returns False for Lightning's tips to install commercial add-ons, which say nothing about the run."""
    return "Tip: " not in record.getMessage()


def fail(message: str, hint: str = "") -> NoReturn:
    """Prints one error to stderr and exits with code 2.

    Raises:
        SystemExit: Always, with code 2.
    """
    sys.stderr.write(f"error: {message}\n" + (f"{hint}\n" if hint else ""))
    raise SystemExit(2)
