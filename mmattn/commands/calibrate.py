"""``mmattn calibrate SYSTEM FOLDER``: a threshold for your own data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmattn.commands.systems import command_of, parser_for, take_system
from mmattn.commands.tools import add_model_arguments, add_own_arguments, check_exists

__all__ = ["main"]

DESCRIPTION = "Finds the system's threshold from a folder of your own normal examples."
EXAMPLE = "mmattn calibrate crane photos/flawless --output calibration"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and calls the system's ``calibrate``."""
    system, rest = take_system(argv, "calibrate", "FOLDER [options]", DESCRIPTION, EXAMPLE)
    parser = parser_for(f"calibrate {system}", DESCRIPTION, EXAMPLE.replace("crane", system))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="normal examples")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for calibration.json")
    add_model_arguments(parser)
    add_own_arguments(system, "calibrate", parser)
    args = parser.parse_args(rest)
    calibrate = command_of(system, "calibrate")
    check_exists(args.folder, "FOLDER")
    return calibrate(args)
