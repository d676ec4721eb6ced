"""Looking at a dataset folder: annotated clips, and a list of what is wrong instead of a stop at the first problem."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmattn.core.errors import InputError

__all__ = ["Clip", "Scan", "named", "read_label", "read_seconds"]


@dataclass(frozen=True)
class Clip:
    """One annotated clip of a dataset.

    Attributes:
        id: Name, unique in the dataset; also the name of its features in a feature folder.
        path: File of its features, or of its video.
        dataset: Name of the dataset.
        split: "train", "val" or "test".
        label: 1 = accident.
        toa: Time of the accident: frames of the features before it, or seconds when ``in_seconds``. None without an
            accident, and for a clip that ends before it (see ``time_to_event``).
        reference: Moment the clip is judged relative to: the accident, or the closest moment of a near miss; None
            takes the accident, and the clip's end where there is none. Same unit as ``toa``.
        in_seconds: Unit of ``toa`` and ``reference``.
        time_to_event: Seconds from the end of a trimmed clip to its accident.
        boxes_path: File with the boxes, "" when they come with the features or there are none.
        row: Entry of a file that holds several clips, None for a file of its own.
    """

    id: str
    path: str
    dataset: str
    split: str
    label: int
    toa: float | None = None
    reference: float | None = None
    in_seconds: bool = False
    time_to_event: float | None = None
    boxes_path: str = ""
    row: int | None = None


@dataclass
class Scan:
    """One reading of a dataset folder.

    Attributes:
        root: The dataset's folder.
        problems: What was found wrong, one sentence each.
    """

    root: Path
    problems: list[str] = field(default_factory=list)

    def lines(self, place: str) -> list[str]:
        """Returns the lines of a text file below the root that are not empty; a missing file is a problem."""
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

    def present(self, clips: Iterable[Clip], what: str) -> list[Clip]:
        """Returns the clips whose file exists; missing ones are one problem."""
        kept: list[Clip] = []
        missing: list[Clip] = []
        for clip in clips:
            (kept if Path(clip.path).is_file() else missing).append(clip)
        if missing:
            names = named(self.below(clip.path) for clip in missing)
            self.problems.append(f"{len(missing)} of {len(kept) + len(missing)} {what} are missing: {names}.")
        return kept

    def below(self, path: str | Path) -> str:
        """Returns a path as the dataset's documentation would write it."""
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


_LABELS = {"1": 1, "0": 0, "true": 1, "false": 0, "positive": 1, "negative": 0, "yes": 1, "no": 0}


def read_label(row: Mapping[str, str], column: str) -> int:
    """Returns the label of a row: 0, 1, or the words people write for them.

    Raises:
        InputError: If it is something else.
    """
    text = row[column].lower().removesuffix(".0")
    if text not in _LABELS:
        raise InputError(f"{column} is {row[column]!r}, expected 0 or 1.")
    return _LABELS[text]


def read_seconds(row: Mapping[str, str], column: str) -> float | None:
    """Returns a time in seconds, None where the column is missing or empty.

    Raises:
        InputError: If it is no number.
    """
    text = row.get(column, "")
    if text.lower() in ("", "nan", "none", "null"):
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{column} is {text!r}, expected seconds.") from error
    if not math.isfinite(value):
        raise InputError(f"{column} is {text}, expected seconds.")
    return value
