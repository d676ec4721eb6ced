"""``mmattn data check crash PATH``: everything that is wrong with a dataset folder, before a training finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmattn.core.datasets.layouts import Report, each_problem
from mmattn.errors import InputError, MediaError
from mmattn.media.npz import read_array
from mmattn.media.video import open_video
from mmattn.video.crash.datasets.clip_reading import ClipReader, NpzReader, frames_before, reference_frame
from mmattn.video.crash.datasets.layouts import LAYOUTS, clip_reader, scan_clips
from mmattn.video.crash.datasets.records import ListedClip

__all__ = ["check"]


def check(
    layout: str, root: str | Path, *, feature: str | None = None, features_root: str | Path | None = None
) -> Report:
    """Reads every file of a dataset and names all that is wrong with it.

    Files that are listed and missing, arrays that are missing or of a wrong shape, features that are not finite, clips
    of different widths, accidents outside their clip, labels that contradict each other, videos that cannot be decoded,
    splits without accidents or without other clips, and a folder that looks like another layout.

    Args:
        layout: Key of :data:`LAYOUTS`.
        root: The dataset's folder.
        feature: Kind of features; None takes the only one there is.
        features_root: Feature folder of a dataset of videos.

    Raises:
        InputError: If the layout is unknown or the folder is missing.
    """
    clips, scan = scan_clips(layout, root, feature)
    report, counts = Report(layout, scan.root, scan.problems), Counter((clip.split, clip.label) for clip in clips)
    if not clips:
        report.problems.insert(0, LAYOUTS.nothing_found(layout, scan.root, "clip"))
        return report
    for split in dict.fromkeys(split for split, _ in counts):
        report.facts.append(f"{split}: {counts[split, 1]} accidents, {counts[split, 0]} other clips")
        for label, what in ((1, "with an accident"), (0, "without an accident")):
            if not counts[split, label]:
                report.problems.append(f"The {split} split has no clip {what}; metrics that need one are n/a.")
    if LAYOUTS[layout].reader is None and layout != "features":
        report.problems += each_problem(clips, _video_problem, "Videos", "clip")
    if layout == "features" or LAYOUTS[layout].reader is not None or features_root is not None:
        report.problems += _feature_problems(clips, clip_reader(layout, root, features_root))
    report.notes += _pickle_note(scan.root) if layout == "a3d" else []
    return report


def _feature_problems(clips: Sequence[ListedClip], reader: ClipReader) -> Iterator[str]:
    """Yields what is wrong with the features of clips; every one is read."""
    widths: Counter[tuple[int, int]] = Counter()

    def problem(clip: ListedClip) -> str:
        try:
            # A3D's boxes come from files of their own, which need not be there.
            has_boxes = bool(clip.boxes_path) or (isinstance(reader, NpzReader) and reader.key == "data")
            loaded = reader(clip, with_boxes=has_boxes)
            if isinstance(reader, NpzReader) and reader.key == "data" and clip.row is None:
                labels = read_array(clip.path, "labels", (2,))
                if int(labels[1] > 0) != clip.label:
                    return f"'{clip.path}': labels are {labels.tolist()}, and the dataset lists it as {clip.label}."
            toa = frames_before(clip, loaded.times, reader.fps)
            reference = reference_frame(clip, toa, loaded.times, reader.fps)
        except InputError as error:
            return error.message
        widths[loaded.features.shape[1] - 1, loaded.features.shape[2]] += 1
        if not clip.label and not 0 < reference <= len(loaded.times):
            return f"The reference of clip {clip.id!r} is frame {reference:g}, expected 1 to {len(loaded.times)}."
        return ""

    yield from each_problem(clips, problem, "Features", "clip")
    if len(widths) > 1:
        common = sorted(widths.items(), key=lambda kind: (-kind[1], kind[0]))  # clips are read in any order
        kinds = ", ".join(f"{count} of {boxes} boxes x {width}" for (boxes, width), count in common)
        yield f"Clips have features of different sizes: {kinds}."


def _video_problem(clip: ListedClip) -> str:
    try:
        with open_video(clip.path) as video:
            duration = float(video.timestamps[-1]) + 1.0 / video.fps
    except MediaError as error:
        return error.message
    for name, moment in (("accident", clip.toa), ("reference", clip.reference)):
        if moment is not None and not 0 < moment <= duration:
            return f"The {name} of clip {clip.id!r} is at {moment:g} s of a video of {duration:.2f} s ('{clip.path}')."
    return ""


def _pickle_note(root: Path) -> list[str]:
    pickles = [path for path in root.glob("detections/*/*.pkl") if not path.with_suffix(".npz").is_file()]
    if not pickles:
        return []
    return [
        f"{len(pickles)} files of boxes are pickles, which are never opened here. "
        f"Convert them with: mmattn convert crash {root} --to boxes --output {root}"
    ]
