"""``mmattn bench NAME``: run one benchmark, print its table, write its JSON and pictures."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmattn.bench import BENCHMARKS

if TYPE_CHECKING:
    from mmattn.bench.report import Report
    from mmattn.bench.timer import Options

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Parses the arguments of ``mmattn bench`` and runs the benchmark; ``--help`` imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="mmattn bench",
        description="Runs one benchmark and prints its table.",
        epilog="example:\n  mmattn bench attention --threads 1 2 --json attention.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(BENCHMARKS), metavar="NAME", help=", ".join(sorted(BENCHMARKS)))
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; '-' prints it instead of the table")
    parser.add_argument(
        "--threads", type=_positive, nargs="+", default=[1], metavar="N", help="torch threads (default 1)"
    )
    parser.add_argument("--repeats", type=_positive, default=7, metavar="N", help="timed rounds (default 7)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for pictures and, without --json, the JSON")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, measures nothing")
    return run(parser.parse_args(list(argv)))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected a whole number of at least 1")
    return value


def run(args: argparse.Namespace) -> int:
    """Runs the benchmark that was asked for; returns 0, or 1 when our outputs and a peer's disagree."""
    from mmattn.bench.timer import Options

    logging.basicConfig(format="%(message)s")
    logging.getLogger("mmattn.bench").setLevel(logging.INFO)
    options = Options(threads=tuple(args.threads), repeats=args.repeats, output=args.output, quick=args.quick)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    report = _load(BENCHMARKS[args.name])(options)
    if args.json == "-":
        print(json.dumps(report.to_json(), indent=2))
    else:
        print(report.table())
    for path in _json_paths(args):
        report.write(path)
        print(f"wrote {path}", file=sys.stderr)
    return 0 if report.agrees else 1


def _load(target: str) -> Callable[[Options], Report]:
    module, _, function = target.partition(":")
    benchmark: Callable[[Options], Report] = getattr(importlib.import_module(module), function or "run")
    return benchmark


def _json_paths(args: argparse.Namespace) -> list[Path]:
    if args.json not in (None, "-"):
        return [Path(args.json)]
    if args.json is None and args.output is not None:
        return [args.output / f"{args.name}.json"]
    return []
