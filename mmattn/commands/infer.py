"""``mmattn infer SYSTEM INPUT... --output DIR``: run a system over files and folders.

A system's own flags come from its two dataclasses: a field's type, default and ``help`` text say it all.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmattn.commands.systems import add_model_arguments, class_of, command_of, parser_for, part_of, take_system
from mmattn.core.batch.inputs import InferRequest
from mmattn.errors import InputError

__all__ = ["add_flags", "given_flags", "main"]

DESCRIPTION = "Runs a system over files, folders, globs or @list.txt and writes results, results.jsonl and run.json."
EXAMPLE_INPUTS = {"crane": "photos/", "crash": "drives/", "lina": "script.txt"}
EXAMPLE = f"mmattn infer crane {EXAMPLE_INPUTS['crane']} --output results"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and hands an :class:`InferRequest` to the system."""
    system, rest = take_system(argv, "infer", "INPUT... --output DIR [options]", DESCRIPTION, EXAMPLE)
    options_class, config_class = class_of(system, "config", "InferOptions"), class_of(system, "config", "Config")
    parser = build_parser(system, options_class, config_class)
    args = parser.parse_intermixed_args(rest)
    live, live_seconds = getattr(args, "live", None), getattr(args, "live_seconds", None)
    options = options_class(**given_flags(args, options_class))
    check_inputs(parser, args.inputs, live, live_seconds, optional=getattr(options, "optional", ()))
    if args.output is None and (args.inputs or "--output" not in options.optional):
        parser.error("the following arguments are required: --output")
    request = InferRequest(
        system=system,
        inputs=args.inputs,
        output=args.output or Path(),
        checkpoint=args.checkpoint,
        device=args.device,
        batch_size=args.batch_size,
        workers=args.workers,
        seed=args.seed,
        limit=args.limit,
        dry_run=args.dry_run,
        overwrite=args.overwrite,
        fsync=args.fsync,
        options=options,
        overrides=given_flags(args, config_class),
        live=live,
        live_seconds=live_seconds,
    )
    return command_of(system, "infer" if live is None else "live")(request)


def check_inputs(
    parser: argparse.ArgumentParser,
    inputs: Sequence[str],
    live: str | None,
    live_seconds: float | None,
    *,
    optional: Collection[str] = (),
) -> None:
    """Ends with a message unless there is either an input or a live source, or the options do without.

    Raises:
        InputError: If both are given, or the seconds of a live source do not fit.
    """
    if live is None and not inputs and "INPUT" not in optional:
        parser.error("the following arguments are required: INPUT")
    if live is not None and inputs:
        raise InputError(f"--live {live} takes no INPUT, and {len(inputs)} were given.", "Leave one of the two out.")
    if live_seconds is not None and (live is None or not live_seconds > 0):
        raise InputError(f"--live-seconds is {live_seconds}, expected a positive number beside --live.")


def build_parser(system: str, options_class: type, config_class: type) -> argparse.ArgumentParser:
    """Returns the parser of one system, its flags made from its two dataclasses."""
    example = f"mmattn infer {system} {EXAMPLE_INPUTS.get(system, 'inputs/')} --output results"
    parser = parser_for(f"infer {system}", DESCRIPTION, example)
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="file, folder, quoted glob, or @list.txt with one of these per line"
    )
    # A system whose options tell what they do without is asked when they are known.
    required = not hasattr(options_class, "optional")
    parser.add_argument("--output", type=Path, required=required, metavar="DIR", help="folder for the results")
    add_run_flags(parser)
    if hasattr(part_of(system, "commands"), "live"):
        parser.add_argument(
            "--live", metavar="SOURCE", help="watch a camera (its number), a file or an address instead of INPUT"
        )
        parser.add_argument("--live-seconds", type=float, metavar="S", help="stop watching after S seconds")
    recipes = getattr(part_of(system, "config"), "RECIPES", None)
    choices: dict[str, Sequence[str]] = {"recipe": list(recipes)} if recipes else {}
    add_flags(parser.add_argument_group(f"{system}: this run"), options_class, choices=choices)
    add_flags(parser.add_argument_group(f"{system}: scoring"), config_class, unset="the checkpoint's")
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every system has."""
    add_model_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="items per forward pass (default: 4)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read ahead (default: 2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="start of the random state (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N inputs")
    parser.add_argument("--dry-run", action="store_true", help="list what would be done; load and write nothing")
    parser.add_argument("--overwrite", action="store_true", help="start the output folder over")
    parser.add_argument(
        "--no-fsync", dest="fsync", action="store_false", help="do not wait for the disk: a power loss may cost results"
    )


def add_flags(
    group: argparse._ActionsContainer,
    cls: type,
    *,
    unset: str | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Adds one flag per field of ``cls`` that has a ``help`` text in its metadata.

    ``bool`` becomes ``--flag/--no-flag``, ``Literal`` lists its choices, ``X | None`` takes an X. A flag that is not
    given leaves no trace in the namespace, so that :func:`given_flags` returns only what was typed.

    Args:
        group: Parser or group to add to.
        cls: A dataclass.
        unset: What holds when the flag is not given, for the help; None shows the field's default.
        choices: Allowed values by field name, for fields whose type does not say.
    """
    hints = get_type_hints(cls)
    for field in fields(cls):
        text = field.metadata.get("help")
        if text is None:
            continue
        add_flag(group, cls, field, hints[field.name], describe_default(field, text, unset), choices or {})


def given_flags(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Returns the fields of ``cls`` that were set on the command line."""
    prefix = f"{cls.__name__}."
    return {name.removeprefix(prefix): value for name, value in vars(args).items() if name.startswith(prefix)}


def add_flag(
    group: argparse._ActionsContainer,
    cls: type,
    field: Field[Any],
    hint: Any,
    text: str,
    choices: Mapping[str, Sequence[str]],
) -> None:
    """Adds the flag of one field.

    Raises:
        TypeError: If no flag can hold values of the field's type.
    """
    flag = f"--{field.name.replace('_', '-')}"
    common: dict[str, Any] = {"dest": f"{cls.__name__}.{field.name}", "default": argparse.SUPPRESS, "help": text}
    kind = without_none(hint)
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
    elif get_origin(kind) is Literal:
        group.add_argument(flag, choices=get_args(kind), **common)
    elif field.name in choices:
        group.add_argument(flag, choices=list(choices[field.name]), **common)
    elif kind in (int, float, str):
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **common)
    else:
        raise TypeError(f"{cls.__name__}.{field.name} is a {hint}, which no flag can hold; drop its help text")


def without_none(hint: Any) -> Any:
    """Returns X for ``X | None`` and any other type as it is."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else hint


def describe_default(field: Field[Any], text: str, unset: str | None) -> str:
    """Returns the help text with what holds when the flag is not given; argparse needs ``%`` doubled."""
    default = field.default
    if unset is not None:
        text = f"{text} (default: {unset})"
    elif default is not None and default is not MISSING:
        text = f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"
    return text.replace("%", "%%")
