"""``mmattn convert SYSTEM FILE --output DIR``: released weights into a checkpoint folder of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmattn.commands.systems import command_of, parser_for, take_system
from mmattn.commands.tools import add_own_arguments, check_exists

__all__ = ["main"]

DESCRIPTION = "Turns the weights that the authors released into a checkpoint folder."
EXAMPLE = "mmattn convert crane released.pth --output checkpoints/crane"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and calls the system's ``convert``."""
    system, rest = take_system(argv, "convert", "FILE --output DIR [options]", DESCRIPTION, EXAMPLE)
    parser = parser_for(f"convert {system}", DESCRIPTION, EXAMPLE.replace("crane", system))
    parser.add_argument("file", type=Path, metavar="FILE", help="released weights, or what else the system converts")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    add_own_arguments(system, "convert", parser)
    args = parser.parse_args(rest)
    convert = command_of(system, "convert")
    check_exists(args.file, "FILE")
    return convert(args)
