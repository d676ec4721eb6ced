"""Finds the experiment files that ship with the package, so that ``--config crane/embedded`` works from anywhere."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import yaml

from mmattn.errors import InputError
from mmattn.media.regular import expanded, read_lines

__all__ = ["configs_folder", "find_config", "list_configs", "resolve_configs"]


_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000


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
    path = expanded(name)
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
    """Returns the path of a config file, short name or JSON text (which is passed on as it is).

    Raises:
        InputError: If there is no such config, or it is out of the bounds of :func:`check_config`.
    """
    if name.lstrip().startswith("{"):
        check_config(name, "The config on the command line")
        return name
    path = find_config(name)
    text = "\n".join(read_lines(path, _MAX_BYTES, error=InputError))
    check_config(text, f"Config '{path}'")
    return name if str(path) == name else str(path)


def check_config(text: str, what: str) -> None:
    """Checks what YAML becomes when its anchors are written out; a few lines can stand for billions of values.

    Args:
        text: The YAML.
        what: What it is called in the message.

    Raises:
        InputError: If it is no YAML, nests too deep, or has more than 100,000 values.
    """
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        size = 0 if root is None else _written_out(root, {})
    except RecursionError as error:
        raise InputError(f"{what} nests too deep.", "Write it out flat.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{what} is no YAML: {' '.join(str(error).split())}.") from error
    if size > _MAX_VALUES:
        raise InputError(f"{what} stands for more than {_MAX_VALUES:,} values.", "Use fewer anchors.")


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns how many values a node stands for; what is shared is looked at once and counts each time."""
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES + 1  # a node in itself has no end
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = list(node.value)
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]
