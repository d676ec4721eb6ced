"""What ``mmattn infer lina`` is to say: every line of a text file, a file as a whole, or a text of the command line.

A line is an item of its own: it fails alone, and when a file is edited only the lines that changed are spoken again.
A voice file or recording to go on from is known by what is in it, so that nothing counts as spoken when that changed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mmattn.core.batch.inputs import InputItem, expand_inputs
from mmattn.errors import InputError
from mmattn.media.regular import read_regular
from mmattn.speech.lina.config import LinaInferOptions

__all__ = ["TEXT_SUFFIXES", "command_line_item", "read_script", "recorded_options", "script_items"]

TEXT_SUFFIXES = frozenset({".txt"})
"""Files that are read aloud."""

_MOST_BYTES = 10_000_000


def script_items(inputs: Sequence[str], *, output: Path | None = None, whole: bool = False) -> list[InputItem]:
    """Returns what is to be said, in order.

    ``script.txt`` gives ``script/0001``, ``script/0003``, ... for its lines that are not blank, or ``script`` as a
    whole. A file that cannot be read, or has no text, stays one item, for which :func:`read_script` says what is wrong.

    Args:
        inputs: Files, folders, globs and ``@list.txt``.
        output: Folder of the results, which is no input.
        whole: Whether a file is one text.

    Raises:
        InputError: If an input leads nowhere.
    """
    files = expand_inputs(inputs, suffixes=TEXT_SUFFIXES, output=output)
    stems = Counter(_stem(file.name) for file in files)
    items: list[InputItem] = []
    for file in files:
        # a.txt and a.TXT in one folder keep their whole names.
        name = _stem(file.name) if stems[_stem(file.name)] == 1 else file.name
        try:
            text = read_script(file.path)
        except InputError:
            items.append(file)
            continue
        if whole:
            items.append(replace(file, name=name, content=text))
        else:
            items += _lines(replace(file, name=name), text)
    return items


def command_line_item(text: str) -> InputItem:
    """Returns the item of ``--text``; its result is called ``text``."""
    here = Path.cwd()
    return InputItem(path=Path("--text"), root=here, name="text", content=text)


def read_script(path: Path) -> str:
    """Returns the text of a file.

    Raises:
        InputError: If it cannot be read, is larger than 10 MB, no UTF-8, or has no text in it.
    """
    try:
        text = read_regular(path, _MOST_BYTES, error=InputError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 text.", "Save it as UTF-8.") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"'{path}' has no text in it.", "Write a sentence on every line.")
    return text


def recorded_options(options: LinaInferOptions) -> LinaInferOptions:
    """Returns options as a run's records hold them: with the contents of ``voice`` and ``prompt`` if these are files.

    Two runs into one folder have to agree in them, wherever the files lie.

    Args:
        options: Of the run. A file that is missing stays as it is named, to be told when it is needed.

    Raises:
        InputError: If one of the files cannot be read.
    """
    return replace(options, voice=_with_content(options.voice), prompt=_with_content(options.prompt))


def _with_content(name: str | None) -> str | None:
    path = None if name is None else Path(name).expanduser()
    if path is None or not path.is_file():
        return name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from error
    return f"{path.name} (content {digest[:16]})"


def _lines(file: InputItem, text: str) -> list[InputItem]:
    return [
        replace(file, name=f"{file.name}/{number:04d}", part=str(number), content=line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
