"""``mmattn export SYSTEM --output PATH``: a model for other runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmattn.commands.systems import command_of, parser_for, take_system
from mmattn.commands.tools import add_model_arguments, add_own_arguments

__all__ = ["main"]

DESCRIPTION = "Exports a model for runtimes outside Python."
EXAMPLE = "mmattn export crane --output crane.onnx"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and calls the system's ``export``."""
    system, rest = take_system(argv, "export", "--output PATH [options]", DESCRIPTION, EXAMPLE)
    parser = parser_for(f"export {system}", DESCRIPTION, EXAMPLE.replace("crane", system))
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="what to write")
    add_model_arguments(parser)
    add_own_arguments(system, "export", parser)
    args = parser.parse_args(rest)
    return command_of(system, "export")(args)
