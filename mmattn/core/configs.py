"""Finds the experiment files that ship with the package, so that ``--config crane/embedded`` works from anywhere."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from mmattn.core.errors import InputError

__all__ = ["configs_folder", "find_config", "list_configs"]


def configs_folder() -> Path:
    """Returns the shipped folder: ``mmattn/configs`` in an installed wheel, ``configs`` beside it in a checkout.

    Raises:
        InputError: If the installation has neither.
    """
    package = Path(str(files("mmattn")))
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise InputError(f"This installation has no configs folder (looked in '{package}').", "Reinstall mmattn.")


def list_configs() -> list[str]:
    """Returns the short names that :func:`find_config` knows, sorted, for example ``crane/embedded``."""
    folder = configs_folder()
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def find_config(name: str | Path) -> Path:
    """Returns the file behind a config argument: an existing path as it is, else a shipped config's short name.

    Args:
        name: A path, or ``<folder>/<name>`` below the shipped configs, with or without ``.yaml``.

    Raises:
        InputError: If it is neither; the message lists the short names that come near, or all of them.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    text = Path(name).as_posix().removesuffix(".yaml")
    known = list_configs()
    if text in known:
        return configs_folder() / f"{text}.yaml"
    near = get_close_matches(text, known, n=5, cutoff=0.5) or known
    raise InputError(f"Config '{name}' is neither a file nor a shipped config.", f"Shipped ones: {', '.join(near)}.")
