"""``mmattn fit | validate | test | predict``: training, by LightningCLI."""

from __future__ import annotations

from collections.abc import Sequence

from mmattn.commands.systems import parser_for
from mmattn.core.training.configs import resolve_configs

__all__ = ["main"]

DESCRIPTIONS = {
    "fit": "Trains a task on its data.",
    "validate": "Runs a task over its validation data.",
    "test": "Runs a task over its test data and prints the metrics.",
    "predict": "Runs a task over its prediction data.",
}
TEXT = """{what}

The task, its data and the trainer come from YAML files; a shipped one goes by its short name. Several --config files
merge from left to right, and flags change single values."""
EXAMPLE = """mmattn {command} --config crane/embedded
  mmattn {command} --config crane/embedded --trainer.max_epochs 1 --trainer.accelerator cpu"""


def main(argv: Sequence[str]) -> int:
    """Forwards to LightningCLI, which takes seconds to import; short help is answered here.

    Args:
        argv: The command itself and its arguments.
    """
    command, rest = argv[0], list(argv[1:])
    if rest in ([], ["-h"], ["--help"]):
        parser = parser_for(command, TEXT.format(what=DESCRIPTIONS[command]), EXAMPLE.format(command=command))
        parser.usage = f"mmattn {command} --config FILE|NAME [--config ...] [--key value ...]"
        parser.add_argument("--config", metavar="FILE|NAME", help="YAML file, or a shipped config: crane/embedded")
        parser.add_argument("--ckpt_path", metavar="PATH", help="Lightning checkpoint to start from")
        parser.add_argument("--print_config", action="store_true", help="print the merged configuration and stop")
        parser.add_argument("--help-all", action="store_true", help="every option of LightningCLI (takes some seconds)")
        if rest:
            parser.parse_args(rest)
        parser.error("the following arguments are required: --config")
    resolve_configs(rest)  # tells of a misspelt name before the long import
    from mmattn.core.training.lightning_cli import cli_main

    return cli_main([command, *("--help" if word == "--help-all" else word for word in rest)])
