"""``mmattn app [SYSTEM]``: a system in the browser, or all that have a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmattn.commands.systems import SYSTEMS, class_of, parser_for, part_of, unknown_system
from mmattn.errors import InputError, WeightsUnavailableError
from mmattn.ui.accounts import check_share, read_accounts

__all__ = ["main"]

DESCRIPTION = "Serves a system as a page in the browser; without SYSTEM, one page with all that have a model."
EXAMPLE = "mmattn app crane --checkpoint small=embedded mine=checkpoints/crane"


def main(argv: Sequence[str]) -> int:
    """Parses the arguments, loads the models and serves the page until it is stopped.

    Raises:
        InputError: If options need a system and none is named, there is no such system, the accounts cannot be read,
            or the page is to be shared without any.
    """
    args = build_parser().parse_args(list(argv))
    accounts = read_accounts(args.auth_file)
    check_share(args.share, accounts)
    if args.system is None:
        if args.checkpoint or args.recipe:
            raise InputError("--checkpoint and --recipe need a SYSTEM.", f"For example: {EXAMPLE}")
        demo = build_hub(args.device)
    else:
        if args.system not in SYSTEMS:
            raise unknown_system(args.system)
        demo = build_system(args.system, args.checkpoint or ["embedded"], args.recipe, args.device)
    import_module("mmattn.ui.serve").launch(
        demo, host=args.host, port=args.port, share=args.share, trusted=args.trusted_host or (), accounts=accounts
    )
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = parser_for("app", DESCRIPTION, EXAMPLE)
    parser.add_argument("system", nargs="?", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        metavar="NAME=SOURCE",
        help="models to choose from; SOURCE is 'embedded', a folder or hf:owner/name (default: embedded)",
    )
    parser.add_argument(
        "--recipe",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="named settings to choose from (default: as stored)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, metavar="N", help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--trusted-host",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="further names under which the page may be asked for, such as crane.example.org behind a proxy",
    )
    parser.add_argument(
        "--auth-file",
        type=Path,
        metavar="FILE",
        help="accounts that may enter, user:password a line (default: those in MMATTN_AUTH; without both, everybody)",
    )
    parser.add_argument("--share", action="store_true", help="also open a public gradio.live address; needs accounts")
    return parser


def build_system(system: str, checkpoints: Sequence[str], recipes: Sequence[str] | None, device: str) -> Any:
    """Returns the app of one system with all its models loaded, one for each checkpoint and recipe.

    Raises:
        InputError: If the system has no recipe of that name.
    """
    options_class = class_of(system, "config", "InferOptions")
    known = getattr(part_of(system, "config"), "RECIPES", {})
    for recipe in recipes or ():
        if recipe not in known:
            raise InputError(f"System {system!r} has no recipe {recipe!r}.", f"Recipes: {', '.join(known) or 'none'}.")
    predictor_class = class_of(system, "predictor", "Predictor")
    predictors = {}
    for name, source in parse_checkpoints(checkpoints).items():
        for choice in recipes or (None,):
            options = options_class() if choice is None else options_class(recipe=choice)
            label = name if choice is None else f"{name}, {choice}"
            predictors[label] = predictor_class.from_pretrained(source, device=device, options=options)
    return import_module(f"mmattn.ui.{system}").build_app(predictors)


def build_hub(device: str) -> Any:
    """Returns the page with all systems whose embedded model is installed.

    Raises:
        WeightsUnavailableError: If no system has an embedded model.
    """
    from mmattn.core.weights.checkpoint import embedded_path

    ready = [system for system in SYSTEMS if (embedded_path(system) / "model.safetensors").is_file()]
    if not ready:
        raise WeightsUnavailableError(
            "No system has an embedded model in this installation.",
            f"Name a checkpoint: mmattn app {next(iter(SYSTEMS))} --checkpoint PATH",
        )
    apps = {system.capitalize(): build_system(system, ["embedded"], None, device) for system in ready}
    return import_module("mmattn.ui.hub").build_hub(apps)


def parse_checkpoints(texts: Sequence[str]) -> dict[str, str]:
    """Reads ``NAME=SOURCE``; a source alone is called by its last part.

    Raises:
        InputError: If two have the same name, or a name or source is empty.

    >>> parse_checkpoints(["small=embedded", "checkpoints/mine"])
    {'small': 'embedded', 'mine': 'checkpoints/mine'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals:
            name, source = Path(text).name, text
        if not name or not source:
            raise InputError(f"--checkpoint {text!r} is not of the form NAME=SOURCE.", f"For example: {EXAMPLE}")
        if name in found:
            raise InputError(f"Two checkpoints are called {name!r}.", "Give each a name of its own: NAME=SOURCE.")
        found[name] = source
    return found
