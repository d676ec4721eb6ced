"""The folder a run writes to: held by one process, watched, and flushed to disk.

Whoever deletes, renames or replaces the folder while a run writes to it would have it write results that nobody finds.
So the folder at the path has to be the one that was locked, before and after everything that is written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmattn.errors import OutputError
from mmattn.media.files import flush_folder, flushing, make_folders, storage_error, write_text

__all__ = ["OutputFolder", "storage_failure"]

PARTIAL = ".partial"
# What a kill leaves of the page, which systems write beside their results with mmattn.media.files.
UNFINISHED_PAGE = re.compile(r"\.index\.[0-9a-f]{12}\.html")
# Failures of the place we write to, not of one item: going on would fail for every other item too. Full disks and the
# like are known to mmattn.media.files.
STORAGE_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ESTALE})


class OutputFolder:
    """A folder and its sub-folder for unfinished files.

    Args:
        path: It need not exist.
        fsync: Flush everything to disk before it counts as written.
    """

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self.path = path.expanduser().absolute()
        self.partial = self.path / PARTIAL
        self.fsync = fsync
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and holds it for this process alone while the block runs.

        Raises:
            OutputError: If the folder cannot be written or another run holds it.
        """
        try:
            is_new = not self.path.exists()
            with flushing(self.fsync):
                make_folders(self.path)
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self.unwritable(error) from error
        try:
            lock(handle, self.path)
            status = os.fstat(handle)
            self._identity = (status.st_dev, status.st_ino)
            with self.writing():
                remove(self.partial)
                self.partial.mkdir()
                for left in self.path.glob(".index.*.html"):
                    if UNFINISHED_PAGE.fullmatch(left.name):
                        remove(left)
            try:
                yield
            finally:
                if self.is_there():
                    remove(self.partial)
        finally:
            if is_new and self.is_there() and not any(self.path.iterdir()):
                self.path.rmdir()
            self._identity = None
            os.close(handle)

    def is_there(self) -> bool:
        """Tells whether the folder at the path is the one that is held."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def check(self) -> None:
        """Checks that results can still be found where they are expected.

        Raises:
            OutputError: If the folder was deleted, renamed or replaced since it was locked.
        """
        if not self.is_there():
            raise OutputError(
                f"The output folder '{self.path}' was deleted, renamed or replaced while the run was writing to it.",
                "Nothing more was computed. Results finished before lie where the folder went; put it back and run "
                "the same command to go on.",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failure of the storage inside the block into one clear :class:`OutputError`.

        Raises:
            OutputError: If the folder is another one before or after the block, or the block raised what says that
                the storage fails. Whatever else the block raises is passed on.
        """
        self.check()
        try:
            with flushing(self.fsync):
                yield
        except Exception as error:
            failure = storage_failure(error)
            if not isinstance(error, OutputError):
                self.check()
            if failure is None or isinstance(error, OutputError):
                raise
            raise self.unwritable(failure) from error
        self.check()

    def unwritable(self, error: OSError) -> OutputError:
        """Returns the error for an output folder that cannot be written (any more)."""
        return OutputError(
            f"Cannot write to '{self.path}': {error.strerror or error}.",
            "Finished results are kept. Free some space or choose a folder you may write to, then run again.",
        )

    def replace_file(self, name: str, text: str) -> None:
        """Puts a new version of a file in place, whole; what a kill leaves of it is in the sub-folder."""
        self.place([(write_text(self.partial / name, text), self.path / name)])

    def empty_partial(self) -> None:
        """Removes what is left of unfinished files; the sub-folder is there afterwards."""
        if not self.is_there():
            return
        if self.partial.is_symlink() or not self.partial.is_dir():
            remove(self.partial)
            self.partial.mkdir()
        for entry in self.partial.iterdir():
            remove(entry)

    def place(self, moves: list[tuple[Path, Path]]) -> None:
        """Gives finished files their names in the folder and flushes the folders they are in.

        Args:
            moves: From where to where each; the files themselves are flushed already.
        """
        for path, final in moves:
            make_folders(final.parent)
            path.replace(final)
        for parent in {final.parent for _, final in moves}:
            flush_folder(parent)


def storage_failure(error: BaseException | None) -> OSError | None:
    """Returns the :class:`OSError` behind ``error`` that says the storage itself fails, if there is one."""
    found = storage_error(error)
    while found is None and error is not None:
        if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
            return error
        error = error.__cause__
    return found


def remove(path: Path) -> None:
    """Removes a file, a link (not what it points to) or a folder with all that is in it; what is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def lock(handle: int, folder: Path) -> None:
    """Takes the folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputError: If another process has it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"Another run is writing to '{folder}'.", "Wait for it to end, or choose another --output."
        ) from error
