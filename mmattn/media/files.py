"""Writing files so that a reader sees the whole file or none, also after a power loss.

Temporary name beside the target, flush to disk, rename, flush of the folder: everything the package writes goes this
way. A writer of many files that flushes them together, or a user who gave up on it, says so with :func:`flushing`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mmattn.errors import MediaError

__all__ = [
    "atomic_path",
    "flush_file",
    "flush_folder",
    "flushing",
    "make_folders",
    "storage_error",
    "temporary_sibling",
    "write_bytes",
    "write_error",
    "write_text",
]

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Failures of the place we write to, whatever the file holds.
_STORAGE = _DISK_FULL | {errno.EFBIG, errno.EROFS, errno.EIO}
# How libraries written in Rust (safetensors) say it.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# numpy's array writer names no number.
_SHORT_WRITE = re.compile(r"^\d+ requested and \d+ written$")
_flushes: ContextVar[bool] = ContextVar("flushes", default=True)


@contextmanager
def flushing(wanted: bool) -> Iterator[None]:
    """Says whether files written inside the block (by this thread or task) are flushed to disk.

    A reader sees whole files either way. Without flushing a power loss may empty files written shortly before it.

    Args:
        wanted: False where the caller flushes by itself, or where the files need not outlive a power loss.
    """
    token = _flushes.set(wanted)
    try:
        yield
    finally:
        _flushes.reset(token)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` when the block succeeds.

    The temporary file has the suffix of ``path`` (encoders choose the format by it), lies in the same folder (a rename
    across file systems is not atomic), is flushed to disk before the rename, and is removed when the block raises. The
    folder is flushed after the rename, so that the file is there after a power loss. Missing folders are made.

    Raises:
        MediaError: The folder cannot be written, ``path`` is a folder, its name is too long, the file is larger than
            the file system or the user's limit allows, or the disk is full.

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
            flush_file(temporary)
        except Exception as error:
            failure = storage_error(error)
            if failure is None or isinstance(error, MediaError):
                raise
            raise write_error(failure, target) from failure
        try:
            temporary.replace(target)
            flush_folder(target.parent)
        except OSError as error:
            raise write_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes UTF-8 text as :func:`atomic_path` does and returns the path."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> Path:
    """Writes bytes as :func:`atomic_path` does and returns the path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def temporary_sibling(target: Path) -> Path:
    """Creates an empty file with a new name in the folder of ``target`` and returns its path.

    Raises:
        MediaError: As for :func:`atomic_path`.
    """
    # 40 characters leave room for the random part under the usual limit of 255 bytes, also in UTF-8.
    temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(6)}{target.suffix[:40]}")
    try:
        if target.is_dir():
            raise MediaError(f"Cannot write {target}: it is a folder.", "Give a file name inside it.")
        make_folders(target.parent)
        # Plain creation, not tempfile: the finished file keeps the permissions that the user's umask asks for.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_error(error, target) from error
    return temporary


def make_folders(folder: Path) -> None:
    """Makes a folder and those above it that are missing, and flushes the folders that hold the new ones.

    Raises:
        OSError: One of them cannot be made.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def flush_file(path: Path) -> None:
    """Has the content of a file written to the disk; nothing inside ``flushing(False)``.

    Raises:
        OSError: It cannot be opened, or the disk refuses what is still to be written.
    """
    if _flushes.get():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Has the names in a folder written to the disk; nothing inside ``flushing(False)``.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    if not _flushes.get():
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Network and FUSE file systems may not know how to flush a folder; they have no other way to be asked.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def storage_error(error: BaseException | None) -> OSError | None:
    """Returns the :class:`OSError` behind ``error`` that says the storage itself fails, if there is one.

    Looks at causes and contexts, since torch's writer hides a full disk behind an error of its own, and at the texts of
    safetensors and numpy, which raise no number.

    >>> storage_error(ValueError("I/O error: File too large (os error 27)"))
    OSError(27, 'File too large')
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE:
            return error
        number = _OS_ERROR.search(str(error))
        if number is not None and int(number[1]) in _STORAGE:
            return OSError(int(number[1]), os.strerror(int(number[1])))
        if isinstance(error, OSError) and _SHORT_WRITE.match(str(error)):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def write_error(error: OSError, target: Path) -> MediaError:
    """Returns the error to show instead of ``error``, which happened while ``target`` was written."""
    if error.errno in _DISK_FULL:
        return MediaError(f"Cannot write {target}: the disk is full.", "Free some space or choose another folder.")
    if error.errno == errno.EFBIG:
        return MediaError(
            f"Cannot write {target}: it is larger than the file system or the limit of this shell allows.",
            "See ulimit -f, or choose a folder on another file system.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return MediaError(
            f"Cannot write {target.name[:60]}...: a name of {len(os.fsencode(target.name))} bytes is too long.",
            "Most file systems take 255 bytes; rename the input or choose a shorter path.",
        )
    if error.errno in _REFUSED:
        return MediaError(
            f"Cannot write {target}: the folder {target.parent} is not writable.",
            "Choose another output folder or change its permissions.",
        )
    reason = (error.strerror or str(error)).lower()
    return MediaError(f"Cannot write {target}: {reason}.", "Check the path of the output folder.")
