"""``mmattn convert|export|calibrate SYSTEM``: weights that come in, models that go out, a threshold for your data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmattn.commands.systems import (
    add_model_arguments,
    add_own_arguments,
    check_exists,
    command_of,
    parser_for,
    take_system,
)

__all__ = ["main"]


class Words(NamedTuple):
    """What one of the commands says of itself.

    Attributes:
        does: What it does.
        rest: What follows the system, for the usage line.
        example: What follows the command, for Crane.
        source: Name and help of what it reads; None where that is a checkpoint.
        output: Metavar and help of ``--output``.
    """

    does: str
    rest: str
    example: str
    source: tuple[str, str] | None
    output: tuple[str, str]


COMMANDS = {
    "convert": Words(
        "Turns the weights that the authors released into a checkpoint folder.",
        "FILE --output DIR [options]",
        "released.pth --output checkpoints/crane",
        ("file", "released weights, or what else the system converts"),
        ("DIR", "checkpoint folder to write"),
    ),
    "export": Words(
        "Exports a model for runtimes outside Python.",
        "--output PATH [options]",
        "--output crane.onnx",
        None,
        ("PATH", "what to write"),
    ),
    "calibrate": Words(
        "Finds the system's threshold from a folder of your own normal examples.",
        "FOLDER [options]",
        "photos/flawless --output calibration",
        ("folder", "normal examples"),
        ("DIR", "folder for calibration.json"),
    ),
}


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and calls the system's function for the command.

    Args:
        argv: The command itself and its arguments.
    """
    command, words = argv[0], COMMANDS[argv[0]]
    example = f"mmattn {command} crane {words.example}"
    system, rest = take_system(argv[1:], command, words.rest, words.does, example)
    parser = parser_for(f"{command} {system}", words.does, example.replace("crane", system))
    if words.source is not None:
        name, text = words.source
        parser.add_argument(name, type=Path, metavar=name.upper(), help=text)
    metavar, text = words.output
    parser.add_argument("--output", type=Path, required=command != "calibrate", metavar=metavar, help=text)
    if command != "convert":
        add_model_arguments(parser)
    add_own_arguments(system, command, parser)
    args = parser.parse_args(rest)
    function = command_of(system, command)
    if words.source is not None:
        check_exists(getattr(args, name), name.upper())
    return function(args)
