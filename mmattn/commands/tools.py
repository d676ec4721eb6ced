"""What the commands around a system's checkpoints and data share."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmattn.commands.systems import part_of
from mmattn.errors import InputError

__all__ = ["add_model_arguments", "add_own_arguments", "check_exists", "check_is_no_file"]


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
    """Raises :class:`InputError` unless ``path`` exists; ``name`` is what the usage line calls it."""
    if not path.exists():
        raise InputError(f"{name} '{path}' does not exist.", f"The current folder is '{Path.cwd()}'.")


def check_is_no_file(path: Path, name: str) -> None:
    """Raises :class:`InputError` where no folder ``path`` can be made, since it or what it lies in is a file."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{name} '{place}' is a file, expected a folder to write to.", "Choose another path.")
