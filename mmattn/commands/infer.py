"""``mmattn infer SYSTEM INPUT... --output DIR``: run a system over files and folders."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmattn.commands.flags import add_flags, given_flags
from mmattn.commands.systems import class_of, command_of, parser_for, part_of, take_system
from mmattn.core.request import InferRequest

__all__ = ["main"]

DESCRIPTION = "Runs a system over files, folders, globs or @list.txt and writes results, results.jsonl and run.json."
EXAMPLE = "mmattn infer crane photos/ --output results"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and hands an :class:`InferRequest` to the system."""
    system, rest = take_system(argv, "infer", "INPUT... --output DIR [options]", DESCRIPTION, EXAMPLE)
    options_class, config_class = class_of(system, "config", "InferOptions"), class_of(system, "config", "Config")
    args = build_parser(system, options_class, config_class).parse_intermixed_args(rest)
    request = InferRequest(
        system=system,
        inputs=args.inputs,
        output=args.output,
        checkpoint=args.checkpoint,
        device=args.device,
        batch_size=args.batch_size,
        workers=args.workers,
        seed=args.seed,
        limit=args.limit,
        dry_run=args.dry_run,
        overwrite=args.overwrite,
        options=options_class(**given_flags(args, options_class)),
        overrides=given_flags(args, config_class),
    )
    return command_of(system, "infer")(request)


def build_parser(system: str, options_class: type, config_class: type) -> argparse.ArgumentParser:
    """Returns the parser of one system, its flags made from its two dataclasses."""
    parser = parser_for(f"infer {system}", DESCRIPTION, EXAMPLE.replace("crane", system))
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="file, folder, quoted glob, or @list.txt with one of these per line"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    add_run_flags(parser)
    recipes = getattr(part_of(system, "config"), "RECIPES", None)
    choices: dict[str, Sequence[str]] = {"recipe": list(recipes)} if recipes else {}
    add_flags(parser.add_argument_group(f"{system}: this run"), options_class, choices=choices)
    add_flags(parser.add_argument_group(f"{system}: scoring"), config_class, unset="the checkpoint's")
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every system has."""
    parser.add_argument(
        "--checkpoint",
        default="embedded",
        metavar="SOURCE",
        help="'embedded', a checkpoint folder, or hf:owner/name[/file][@revision] (default: embedded)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="items per forward pass (default: 4)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read ahead (default: 2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="start of the random state (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N inputs")
    parser.add_argument("--dry-run", action="store_true", help="list what would be done; load and write nothing")
    parser.add_argument("--overwrite", action="store_true", help="start the output folder over")
