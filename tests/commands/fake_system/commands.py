"""Each command remembers what it was called with, or fails the way its input says."""

import argparse
from typing import Any

from mmattn.errors import CheckpointError

calls: list[tuple[str, Any]] = []


def infer(request: Any) -> int:
    calls.append(("infer", request))
    return 1 if "bad.png" in request.inputs else 0


def convert(args: argparse.Namespace) -> int:
    calls.append(("convert", args))
    failures = {
        "our.pth": CheckpointError("'our.pth' does not fit.", "Use another."),
        "built-in.pth": ValueError("sizes differ"),
        "os.pth": PermissionError(13, "Permission denied", "os.pth"),
        "extra.pth": ModuleNotFoundError("No module named 'open_clip'", name="open_clip.factory"),
        "bug.pth": ModuleNotFoundError("No module named 'mmattn.nowhere'", name="mmattn.nowhere"),
        "interrupt.pth": KeyboardInterrupt(),
    }
    if args.file.name in failures:
        raise failures[args.file.name]
    return 0


def calibrate(args: argparse.Namespace) -> int:
    calls.append(("calibrate", args))
    return 0


def data_make(args: argparse.Namespace) -> int:
    calls.append(("data_make", args))
    return 0


def data_check(args: argparse.Namespace) -> int:
    calls.append(("data_check", args))
    return 1


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    if command == "convert":
        parser.add_argument("--variant", default="base")
