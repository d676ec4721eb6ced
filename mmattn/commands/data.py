"""``mmattn data make|check SYSTEM PATH``: write the generated dataset, or look a real one over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmattn.commands.systems import (
    add_own_arguments,
    check_exists,
    check_is_no_file,
    command_of,
    parser_for,
    take_system,
)
from mmattn.errors import InputError

__all__ = ["main"]

ACTIONS = {
    "make": "Writes the system's generated dataset, the same one every time.",
    "check": "Looks over a dataset folder and names what is wrong with it.",
}
EXAMPLE = "mmattn data make crane datasets/synthetic\n  mmattn data check crane datasets/mvtec"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and calls the system's ``data_make`` or ``data_check``.

    Raises:
        InputError: If there is no such action or system.
    """
    if not argv or argv[0].startswith("-"):
        parser = parser_for("data", " ".join(ACTIONS.values()), EXAMPLE)
        parser.usage = "mmattn data make|check SYSTEM PATH [options]"
        parser.add_argument("action", choices=ACTIONS, metavar="make|check", help="what to do")
        parser.parse_args(list(argv))
    action = argv[0]
    if action not in ACTIONS:
        raise InputError(f"There is no 'mmattn data {action}'.", "Use: mmattn data make|check SYSTEM PATH")
    example = f"mmattn data {action} crane datasets/set"
    system, rest = take_system(argv[1:], f"data {action}", "PATH [options]", ACTIONS[action], example)
    parser = parser_for(f"data {action} {system}", ACTIONS[action], example.replace("crane", system))
    parser.add_argument("path", type=Path, metavar="PATH", help="folder of the dataset")
    add_own_arguments(system, f"data_{action}", parser)
    args = parser.parse_args(rest)
    function = command_of(system, f"data_{action}")
    if action == "check":
        check_exists(args.path, "PATH")
    else:
        check_is_no_file(args.path, "PATH")
    return function(args)
