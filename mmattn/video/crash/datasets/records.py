"""Looking at a dataset folder: annotated clips, and labels and times as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmattn.core.datasets.scan import DatasetScan, named
from mmattn.errors import InputError

__all__ = ["ListedClip", "Scan", "read_label", "read_seconds"]


@dataclass(frozen=True)
class ListedClip:
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


class Scan(DatasetScan):
    """One reading of a dataset folder of clips."""

    def present(self, clips: Iterable[ListedClip], what: str) -> list[ListedClip]:
        """Returns the clips whose file exists; missing ones are one problem."""
        kept: list[ListedClip] = []
        missing: list[ListedClip] = []
        for clip in clips:
            (kept if Path(clip.path).is_file() else missing).append(clip)
        if missing:
            names = named(self.below(clip.path) for clip in missing)
            self.problems.append(f"{len(missing)} of {len(kept) + len(missing)} {what} are missing: {names}.")
        return kept


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
