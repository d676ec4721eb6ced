"""Finds the experiment files that ship with the package, so that ``--config crane/embedded`` works from anywhere."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from mmattn.errors import InputError

__all__ = ["configs_folder", "find_config", "list_configs", "resolve_configs"]


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
        InputError: If it is neither; the message lists the short names of that folder, else those that come near, or
            all of them.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    text = Path(name).as_posix().removesuffix(".yaml")
    known = list_configs()
    if text in known:
        return configs_folder() / f"{text}.yaml"
    beside = [other for other in known if other.partition("/")[0] == text.partition("/")[0]]
    near = beside or get_close_matches(text, known, n=5, cutoff=0.5) or known
    raise InputError(f"Config '{name}' is neither a file nor a shipped config.", f"Shipped ones: {', '.join(near)}.")


def resolve_configs(words: list[str]) -> list[str]:
    """Replaces short config names after ``--config`` or ``-c`` by paths, ``crane/mvtec`` for example.

    Raises:
        InputError: If a name is neither a file nor a config of the package.
    """
    result: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == "--config" and equals:
            result.append(f"--config={config_path(value)}")
        elif result and result[-1] in ("--config", "-c"):
            result.append(config_path(word))
        else:
            result.append(word)
    return result


def config_path(name: str) -> str:
    """Returns the path of a config file, short name or JSON text (which is passed on as it is)."""
    return name if name.lstrip().startswith("{") or Path(name).is_file() else str(find_config(name))
