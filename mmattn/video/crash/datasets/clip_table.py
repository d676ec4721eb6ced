"""``clips.csv``: the annotations of a feature folder that is a dataset of its own (layout ``features``).

Columns: ``id, dataset, split, label, toa, reference``. Times are frames of the features; ``toa`` is empty without an
accident, ``reference`` where nothing but the accident is known. Readers take the columns in any order.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from mmattn.errors import InputError
from mmattn.media.files import atomic_path
from mmattn.video.crash.datasets.feature_folder import FeatureFolder
from mmattn.video.crash.datasets.records import ListedClip, Scan, read_label, read_seconds

__all__ = ["TABLE", "listed_clips", "read_clip_table", "write_clip_table"]

TABLE = "clips.csv"
_COLUMNS = ("id", "dataset", "split", "label", "toa", "reference")


def write_clip_table(root: str | Path, clips: Iterable[ListedClip]) -> Path:
    """Writes the annotations of a feature folder and returns the file's path.

    Args:
        root: The feature folder.
        clips: Its clips; times in frames.

    Raises:
        ValueError: If a clip's times are seconds.
    """
    path = Path(root) / TABLE
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for clip in clips:
            if clip.in_seconds:
                raise ValueError(f"the times of clip {clip.id!r} are seconds; the table needs frames.")
            times = ["" if value is None else f"{value:.6g}" for value in (clip.toa, clip.reference)]
            writer.writerow([clip.id, clip.dataset, clip.split, clip.label, *times])
    return path


def listed_clips(root: str | Path) -> dict[str, ListedClip]:
    """Returns the clips of a feature folder's table by their ids; none where there is no table or no folder."""
    if not (Path(root) / TABLE).is_file():
        return {}
    return {clip.id: clip for clip in read_clip_table(Scan(Path(root)), None)}


def read_clip_table(scan: Scan, feature: str | None) -> list[ListedClip]:
    """Lists the clips of a feature folder.

    Raises:
        InputError: If a row does not fit; the message has its line.
    """
    folder = FeatureFolder.open(scan.root)
    clips: list[ListedClip] = []
    for number, row in enumerate(scan.rows(TABLE, _COLUMNS[:1] + _COLUMNS[2:5]), start=2):
        try:
            label, toa, reference = read_label(row, "label"), read_seconds(row, "toa"), read_seconds(row, "reference")
            if label and toa is None:
                raise InputError("an accident needs its toa.")
            if row["split"] not in ("train", "val", "test"):
                raise InputError(f"split is {row['split']!r}, expected train, val or test.")
            path = str(folder.file(row["id"]))
        except InputError as error:
            scan.problems.append(f"{TABLE}, line {number}: {error.message}")
            continue
        dataset = row.get("dataset", "") or scan.root.name
        clips.append(ListedClip(row["id"], path, dataset, row["split"], label, toa if label else None, reference))
    return scan.present(clips, "listed clips")
