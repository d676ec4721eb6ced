"""Opening files that somebody else named: regular files of a bounded size, and one clear error for everything else.

A named pipe, a device or a link to ``/dev/zero`` in the place of a file would let a reader wait for ever or fill the
memory, so what a path leads to is looked at before the first byte is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from mmattn.errors import MediaError, MediaNotFoundError, MmattnError

__all__ = ["check_regular", "expanded", "open_regular", "read_lines", "read_regular"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(
    path: str | os.PathLike[str], max_bytes: int | None = None, *, error: type[MmattnError] = MediaError
) -> BinaryIO:
    """Opens a regular file for reading.

    Args:
        path: The file; links are followed.
        max_bytes: A larger file is refused; None leaves the size to the reader.
        error: The kind of error to raise, by what the file should be.

    Returns:
        The file, open for reading bytes.

    Raises:
        MediaNotFoundError: There is no such file, and ``error`` is :class:`MediaError`; else ``error``.
        MmattnError: Of the class ``error``: the path leads to a folder, pipe, device or socket, cannot be a path, may
            not be read, or the file is larger than ``max_bytes``.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise error(f"The path {text!r} holds a NUL character, which no file has in its name.")
    try:
        _check_kind(os.stat(text), text, error)  # noqa: PTH116 - opening a device may already do something
        # Without waiting: a pipe that takes the file's place in between must not hold the reader up.
        descriptor = os.open(text, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, NotADirectoryError) as missing:
        kind = MediaNotFoundError if error is MediaError else error
        raise kind(f"There is no file {text}.", "Check the path.") from missing
    except (OSError, UnicodeError) as reason:
        words = getattr(reason, "strerror", None) or str(reason)
        raise error(f"Cannot open {text[:200]}: {words.lower()}.") from reason
    try:
        found = os.fstat(descriptor)
        _check_kind(found, text, error)
        if max_bytes is not None and found.st_size > max_bytes:
            raise error(f"{text} has {found.st_size:,} bytes; the limit is {max_bytes:,}.", "Is it the right file?")
        # By its name, which decoders look at.
        return open(text, "rb", opener=lambda *_: descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(
    path: str | os.PathLike[str], max_bytes: int | None = None, *, error: type[MmattnError] = MediaError
) -> int:
    """Checks a file for a library that opens it by its path itself, and returns its size in bytes.

    Raises:
        MmattnError: As :func:`open_regular`.
    """
    with open_regular(path, max_bytes, error=error) as file:
        return os.fstat(file.fileno()).st_size


def read_regular(path: str | os.PathLike[str], max_bytes: int, *, error: type[MmattnError] = MediaError) -> bytes:
    """Returns the content of a regular file of at most ``max_bytes``.

    Raises:
        MmattnError: As :func:`open_regular`; also when the file grows beyond the limit meanwhile.
    """
    with open_regular(path, max_bytes, error=error) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise error(f"{os.fspath(path)} has more than {max_bytes:,} bytes.", "Is it the right file?")
    return content


def read_lines(path: str | os.PathLike[str], max_bytes: int, *, error: type[MmattnError] = MediaError) -> list[str]:
    r"""Returns the lines of a text file in UTF-8, with or without a byte order mark.

    Lines end with ``\n`` or ``\r\n`` alone: other separators of Unicode, such as U+2028, may stand in a file's name.

    Raises:
        MmattnError: As :func:`open_regular`, or the file is no text in UTF-8; the message names the byte.
    """
    try:
        text = read_regular(path, max_bytes, error=error).decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{os.fspath(path)} is not UTF-8 text (byte {reason.start}).", "Save it as UTF-8.") from reason
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with ``~`` replaced by the home folder; names that only begin with ``~`` stay as they are."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # nobody of that name, or no home
        return Path(path)


def _check_kind(found: os.stat_result, text: str, error: type[MmattnError]) -> None:
    for test, words in _KINDS:
        if test(found.st_mode):
            raise error(f"{text} is {words}, expected a file.", "Give the path of a regular file.")
