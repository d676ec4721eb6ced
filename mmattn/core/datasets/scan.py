"""Looking over a dataset folder: what lies in it, and what is wrong with it.

A :class:`DatasetScan` collects problems instead of stopping at the first, so that one look names everything. Systems
add what only their data has.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mmattn.errors import InputError
from mmattn.media.paths import contained

__all__ = ["DatasetScan", "named", "print_findings"]


@dataclass
class DatasetScan:
    """One reading of a dataset folder. Places are paths below its root, with forward slashes.

    Attributes:
        root: The dataset's folder.
        problems: What was found wrong, one sentence each.
    """

    root: Path
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, root: str | Path) -> Self:
        """Begins a scan.

        Raises:
            InputError: If the folder does not exist.
        """
        folder = Path(root).expanduser()
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise InputError(f"The dataset folder {root} {what}.", "Give the folder that holds the dataset's files.")
        return cls(folder)

    def has(self, place: str) -> bool:
        """Says whether ``place`` is a folder."""
        return (self.root / place).is_dir()

    def entries(self, place: str) -> list[os.DirEntry[str]]:
        """Returns what is directly in ``place``, sorted by name; a missing place is a problem."""
        folder = self.root / place
        if not folder.is_dir():
            self.problems.append(f"The folder {place} is missing.")
            return []
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def folders(self, place: str) -> list[str]:
        """Returns the names of the sub-folders of ``place``, sorted; a missing place is a problem."""
        return [entry.name for entry in self.entries(place) if entry.is_dir() and not entry.name.startswith(".")]

    def lines(self, place: str) -> list[str]:
        """Returns the lines of a text file that are not empty; a missing file is a problem."""
        try:
            text = (self.root / place).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            self.problems.append(f"The file {place} is missing.")
            return []
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"The file {place} cannot be read: {error}.")
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    def rows(self, place: str, columns: Iterable[str]) -> list[dict[str, str]]:
        """Returns the rows of a CSV file with a header; a missing file or column is a problem."""
        lines = self.lines(place)
        reader = csv.DictReader(lines)
        present = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in columns if name not in present]
        if lines and missing:
            self.problems.append(f"{place} has no column {named(missing)}; it has {named(present, 12)}.")
            return []
        return [{(key or "").strip(): (value or "").strip() for key, value in row.items()} for row in reader]

    def listed(self, path: str, where: str, folder: str = "") -> Path | None:
        """Returns the file that a list of the dataset names; None, and a problem more, if it leads out of the folder.

        Links in the folder may lead out: people keep parts of a dataset on other disks.

        Args:
            path: As it is listed; absolute only below the root.
            where: List and line, for the message.
            folder: Place that the path is relative to.
        """
        root = self.root.absolute()
        if Path(path).is_absolute() and Path(path).is_relative_to(root):
            path, folder = Path(path).relative_to(root).as_posix(), ""
        try:
            return contained(f"{folder}/{path}" if folder else path, self.root, links_may_leave=True)
        except InputError as error:
            self.problems.append(f"{where}: {error.message}")
            return None

    def below(self, path: str | Path) -> str:
        """Returns a path as the dataset's documentation would write it: below the root where it is there."""
        file = Path(path)
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(path)


def named(items: Iterable[str], limit: int = 5) -> str:
    """Returns the first few items, separated by commas, and how many more there are.

    >>> named(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = list(items)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def print_findings(is_fine: bool, lines: Iterable[str]) -> int:
    """Prints what ``mmattn data check`` found and returns its exit code: 0 when nothing is wrong, else 1."""
    print("\n".join(lines))
    return 0 if is_fine else 1
