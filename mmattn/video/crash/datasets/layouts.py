"""The dataset layouts CRASH reads, by name: list the annotated clips of a folder, and get at their features."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from mmattn.core.datasets.scan import named
from mmattn.errors import InputError
from mmattn.video.crash.datasets.clip_reading import ClipReader, FolderReader
from mmattn.video.crash.datasets.feature_folder import FeatureFolder
from mmattn.video.crash.datasets.readers import LAYOUTS
from mmattn.video.crash.datasets.records import ListedClip, Scan

__all__ = ["LAYOUTS", "clip_reader", "read_clips", "scan_clips"]


def scan_clips(layout: str, root: str | Path, feature: str | None = None) -> tuple[list[ListedClip], Scan]:
    """Returns the clips of a dataset that can be used, and a scan whose problems say what is wrong with the rest.

    Args:
        layout: Key of :data:`LAYOUTS`.
        root: The dataset's folder.
        feature: Kind of features, such as "vgg16"; None takes the only one there is.

    Raises:
        InputError: If the layout is unknown or the folder does not exist.
    """
    known, scan = LAYOUTS.named(layout), Scan.of(root)
    clips = list(known.find(scan, feature))
    twice = sorted(clip.id for clip, other in pairwise(sorted(clips, key=lambda clip: clip.id)) if clip.id == other.id)
    if twice:
        scan.problems.append(f"{len(twice)} clips are listed more than once: {named(dict.fromkeys(twice))}.")
    return clips, scan


def read_clips(layout: str, root: str | Path, feature: str | None = None) -> list[ListedClip]:
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
    LAYOUTS.refuse(layout, scan, nothing=not clips)
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
