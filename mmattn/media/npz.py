"""Arrays from ``.npz`` files: one at a time, one row of a batch at a time, and never by unpickling.

Datasets of 56 GB come in files of 33 or 330 MB. Reading a label must not decompress the features beside it, and reading
one clip of a batch file must not hold the other nine in memory.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.regular import check_regular

__all__ = ["MAX_ARRAY_BYTES", "array_names", "read_any", "read_array", "read_text"]

MAX_ARRAY_BYTES = 1 << 30
"""A larger array is refused by its header: compressed, it may fit into a thousandth of that."""

Shape = tuple[int | None, ...]

_PIECE = 1 << 18

# What zipfile, zlib and NumPy raise on damaged files; RuntimeError is an encrypted one.
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_array(path: str | Path, name: str, shape: Shape, *, row: int | None = None) -> npt.NDArray[Any]:
    """Returns one array of numbers, (...) as asked for.

    Args:
        path: The file.
        name: The array's name in it.
        shape: Expected size per dimension, None for any; with ``row``, of one row.
        row: Only this entry along the first dimension.

    Raises:
        InputError: If the file is missing or damaged, has no such array, or the array has another shape or does not
            hold numbers; the message names the file.
    """
    with _Member(Path(path), name) as member:
        if member.dtype.kind not in "biuf":
            raise InputError(f"'{path}': {name} holds {member.dtype}, expected numbers.")
        found = member.shape if row is None else member.shape[1:]
        if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"'{path}': {name} has shape {found}, expected ({expected}).")
        return member.read() if row is None else member.read_row(row)


def read_any(path: str | Path, name: str, max_bytes: int) -> npt.NDArray[Any]:
    """Returns one array of numbers or text of any shape, (...), of at most ``max_bytes`` in memory.

    Raises:
        InputError: As :func:`read_array`, or the array is larger.
    """
    with _Member(Path(path), name) as member:
        if member.dtype.kind not in "biufSU":
            raise InputError(f"'{path}': {name} holds {member.dtype}, expected numbers or text.")
        return member.read(max_bytes)


def array_names(path: str | Path) -> list[str]:
    """Returns the names of the arrays in a file.

    Raises:
        InputError: If it is missing or damaged.
    """
    file = Path(path)
    check_regular(file, error=InputError)
    try:
        with zipfile.ZipFile(file) as archive:
            return [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]
    except _DAMAGE as error:
        raise _Member(file, "").unreadable(error) from error


def read_text(path: str | Path, name: str) -> list[str]:
    """Returns the strings of one array of text, bytes decoded, as a flat list.

    Raises:
        InputError: As :func:`read_array`.
    """
    with _Member(Path(path), name) as member:
        if member.dtype.kind not in "SU":
            raise InputError(f"'{path}': {name} holds {member.dtype}, expected text.")
        values = member.read().reshape(-1).tolist()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


class _Member:
    """One array of an open file; errors of reading it name the file."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name

    def __enter__(self) -> _Member:
        try:
            check_regular(self.path, error=InputError)
            self._archive = zipfile.ZipFile(self.path)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise self.unreadable(error.__cause__) from error
            if isinstance(error, InputError):
                raise
            raise self.unreadable(error) from error
        try:
            self._file: IO[bytes] = self._archive.open(f"{self.name}.npy")
            self.shape, self._is_fortran, self.dtype = _read_header(self._file)
        except KeyError as error:
            present = ", ".join(entry.removesuffix(".npy") for entry in self._archive.namelist()) or "none"
            self._archive.close()
            raise InputError(
                f"'{self.path}' has no array {self.name!r}; it has {present}.", "It may belong to another dataset."
            ) from error
        except _DAMAGE as error:
            self._archive.close()
            raise self.unreadable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._archive.close()

    def read(self, max_bytes: int = MAX_ARRAY_BYTES) -> npt.NDArray[Any]:
        """Returns the whole array."""
        order = "F" if self._is_fortran else "C"
        return self._take(math.prod(self.shape), max_bytes).reshape(self.shape, order=order)  # type: ignore[call-overload]

    def read_row(self, row: int) -> npt.NDArray[Any]:
        """Returns one entry along the first dimension; the entries before it are skipped, not kept."""
        if not 0 <= row < self.shape[0]:
            raise InputError(f"'{self.path}': {self.name} has {self.shape[0]} rows, row {row} was asked for.")
        if self._is_fortran:
            return np.ascontiguousarray(self.read()[row])
        count = math.prod(self.shape[1:])
        for _ in range(row):
            self._take(count)
        return self._take(count).reshape(self.shape[1:])

    def _take(self, count: int, max_bytes: int = MAX_ARRAY_BYTES) -> npt.NDArray[Any]:
        size = count * self.dtype.itemsize
        if size > max_bytes:
            raise InputError(
                f"'{self.path}': {self.name} {self.shape} has {size:,} bytes; the limit is {max_bytes:,}.",
                "The file is damaged, or was made to fill the memory.",
            )
        # Checked before memory is asked for: a damaged header may name any shape.
        if not 0 <= size <= self._archive.getinfo(f"{self.name}.npy").file_size:
            raise self.unreadable(EOFError(f"{self.name} ends early"))
        array = np.empty(count, self.dtype)
        content, filled = array.view(np.uint8), 0
        try:
            while filled < size:
                piece = self._file.read(min(_PIECE, size - filled))
                if not piece:
                    raise EOFError(f"{self.name} ends early")
                content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
        except _DAMAGE as error:
            raise self.unreadable(error) from error
        return array

    def unreadable(self, error: Exception) -> InputError:
        """Returns the error for a file that cannot be read."""
        if isinstance(error, FileNotFoundError):
            return InputError(f"'{self.path}' does not exist.", "Check the dataset with: mmattn data check crash")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return InputError(f"'{self.path}' is damaged or no npz file: {reason.rstrip('.')}.", "Download it again.")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = reader(file)
    return shape, is_fortran, dtype
