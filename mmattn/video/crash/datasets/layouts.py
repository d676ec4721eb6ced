"""The dataset layouts CRASH reads, by name: list the annotated clips of a folder, and get at their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mmattn.core.datasets.scan import named
from mmattn.errors import InputError
from mmattn.video.crash.datasets.clip_reading import ClipReader, FolderReader, NpzReader
from mmattn.video.crash.datasets.clip_table import read_clip_table
from mmattn.video.crash.datasets.feature_folder import FeatureFolder
from mmattn.video.crash.datasets.readers import read_a3d, read_annotated_videos, read_ccd, read_dad, read_nexar
from mmattn.video.crash.datasets.records import Clip, Scan

__all__ = ["LAYOUTS", "Clip", "Layout", "clip_reader", "guess_layouts", "read_clips", "scan_clips"]


@dataclass(frozen=True)
class Layout:
    """How one dataset lies on disk.

    Attributes:
        find: Lists its clips; the second argument names the kind of features, None takes the only one there is.
        markers: Places below the root of which one tells the layout.
        reader: Reads features out of its own files; None: they lie in a feature folder.
    """

    find: Callable[[Scan, str | None], list[Clip]]
    markers: tuple[str, ...]
    reader: NpzReader | None = None


LAYOUTS: dict[str, Layout] = {
    "features": Layout(read_clip_table, ("manifest.json",)),
    "dad": Layout(read_dad, ("*_features/training/*.npz", "features/training/*.npz"), NpzReader(20.0, 100, "data")),
    "ccd": Layout(read_ccd, ("videos/Crash-1500.txt",), NpzReader(10.0, 50, "data")),
    "a3d": Layout(read_a3d, ("frame_labels",), NpzReader(20.0, 100, "features")),
    "nexar": Layout(read_nexar, ("train/positive/metadata.csv", "train.csv")),
    "videos": Layout(read_annotated_videos, ("annotations.csv",)),
}
"""Layout by the name that ``data.init_args.layout`` and ``--layout`` take."""


def scan_clips(layout: str, root: str | Path, feature: str | None = None) -> tuple[list[Clip], Scan]:
    """Returns the clips of a dataset that can be used, and a scan whose problems say what is wrong with the rest.

    Args:
        layout: Key of :data:`LAYOUTS`.
        root: The dataset's folder.
        feature: Kind of features, such as "vgg16"; None takes the only one there is.

    Raises:
        InputError: If the layout is unknown or the folder does not exist.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no dataset layout {layout!r}.", f"Known are: {', '.join(LAYOUTS)}.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"The dataset folder '{root}' {what}.", "Give the folder that holds the dataset's files.")
    scan = Scan(folder)
    clips = LAYOUTS[layout].find(scan, feature)
    twice = sorted(clip.id for clip, other in pairwise(sorted(clips, key=lambda clip: clip.id)) if clip.id == other.id)
    if twice:
        scan.problems.append(f"{len(twice)} clips are listed more than once: {named(dict.fromkeys(twice))}.")
    return clips, scan


def read_clips(layout: str, root: str | Path, feature: str | None = None) -> list[Clip]:
    """Returns the clips of a dataset, in its order.

    Args:
        layout: Key of :data:`LAYOUTS`.
        root: The dataset's folder.
        feature: Kind of features, such as "vgg16"; None takes the only one there is.

    Raises:
        InputError: If the layout is unknown, the folder does not exist, or anything in it does not fit the layout.
    """
    clips, scan = scan_clips(layout, root, feature)
    if not clips and not scan.problems:
        scan.problems.append("It lists no clips.")
    if scan.problems:
        others = [other for other in guess_layouts(root) if other != layout]
        hint = f"It looks like {' or '.join(others)}." if others and not clips else ""
        raise InputError(
            f"'{root}' cannot be read as {layout}: {' '.join(scan.problems[:3])}",
            hint or f"All problems: mmattn data check crash {root} --layout {layout}",
        )
    return clips


def clip_reader(layout: str, root: str | Path, features_root: str | Path | None = None) -> ClipReader:
    """Returns what reads the features of a dataset's clips.

    Args:
        layout: Key of :data:`LAYOUTS`.
        root: The dataset's folder.
        features_root: Feature folder of a dataset of videos (``nexar``, ``videos``).

    Raises:
        InputError: If a dataset of videos has no feature folder, or another layout is given one.
    """
    own = LAYOUTS[layout].reader
    if own is not None or layout == "features":
        if features_root is not None:
            raise InputError(f"The layout {layout} has features of its own; features_root is for videos.")
        return own or FolderReader(FeatureFolder.open(root))
    if features_root is None:
        raise InputError(
            f"The layout {layout} lists videos, and features_root does not say where their features are.",
            "Set data.init_args.features_root to the folder of features made from these videos.",
        )
    return FolderReader(FeatureFolder.open(features_root))


def guess_layouts(root: str | Path) -> list[str]:
    """Returns the names of the layouts a folder looks like, the most specific first."""
    folder = Path(root).expanduser()
    return [
        name
        for name, layout in LAYOUTS.items()
        if any(next(folder.glob(place), None) is not None for place in layout.markers)
    ]
