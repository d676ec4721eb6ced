"""Writing files so that a reader sees the whole file or none: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmattn.errors import MediaError

__all__ = ["atomic_path", "temporary_sibling", "write_error"]

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` when the block succeeds.

    The temporary file has the suffix of ``path`` (encoders choose the format by it), lies in the same folder (a rename
    across file systems is not atomic), is flushed to disk before the rename, and is removed when the block raises.
    Missing folders are made.

    Raises:
        MediaError: The folder cannot be written, ``path`` is a folder, or the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "note.txt")) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     [file.name for file in Path(folder).iterdir()]
    ['note.txt']
    """
    target = Path(path)
    temporary = temporary_sibling(target)
    try:
        try:
            yield temporary
            _flush(temporary)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise write_error(error, target) from error
            raise
        try:
            temporary.replace(target)
        except OSError as error:
            raise write_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_sibling(target: Path) -> Path:
    """Creates an empty file with a new name in the folder of ``target`` and returns its path.

    Raises:
        MediaError: As for :func:`atomic_path`.
    """
    if target.is_dir():
        raise MediaError(f"Cannot write {target}: it is a folder.", "Give a file name inside it.")
    # 40 characters leave room for the random part under the usual limit of 255 bytes, also in UTF-8.
    temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(6)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Plain creation, not tempfile: the finished file keeps the permissions that the user's umask asks for.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_error(error, target) from error
    return temporary


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_error(error: OSError, target: Path) -> MediaError:
    """Returns the error to show instead of ``error``, which happened while ``target`` was written."""
    if error.errno in _DISK_FULL:
        return MediaError(f"Cannot write {target}: the disk is full.", "Free some space or choose another folder.")
    if error.errno in _REFUSED:
        return MediaError(
            f"Cannot write {target}: the folder {target.parent} is not writable.",
            "Choose another output folder or change its permissions.",
        )
    reason = (error.strerror or str(error)).lower()
    return MediaError(f"Cannot write {target}: {reason}.", "Check the path of the output folder.")
