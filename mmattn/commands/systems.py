"""Finds a system's parts by name, and the arguments that several commands have.

What a system provides is written down in :mod:`mmattn.cli`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mmattn.errors import InputError

__all__ = [
    "SYSTEMS",
    "add_model_arguments",
    "add_own_arguments",
    "check_exists",
    "check_is_no_file",
    "class_of",
    "command_of",
    "parser_for",
    "part_of",
    "take_system",
]

SYSTEMS: dict[str, str] = {
    "crane": "mmattn.vision.crane",
    "crash": "mmattn.video.crash",
    "lina": "mmattn.speech.lina",
}
"""Package of every system that exists."""


def part_of(system: str, part: str) -> ModuleType:
    """Imports ``<package of system>.<part>``.

    Raises:
        InputError: If there is no such system, or it has no such part.
    """
    if system not in SYSTEMS:
        raise unknown_system(system)
    name = f"{SYSTEMS[system]}.{part}"
    if find_spec(name) is None:
        raise InputError(f"System {system!r} has no {part} module in this version.", f"Expected {name}.")
    return import_module(name)


def class_of(system: str, part: str, suffix: str) -> Any:
    """Returns a class by the naming rule: ``class_of("crane", "config", "InferOptions")`` is ``CraneInferOptions``."""
    return getattr(part_of(system, part), f"{system.capitalize()}{suffix}")


def command_of(system: str, command: str) -> Callable[[Any], int]:
    """Returns the system's function for a command.

    Raises:
        InputError: If the system has none.
    """
    function: Callable[[Any], int] | None = getattr(part_of(system, "commands"), command, None)
    if function is None:
        able = [name for name in SYSTEMS if hasattr(part_of(name, "commands"), command)]
        words = command.replace("_", " ")
        raise InputError(f"System {system!r} has no command '{words}'.", f"Systems that have it: {', '.join(able)}.")
    return function


def unknown_system(name: str) -> InputError:
    """Returns the error that lists the systems that exist."""
    near = get_close_matches(name, SYSTEMS, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return InputError(f"There is no system {name!r}.", f"Systems: {', '.join(SYSTEMS)}.{guess}")


def parser_for(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """Returns the empty parser of ``mmattn <command>``; every one ends its help with an example."""
    return argparse.ArgumentParser(
        prog=f"mmattn {command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def take_system(argv: Sequence[str], command: str, rest: str, description: str, example: str) -> tuple[str, list[str]]:
    """Splits off the system, which comes first because the flags that follow depend on it.

    Args:
        argv: Arguments after the command.
        command: The command, for messages.
        rest: What follows the system, for the usage line.
        description: What the command does.
        example: A command line to show.

    Raises:
        InputError: If the first argument is no system.
        SystemExit: After help, or with code 2 after the usage line when there is no argument.
    """
    if not argv or argv[0].startswith("-"):
        parser = parser_for(command, description, example)
        parser.usage = f"mmattn {command} SYSTEM {rest}"
        parser.add_argument("system", metavar="SYSTEM", choices=SYSTEMS, help=", ".join(SYSTEMS))
        parser.epilog = f"all flags of a system:\n  mmattn {command} {next(iter(SYSTEMS))} --help\n\n{parser.epilog}"
        if argv and argv[0] in ("-h", "--help"):
            parser.parse_args(["--help"])
        parser.error(f"the first argument must be a system: {', '.join(SYSTEMS)}")
    if argv[0] not in SYSTEMS:
        raise unknown_system(argv[0])
    return argv[0], list(argv[1:])


def add_own_arguments(system: str, command: str, parser: argparse.ArgumentParser) -> None:
    """Adds the system's own flags for a command, if it has any."""
    add = getattr(part_of(system, "commands"), "add_arguments", None)
    if add is not None:
        add(command, parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--checkpoint`` and ``--device``."""
    parser.add_argument(
        "--checkpoint",
        default="embedded",
        metavar="SOURCE",
        help="'embedded', a checkpoint folder, or hf:owner/name[/file][@revision] (default: embedded)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")


def check_exists(path: Path, name: str) -> None:
    """Checks that ``path`` exists; ``name`` is what the usage line calls it.

    Raises:
        InputError: If it does not.
    """
    if not path.exists():
        raise InputError(f"{name} '{path}' does not exist.", f"The current folder is '{Path.cwd()}'.")


def check_is_no_file(path: Path, name: str) -> None:
    """Checks that a folder ``path`` can be made; ``name`` is what the usage line calls it.

    Raises:
        InputError: If it, or what it lies in, is a file.
    """
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{name} '{place}' is a file, expected a folder to write to.", "Choose another path.")
