"""``mmattn bench NAME``: our form of a computation against the straightforward one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Parses the arguments and runs the benchmark."""
    from mmattn.bench import cli

    parser = argparse.ArgumentParser(prog="mmattn bench", description="Runs one benchmark and prints its table.")
    cli.add_arguments(parser)
    return cli.run(parser.parse_args(list(argv)))
