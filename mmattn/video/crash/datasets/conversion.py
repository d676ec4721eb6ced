"""Public datasets in forms that are read faster: clips instead of batches, npz instead of pickles, half precision.

DAD takes 56 GB in single precision, and reading a clip of a batch file means reading those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mmattn.core.datasets.features import fingerprint
from mmattn.errors import InputError
from mmattn.media.files import atomic_path
from mmattn.media.npz import read_array, read_text
from mmattn.media.paths import contained
from mmattn.media.plain_pickle import load_plain_pickle
from mmattn.video.crash.datasets.clip_reading import ClipReader, frames_before
from mmattn.video.crash.datasets.clip_table import write_clip_table
from mmattn.video.crash.datasets.feature_folder import ClipFeatures, FeatureFolder, Filled, Manifest, fill
from mmattn.video.crash.datasets.layouts import LAYOUTS, clip_reader, read_clips
from mmattn.video.crash.datasets.readers import dad_names
from mmattn.video.crash.datasets.records import ListedClip

__all__ = ["convert_detections", "convert_features", "split_dad_batches"]


def split_dad_batches(root: str | Path, output: str | Path) -> int:
    """Writes DAD's batches of ten clips as a file per clip, the layout that all successors of DSA read.

    Files that are there already are kept, so an interrupted run continues. They are not compressed, for speed.

    Args:
        root: DAD's folder with ``features/{training,testing}/batch_*.npz``.
        output: Folder to write ``vgg16_features/{training,testing}/b001_000490.npz`` below; may be ``root``.

    Returns:
        Number of clips that were written.

    Raises:
        InputError: If there are no batches, or one is damaged, or a clip's id in it leads out of the folder.
        MediaError: If the folder cannot be written or the disk is full.
    """
    places = {split: sorted(Path(root).glob(f"features/{split}/batch_*.npz")) for split in ("training", "testing")}
    if not any(places.values()):
        raise InputError(
            f"'{root}' has no batches of DAD: expected features/training/batch_001.npz and so on.",
            "Give the folder that holds 'features'.",
        )
    written = 0
    batches = [(split, n, file) for split, files in places.items() for n, file in enumerate(files, start=1)]
    for split, number, file in tqdm(batches, "Batches", unit="batch", disable=None):
        names = dad_names(read_text(file, "ID"), number)
        labels = read_array(file, "labels", (len(names), 2))
        for row, name in enumerate(names):
            target = contained(f"vgg16_features/{split}/{name}.npz", output)
            if target.is_file():
                continue
            data = read_array(file, "data", (None, None, None), row=row)
            boxes = read_array(file, "det", (None, None, 6), row=row)
            _save_npz(target, data=data, labels=labels[row], det=boxes, ID=np.array(name))
            written += 1
    return written


def convert_features(
    layout: str,
    root: str | Path,
    output: str | Path,
    *,
    feature: str | None = None,
    with_boxes: bool = True,
    limit: int | None = None,
) -> Filled:
    """Writes a public dataset as a feature folder (layout ``features``): half the size, memory-mapped.

    A clip that cannot be converted is reported in ``errors.jsonl`` and left out of the table; finished clips are kept
    when the run is repeated.

    Args:
        layout: "dad", "ccd" or "a3d".
        root: The dataset's folder.
        output: Feature folder to write.
        feature: Kind of features, such as "vgg16"; None takes the only one there is.
        with_boxes: Whether boxes are kept; A3D's are, when they have been converted.
        limit: Only so many clips.

    Raises:
        InputError: If the layout has no features of its own, the dataset cannot be read, or the output holds something
            else.
        MediaError: If the folder cannot be written or the disk is full.
    """
    if layout not in LAYOUTS or LAYOUTS[layout].reader is None:
        able = ", ".join(name for name, known in LAYOUTS.items() if known.reader is not None)
        raise InputError(f"The layout {layout!r} has no features to convert.", f"Layouts that have: {able}.")
    clips = read_clips(layout, root, feature)[:limit]
    reader = clip_reader(layout, root)
    by_id = {clip.id: clip for clip in clips}
    with_boxes = with_boxes and all(clip.boxes_path or layout != "a3d" for clip in clips)
    width = _first_shape(clips, reader)
    source = {"layout": layout, "feature": _feature_name(clips[0], layout), "boxes": with_boxes}
    manifest = Manifest(fingerprint({**source, "shape": width}), width[1], width[0], reader.fps, source)
    folder = FeatureFolder.create(output, manifest)
    extract = partial(_read, by_id, reader, with_boxes)
    filled = fill(folder, ((clip.id, clip.id) for clip in clips), extract, name=f"Converting {layout}")
    done = [clip for clip in clips if folder.has(clip.id)]
    write_clip_table(folder.root, [replace(clip, path="", boxes_path="", row=None) for clip in done])
    return filled


def convert_detections(root: str | Path, output: str | Path | None = None) -> Filled:
    """Writes A3D's pickled boxes as npz files that are read without unpickling.

    Each pickle may hold lists, dicts, tuples, numbers, strings and NumPy arrays and nothing else, see
    :mod:`mmattn.media.plain_pickle`; others are refused one by one and reported.

    Args:
        root: A3D's folder with ``detections/{positive,negative}/ID.pkl``.
        output: Folder to write ``detections/{positive,negative}/ID.npz`` below; None is ``root``.

    Raises:
        InputError: If there are no pickles.
        MediaError: If the folder cannot be written or the disk is full.
    """
    pickles = sorted(Path(root).glob("detections/*/*.pkl"))
    if not pickles:
        raise InputError(f"'{root}' has no detections/positive/*.pkl.", "Give A3D's folder.")
    made = kept = 0
    errors: list[dict[str, str]] = []
    for path in tqdm(pickles, "Boxes", unit="clip", disable=None):
        target = Path(output or root) / path.relative_to(root).with_suffix(".npz")
        if target.is_file():
            kept += 1
            continue
        try:
            boxes = _boxes_of(load_plain_pickle(path), path)
        except InputError as error:
            name = path.relative_to(root).with_suffix("").as_posix()
            errors.append({"id": name, "input": str(path), "error": error.message, "hint": error.hint})
            continue
        _save_npz(target, det=boxes)
        made += 1
    return Filled(made, kept, errors)


def _boxes_of(value: Any, path: Path) -> npt.NDArray[np.float32]:
    """Returns (T, N, 6) boxes of a list of frames or an array."""
    frames = value if isinstance(value, list | tuple | np.ndarray) else []
    is_regular = len(frames) > 0 and all(
        isinstance(frame, list | tuple | np.ndarray) and len(frame) == len(frames[0]) for frame in frames
    )
    rows = [row for frame in frames for row in frame] if is_regular else []
    if not rows or not all(isinstance(row, list | tuple | np.ndarray) and len(row) == 6 for row in rows):
        raise InputError(f"'{path}' does not hold boxes: expected frames x boxes x 6 numbers.")
    if not all(isinstance(number, int | float | np.number) for row in rows for number in row):
        raise InputError(f"'{path}' does not hold boxes: some entries are no numbers.")
    return np.array(rows, np.float32).reshape(len(frames), -1, 6)


def _read(clips: dict[str, ListedClip], reader: ClipReader, with_boxes: bool, clip_id: str) -> ClipFeatures:
    clip = clips[clip_id]
    loaded = reader(clip, with_boxes=with_boxes)
    frames_before(clip, loaded.times, reader.fps)  # an accident outside its clip is this clip's error
    return loaded


def _first_shape(clips: Sequence[ListedClip], reader: ClipReader) -> tuple[int, int]:
    """Returns N and F of the first clip that can be read."""
    error: InputError | None = None
    for clip in clips:
        try:
            _, slots, width = reader(clip).features.shape
        except InputError as unreadable:
            error = error or unreadable
        else:
            return slots - 1, width
    raise error or InputError("There is no clip to convert.")


def _feature_name(clip: ListedClip, layout: str) -> str:
    """Returns the kind of features as its folder is called, such as "vgg16"."""
    parts = Path(clip.path).parts
    return next((part.removesuffix("_features") for part in reversed(parts) if part.endswith("_features")), layout)


def _save_npz(path: Path, **arrays: npt.NDArray[Any]) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
