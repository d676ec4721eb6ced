"""How each public dataset lists its clips. One function per dataset; what the folders look like is told in it.

Sources: the loaders of Cogito2012/UString, from which all successors take these layouts; smallcorgi/
Anticipating-Accidents (DAD as first distributed); Cogito2012/CarCrashDataset; Nexar's dataset card (arXiv 2503.03848).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmattn.core.datasets.layouts import Layout, LayoutTable
from mmattn.core.datasets.scan import named
from mmattn.errors import InputError
from mmattn.media.npz import read_array, read_text
from mmattn.video.crash.datasets.clip_reading import NpzReader
from mmattn.video.crash.datasets.clip_table import read_clip_table
from mmattn.video.crash.datasets.records import ListedClip, Scan, read_label, read_seconds

__all__ = ["LAYOUTS", "ClipLayout", "dad_names"]

_DAD_TOA = 90.0
_DAD_SPLITS = {"training": "train", "testing": "test"}
_CCD_LAST = 49


def _dad(scan: Scan, feature: str | None) -> list[ListedClip]:
    """Lists DAD: one npz a clip (``vgg16_features/training/b001_000490.npz``), or ten a file as first distributed.

    The first form has ``data, labels, det, ID`` of one clip, the second (``features/training/batch_001.npz``) of ten.
    Clips have the same ids in both forms. Every accident happens in frame 90.
    """
    folder = _feature_folder(scan, feature, also="features")
    clips = []
    for place, split in _DAD_SPLITS.items():
        files = sorted((scan.root / folder / place).glob("*.npz")) if folder else []
        if folder and not files:
            scan.problems.append(f"The folder {folder}/{place} holds no npz files.")
        for number, file in enumerate(files, start=1):
            try:
                clips += list(_dad_clips(file, number, place, split))
            except InputError as error:
                scan.problems.append(error.message)
    return clips


def dad_names(ids: list[str], number: int) -> list[str]:
    """Returns the names that the published splitter gives the clips of batch ``number``, counted from 1.

    >>> dad_names(["000490", "000491", "000490"], 3)
    ['b003_000490', 'b003_000491', 'b003_000490_01']
    """
    names: list[str] = []
    repeated = 0
    for text in ids:
        name = f"b{number:03d}_{text}"
        if name in names:
            repeated += 1
            name = f"{name}_{repeated:02d}"
        names.append(name)
    return names


def _dad_clips(file: Path, number: int, place: str, split: str) -> Iterator[ListedClip]:
    is_batch = file.stem.startswith("batch_")
    labels = read_array(file, "labels", (None, 2) if is_batch else (2,))
    names = dad_names(read_text(file, "ID"), number) if is_batch else [file.stem]
    one_hot = np.atleast_2d(labels)
    if len(names) != len(one_hot) or not ((one_hot > 0).sum(axis=1) == 1).all():
        raise InputError(f"'{file}': labels are {labels.tolist()}, expected one 1 for each of {len(names)} clips.")
    for row, (name, (_, accident)) in enumerate(zip(names, one_hot, strict=True)):
        toa = _DAD_TOA if accident > 0 else None
        # The same names occur in both splits.
        name = f"{place}/{name}"
        yield ListedClip(name, str(file), "dad", split, int(accident > 0), toa, row=row if is_batch else None)


def _ccd(scan: Scan, feature: str | None) -> list[ListedClip]:
    """Lists CCD: ``vgg16_features/{train,test}.txt`` with lines ``positive/000001.npz 1``.

    ``videos/Crash-1500.txt`` has a line per accident, ``000001,[0, 0, ..., 1],...``: its toa is the first 1, but at
    least frame 1 and at most frame 49.
    """
    folder = _feature_folder(scan, feature)
    if not folder:
        return []
    toas = _ccd_toas(scan)
    clips = []
    for clip in _listed(scan, folder, "ccd"):
        if clip.label and toas and clip.id.rpartition("/")[2] not in toas:
            scan.problems.append(f"videos/Crash-1500.txt has no line for {clip.id}.")
        elif clip.label:
            clips.append(replace(clip, toa=toas.get(clip.id.rpartition("/")[2])))
        else:
            clips.append(clip)
    return scan.present(clips, "listed npz files")


def _ccd_toas(scan: Scan) -> dict[str, float]:
    toas: dict[str, float] = {}
    place = "videos/Crash-1500.txt"
    for number, line in enumerate(scan.lines(place), start=1):
        match = re.match(r"([^,\s]+)\s*,\s*\[([01,\s]+)\]", line)
        frames = [int(digit) for digit in re.findall(r"[01]", match[2])] if match else []
        if match is None or 1 not in frames:
            scan.problems.append(f"Line {number} of {place} marks no accident: {line[:60]!r}.")
            continue
        toas[match[1]] = float(min(max(1, frames.index(1)), _CCD_LAST))
    return toas


def _a3d(scan: Scan, feature: str | None) -> list[ListedClip]:
    """Lists A3D as UString prepared it: lists as CCD's, and ``frame_labels/CLIP.txt`` with lines ``frame 0|1``.

    CLIP is the npz file's name, without a last part of one letter (``abc_000011_0`` is labelled as ``abc_000011``).
    Its toa is the first 1, but at least frame 1. Boxes are read from ``detections/{positive,negative}/ID.npz``, which
    ``mmattn convert crash --to boxes`` makes of the pickles there.
    """
    folder = _feature_folder(scan, feature)
    clips: list[ListedClip] = []
    unlabelled: list[str] = []
    for clip in _listed(scan, folder, "a3d") if folder else []:
        boxes = scan.root / "detections" / f"{clip.id}.npz"
        with_boxes = replace(clip, boxes_path=str(boxes) if boxes.is_file() else "")
        if not clip.label:
            clips.append(with_boxes)
            continue
        place = f"frame_labels/{_a3d_name(clip.id.rpartition('/')[2])}.txt"
        toa = _a3d_toa(scan, place)
        if toa is None:
            unlabelled.append(place)
        else:
            clips.append(replace(with_boxes, toa=toa))
    if unlabelled:
        scan.problems.append(f"{len(unlabelled)} accidents have no file that marks an accident: {named(unlabelled)}.")
    return scan.present(clips, "listed npz files")


def _a3d_name(name: str) -> str:
    return name[:-2] if len(name.rpartition("_")[2]) == 1 else name


def _a3d_toa(scan: Scan, place: str) -> float | None:
    if not (scan.root / place).is_file():
        return None
    marks = [line.split()[1:2] for line in scan.lines(place)]
    return float(max(1, marks.index(["1"]))) if ["1"] in marks else None


def _nexar(scan: Scan, feature: str | None) -> list[ListedClip]:
    """Lists Nexar's videos, as on Hugging Face or as on Kaggle; features come from a feature folder.

    Hugging Face: ``train/{positive,negative}/metadata.csv`` with ``file_name, time_of_event, time_of_alert`` and, for
    the trimmed clips of ``test-public`` and ``test-private``, ``time_to_accident``. Kaggle: ``train.csv`` with
    ``id, time_of_event, time_of_alert, target`` and ``train/00001.mp4``; its test clips have no labels.
    """
    tables = sorted(scan.root.glob("*/*/metadata.csv"))
    clips: list[ListedClip] = []
    for table in tables:
        folder, label = table.parent.parent.name, table.parent.name
        split, place = folder.partition("-")[0], table.relative_to(scan.root).as_posix()
        if split not in ("train", "test") or label not in ("positive", "negative"):
            scan.problems.append(f"{place} is in no folder of a split and a label, such as train/positive.")
            continue
        for number, row in enumerate(scan.rows(place, ["file_name", "time_of_event"]), start=2):
            where = f"{place}, line {number}"
            video = scan.listed(row["file_name"], where, f"{folder}/{label}")
            if video is None:
                continue
            name = f"{folder}/{label}/{video.stem}"
            clips += _video_clip(scan, where, row, name, video, "nexar", split, label == "positive")
    if not tables:
        for number, row in enumerate(scan.rows("train.csv", ["id", "time_of_event", "target"]), start=2):
            where = f"train.csv, line {number}"
            video = scan.listed(f"{row['id'].zfill(5)}.mp4", where, "train")
            if video is None:
                continue
            name = f"train/{video.stem}"
            clips += _video_clip(scan, where, row, name, video, "nexar", "train", "target")
    return scan.present(clips, "listed videos")


def _annotated_videos(scan: Scan, feature: str | None) -> list[ListedClip]:
    """Lists a user's own videos: ``annotations.csv`` in the folder; features come from a feature folder.

    Columns ``file`` (path below the folder), ``label`` (0 or 1), ``time_of_event`` (seconds from the start, empty
    without an accident); optional ``split`` (train, val, test; train if missing) and ``time_of_reference`` (seconds,
    the closest moment of a near miss).
    """
    place = "annotations.csv"
    clips: list[ListedClip] = []
    for number, row in enumerate(scan.rows(place, ["file", "label", "time_of_event"]), start=2):
        split = row.get("split", "") or "train"
        if split not in ("train", "val", "test"):
            scan.problems.append(f"{place}, line {number}: split is {split!r}, expected train, val or test.")
            continue
        where = f"{place}, line {number}"
        video = scan.listed(row["file"], where)
        if video is None:
            continue
        name = video.relative_to(scan.root).with_suffix("").as_posix()
        clips += _video_clip(scan, where, row, name, video, scan.root.name, split, "label")
    return scan.present(clips, "listed videos")


def _video_clip(
    scan: Scan, where: str, row: dict[str, str], name: str, video: Path, dataset: str, split: str, label: bool | str
) -> list[ListedClip]:
    """Returns the clip of a row, or nothing after naming what is wrong with it."""
    try:
        accident = label if isinstance(label, bool) else bool(read_label(row, label))
        event, reference = read_seconds(row, "time_of_event"), read_seconds(row, "time_of_reference")
        remaining = read_seconds(row, "time_to_accident")
        if accident and event is None and remaining is None:
            raise InputError("an accident needs time_of_event (or time_to_accident for a trimmed clip).")
        if event is not None and event <= 0:
            raise InputError(f"time_of_event is {event:g} s, expected a time after the start.")
    except InputError as error:
        scan.problems.append(f"{where}: {error.message}")
        return []
    toa = event if accident else None
    trimmed = remaining if accident and event is None else None
    return [ListedClip(name, str(video), dataset, split, int(accident), toa, reference, True, time_to_event=trimmed)]


def _feature_folder(scan: Scan, feature: str | None, also: str = "") -> str:
    """Returns the folder of features, ``vgg16_features`` for "vgg16"; the only one there is when it is not named."""
    present = sorted(path.name for path in scan.root.glob("*_features") if path.is_dir())
    if also and (scan.root / also).is_dir():
        present.append(also)
    wanted = [f"{feature}_features"] if feature else present
    if len(wanted) == 1 and wanted[0] in present:
        return wanted[0]
    if feature:
        scan.problems.append(f"The folder {feature}_features is missing; there is {named(present) or 'none like it'}.")
    elif present:
        scan.problems.append(f"There are several kinds of features, {named(present)}: name one of them.")
    else:
        scan.problems.append("There is no folder of features, such as vgg16_features.")
    return ""


def _listed(scan: Scan, folder: str, dataset: str) -> list[ListedClip]:
    """Returns the clips of ``train.txt`` and ``test.txt``."""
    clips = []
    for split in ("train", "test"):
        place = f"{folder}/{split}.txt"
        for number, line in enumerate(scan.lines(place), start=1):
            match = re.fullmatch(r"(\S+)\.npz\s+([01])", line)
            if match is None:
                scan.problems.append(f"Line {number} of {place} is {line[:60]!r}, expected 'positive/ID.npz 1'.")
                continue
            path = scan.listed(f"{match[1]}.npz", f"{place}, line {number}", folder)
            if path is None:
                continue
            clips.append(ListedClip(match[1], str(path), dataset, split, int(match[2])))
    return clips


@dataclass(frozen=True)
class ClipLayout(Layout):
    """How one dataset of clips lies on disk; ``find`` takes the kind of features, None takes the only one there is.

    Attributes:
        reader: Reads features out of its own files; None: they lie in a feature folder.
    """

    reader: NpzReader | None = None


LAYOUTS = LayoutTable(
    "crash",
    {
        "features": ClipLayout(read_clip_table, ("manifest.json",)),
        "dad": ClipLayout(_dad, ("*_features/training/*.npz", "features/training/*.npz"), NpzReader(20.0, 100, "data")),
        "ccd": ClipLayout(_ccd, ("videos/Crash-1500.txt",), NpzReader(10.0, 50, "data")),
        "a3d": ClipLayout(_a3d, ("frame_labels",), NpzReader(20.0, 100, "features")),
        "nexar": ClipLayout(_nexar, ("train/positive/metadata.csv", "train.csv")),
        "videos": ClipLayout(_annotated_videos, ("annotations.csv",)),
    },
)
"""Layout by the name that ``data.init_args.layout`` and ``--layout`` take."""
