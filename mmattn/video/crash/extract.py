"""Features of a folder of videos, computed once and kept: half precision, resumable, with a report of what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.core.batch.inputs import InputItem, expand_inputs
from mmattn.core.datasets.features import fingerprint
from mmattn.errors import InputError
from mmattn.media.video import VIDEO_SUFFIXES, open_video, sample_times
from mmattn.video.crash.datasets.feature_folder import ClipFeatures, FeatureFolder, Filled, Manifest, fill
from mmattn.video.crash.perception.box_file import find_box_file, read_box_file
from mmattn.video.crash.perception.box_table import FileDetector
from mmattn.video.crash.perception.crop_perception import CropPerception
from mmattn.video.crash.perception.protocol import FramePerception, Perception
from mmattn.video.crash.perception.road_detectors import kind_number

__all__ = ["extract_clip", "extract_features"]

_FRAMES_PER_READ = 16


def extract_features(
    inputs: Sequence[str | Path],
    output: str | Path,
    perception: Perception,
    *,
    settings: Mapping[str, Any],
    boxes: str | Path | None = None,
    limit: int | None = None,
) -> Filled:
    """Writes the features of videos into a feature folder; clips that are there already are kept.

    A clip's id is the name that ``mmattn infer`` gives the results of its video, without suffix. A video that fails is
    listed in the folder's ``errors.jsonl`` and does not stop the others.

    Args:
        inputs: Videos, folders, globs or ``@list.txt``.
        output: The feature folder; an interrupted run is continued.
        perception: Makes the features.
        settings: What shapes them, plain JSON: ``CropPerception.settings()``, or what identifies another perception.
            A folder made with other settings is refused.
        boxes: File or folder of boxes from another detector, for perceptions by crops.
        limit: Only the first so many videos.

    Raises:
        InputError: If there is no video, two have the same id, or the folder holds features of another kind.
        MediaError: If the folder cannot be written or the disk is full; finished clips stay.
    """
    clips = _clip_ids(expand_inputs(list(inputs), suffixes=VIDEO_SUFFIXES))[:limit]
    source = {"fps": perception.fps, **settings, **({} if boxes is None else {"detector": f"boxes from {boxes}"})}
    manifest = Manifest(fingerprint(source), perception.feature_dim, perception.num_boxes, perception.fps, source)
    folder = FeatureFolder.create(output, manifest)
    extract: Callable[[str], ClipFeatures] = partial(extract_clip, perception=perception, boxes=boxes)
    return fill(folder, clips, extract, name="Features")


def extract_clip(video: str | Path, perception: Perception, *, boxes: str | Path | None = None) -> ClipFeatures:
    """Returns the features of one video at the perception's frame rate, in half precision.

    Args:
        video: The file.
        perception: Makes the features.
        boxes: File or folder of boxes from another detector.

    Raises:
        InputError: If boxes do not fit, or the perception cannot use them.
        MediaError: If the video cannot be read.
    """
    with open_video(video) as reader:
        if boxes is not None:
            if not isinstance(perception, CropPerception):
                raise InputError("This model finds road users itself; boxes from a file fit perceptions by crops only.")
            table = read_box_file(find_box_file(boxes, video), reader.timestamps)
            perception = perception.with_detector(FileDetector(table))
        indices = np.unique(sample_times(reader, perception.fps))
        times = np.asarray(reader.timestamps)[indices]
        session, seen = perception.open(), []
        for start in range(0, len(indices), _FRAMES_PER_READ):
            part = slice(start, start + _FRAMES_PER_READ)
            found = session.push(list(reader.get_batch(indices[part])), times[part].tolist())
            seen += [(one.features.astype(np.float16), one.valid, _box_rows(one, perception)) for one in found]
    features, valid, rows = (np.stack(column) for column in zip(*seen, strict=True))
    return ClipFeatures(features, valid, times, rows)


def _box_rows(seen: FramePerception, perception: Perception) -> np.ndarray:
    """Returns (N, 6) x1, y1, x2, y2, score, class; slots without a box are zero."""
    rows = np.zeros((perception.num_boxes, 6), np.float32)
    count = len(seen.boxes)
    rows[:count, :4], rows[:count, 4] = seen.boxes, seen.scores
    rows[:count, 5] = [kind_number(name) for name in seen.classes]
    return rows


def _clip_ids(videos: Iterable[InputItem]) -> list[tuple[str, str]]:
    """Returns id and path of each clip."""
    clips: dict[str, Path] = {}
    for video in videos:
        clip_id = video.name.removesuffix(video.path.suffix)
        if clip_id in clips:
            raise InputError(
                f"'{video.path}' and '{clips[clip_id]}' would both be the clip {clip_id!r}.",
                "Rename one, or put it into another folder.",
            )
        clips[clip_id] = video.path
    return [(clip_id, str(path)) for clip_id, path in clips.items()]
