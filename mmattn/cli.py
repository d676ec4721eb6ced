"""The ``mmattn`` command: finds the sub-command, and turns errors into one message and an exit code.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once. Each sub-command has a module
(:data:`COMMANDS`) with ``main(argv) -> int``. Exit codes: 0 fine, 1 some items failed, 2 usage, 130 interrupted.

What a system provides
----------------------
A system is one line in :data:`mmattn.commands.systems.SYSTEMS` (``"crane": "mmattn.vision.crane"``). Its package has,
by these names, ``Name`` being the capitalised system name:

``config``
    ``NameConfig`` and ``NameInferOptions``: dataclasses, no torch. Each field whose metadata has a ``help`` text
    becomes a flag of ``mmattn infer``; a field of ``NameConfig`` that is not given on the command line stays as the
    checkpoint has it. Where some runs have no input or write no results, the options' property ``optional`` names
    what this one does without: ``"INPUT"``, ``"--output"``. Optionally ``RECIPES``, whose keys are the choices of a
    field called ``recipe``.
``predictor``
    ``NamePredictor.from_pretrained(source, *, device, options=NameInferOptions(...), **overrides)``.
``commands``
    No torch at import. Any of these functions; a command without its function says that the system has none.
    ``infer(request: InferRequest) -> int``: calls :func:`mmattn.core.batch.runner.run_batch`.
    ``live(request: InferRequest) -> int``: what ``mmattn infer --live SOURCE`` does; ``request.live`` is the source.
    ``convert(args) -> int``: ``args.file: Path``, ``args.output: Path``.
    ``export(args) -> int``: ``args.checkpoint: str``, ``args.output: Path``.
    ``calibrate(args) -> int``: ``args.folder: Path``, ``args.checkpoint: str``, ``args.device: str``,
    ``args.output: Path | None``.
    ``data_make(args) -> int``: ``args.path: Path``.
    ``data_check(args) -> int``: ``args.path: Path``.
    ``add_arguments(command, parser) -> None``: optional; adds the system's own flags to one of ``"convert"``,
    ``"export"``, ``"calibrate"``, ``"data_make"``, ``"data_check"``; they arrive in ``args``.

In :mod:`mmattn.ui`, ``ui.<system>.build_app(predictors)`` takes a mapping of names to predictors.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from mmattn import __version__
from mmattn.errors import MissingExtraError, MmattnError, describe

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "infer": ("commands.infer", "run a system over files and folders"),
    "app": ("commands.app", "use a system in the browser"),
    "fit": ("commands.train", "train"),
    "validate": ("commands.train", "measure on validation data"),
    "test": ("commands.train", "measure on test data"),
    "predict": ("commands.train", "predict on a data module"),
    "bench": ("bench.cli", "measure speed against the straightforward form"),
    "convert": ("commands.weights", "turn released weights into a checkpoint"),
    "export": ("commands.weights", "export a model for other runtimes"),
    "calibrate": ("commands.weights", "find a threshold for your own data"),
    "data": ("commands.data", "make the generated dataset, or check a real one"),
    "info": ("commands.info", "show versions, devices, backends and embedded models"),
}
"""Command -> its module in this package, one line of help."""

EXAMPLES = """examples:
  mmattn infer crane photos/ --output results
  mmattn app crane
  mmattn fit --config crane/embedded
"""
EXTRAS = {
    "lightning": "train", "jsonargparse": "train", "torchmetrics": "train", "matplotlib": "train", "timm": "vision",
    "open_clip": "vision", "cv2": "vision", "scipy": "vision", "av": "video", "decord": "video", "gradio": "apps",
    "onnx": "export", "onnxruntime": "export", "onnxscript": "export",
    "soundfile": "speech", "gruut": "speech",
}  # fmt: skip
"""Import name of an optional package -> extra of mmattn that brings it."""

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; ``argv`` defaults to the process's arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    if debug:
        logging.getLogger("mmattn").setLevel(logging.DEBUG)
    command = words[0] if words else "the command"
    usual_format = warnings.formatwarning
    if not debug:
        warnings.formatwarning = format_warning
    try:
        return flushed(dispatch, words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE if stop.code else 0
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (as in "| head"); what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        return report(MissingExtraError(missing, EXTRAS[missing], f"'mmattn {command}'"), debug)
    except (MmattnError, OSError, ValueError) as error:
        return report(error, debug)
    finally:
        warnings.formatwarning = usual_format


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Returns what a warning is printed as: what it says, without the place in the source that said it."""
    return f"warning: {message}\n"


def flushed(run: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Runs and writes out what was printed, so that a closed pipe is noticed here and not while Python exits."""
    try:
        return run(words)
    finally:
        if sys.stdout is not None:  # a process started without stdout has none
            sys.stdout.flush()


def dispatch(words: Sequence[str]) -> int:
    """Imports the module of the command and runs it.

    Raises:
        MmattnError: If there is no such command.
    """
    if not words or words[0].startswith("-"):
        parser = build_parser()
        parser.parse_args(list(words))
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    command, rest = words[0], list(words[1:])
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise MmattnError(f"There is no command {command!r}.", f"Commands: {', '.join(COMMANDS)}.{guess}")
    module = COMMANDS[command][0]
    run: Callable[[Sequence[str]], int] = import_module(f"mmattn.{module}").main
    # A module of several commands is told which.
    is_shared = [name for name, _ in COMMANDS.values()].count(module) > 1
    return run([command, *rest] if is_shared else rest)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser behind ``mmattn --help``."""
    table = "\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mmattn",
        usage="mmattn COMMAND ... [--debug]",
        description="Attention-based multimodal systems: train, run, serve.",
        epilog=f"commands ('mmattn COMMAND --help' tells more):\n{table}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mmattn {__version__}")
    parser.add_argument("--debug", action="store_true", help="with any command: show the traceback of an error")
    return parser


def report(error: Exception, debug: bool) -> int:
    """Prints an error as one message, with its traceback on request, and returns the exit code for usage."""
    if debug:
        traceback.print_exception(error)
    message, hint = describe(error)
    if isinstance(error, OSError) and not isinstance(error, MmattnError) and error.filename is not None:
        message = f"{error.strerror}: '{error.filename}'"
    if isinstance(error.__cause__, IsADirectoryError):
        hint = hint or "It is a folder, expected a single file."
    # Errors with a hint, even an empty one, are made for people.
    if not hasattr(error, "hint") and not hint and not debug:
        hint = "The same command with --debug shows where this comes from."
    sys.stderr.write(f"mmattn: error: {message}\n" + (f"hint: {hint}\n" if hint else ""))
    return EXIT_USAGE
