"""Tiny datasets in the true on-disk layout of every dataset CRASH reads: true frame counts, few boxes, narrow features.

Features rise towards an accident, so that a model can learn them.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmattn.media.video import VideoWriter
from mmattn.video.crash.datasets.clip_table import write_clip_table
from mmattn.video.crash.datasets.feature_folder import ClipFeatures, FeatureFolder, Manifest
from mmattn.video.crash.datasets.records import ListedClip

__all__ = [
    "BOXES",
    "WIDTH",
    "WRITERS",
    "clip_arrays",
    "clip_features",
    "feature_folder",
    "features_for",
    "write_a3d",
    "write_ccd",
    "write_dad",
    "write_dad_batches",
    "write_features",
    "write_nexar",
    "write_nexar_kaggle",
    "write_table",
    "write_video",
    "write_videos",
]

BOXES, WIDTH = 3, 6

Array = npt.NDArray[np.float32]


def clip_arrays(seed: int, frames: int, toa: float | None) -> tuple[Array, Array]:
    """Returns features (T, N + 1, F) and boxes (T, N, 6) of a clip; the last box is missing in the first two frames."""
    rng = np.random.default_rng(seed)
    features = rng.random((frames, BOXES + 1, WIDTH), dtype=np.float32) + 0.1
    if toa is not None:
        features[..., 0] += np.exp(-np.maximum(toa - np.arange(frames), 0) / frames * 4)[:, None].astype(np.float32)
    corners = rng.integers(0, 100, (frames, BOXES, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 20, rng.random((frames, BOXES, 2), dtype=np.float32)], axis=-1)
    features[:2, BOXES] = 0
    boxes[:2, BOXES - 1] = 0
    return features, boxes


def one_hot(label: int) -> Array:
    return np.array([1 - label, label], np.float32)


def write_dad(root: Path, *, per_kind: int = 2, feature: str = "vgg16") -> Path:
    """Writes DAD as all successors of DSA read it, a file per clip."""
    for split in ("training", "testing"):
        folder = root / f"{feature}_features" / split
        folder.mkdir(parents=True)
        for number in range(2 * per_kind):
            label = number % 2
            data, boxes = clip_arrays(number + len(split), 100, 90 if label else None)
            name = f"b001_{number:06d}"
            np.savez_compressed(folder / f"{name}.npz", data=data, labels=one_hot(label), det=boxes, ID=name)
    return root


def write_dad_batches(root: Path, *, per_batch: int = 3, batches: int = 2) -> Path:
    """Writes DAD as first distributed, several clips a file; the last clip of a batch repeats the name of the first."""
    for split in ("training", "testing"):
        folder = root / "features" / split
        folder.mkdir(parents=True)
        for batch in range(batches):
            labels = np.arange(per_batch) % 2
            clips = [clip_arrays(10 * batch + i, 100, 90 if label else None) for i, label in enumerate(labels)]
            names = [f"{10 * batch + i:06d}" for i in range(per_batch)]
            names[-1] = names[0]
            np.savez(
                folder / f"batch_{batch + 1:03d}.npz",
                data=np.stack([data for data, _ in clips]),
                labels=np.stack([one_hot(int(label)) for label in labels]),
                det=np.stack([boxes for _, boxes in clips]),
                ID=np.array([name.encode() for name in names]),
            )
    return root


def write_ccd(root: Path, *, per_kind: int = 2) -> Path:
    """Writes CCD: lists, features with bytes as ID, and the table of accidents; toas are 20, 21, ..."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    table = []
    for number in range(1, 2 * per_kind + 1):
        split = "train" if number <= per_kind else "test"
        for kind, label in (("positive", 1), ("negative", 0)):
            toa = 19 + number if label else None
            data, boxes = clip_arrays(100 * label + number, 50, toa)
            path = root / "vgg16_features" / kind / f"{number:06d}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, data=data, labels=one_hot(label), det=boxes, ID=np.bytes_(f"{number:06d}"))
            lines[split].append(f"{kind}/{number:06d}.npz {label}")
        marks = ", ".join("1" if frame >= 19 + number else "0" for frame in range(50))
        table.append(f"{number:06d},[{marks}],{number * 7},yt_{number},Day,Normal,{'Yes' if number % 2 else 'No'}")
    for split, listed in lines.items():
        (root / "vgg16_features" / f"{split}.txt").write_text("\n".join(listed) + "\n")
    (root / "videos").mkdir()
    (root / "videos/Crash-1500.txt").write_text("\n".join(table) + "\n")
    return root


def write_a3d(root: Path, *, per_kind: int = 2, pickles: bool = True) -> Path:
    """Writes A3D as UString prepared it; toas are 80, 81, ...; the clips' names end in a part of one letter or not."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(2 * per_kind):
        split = "train" if number < per_kind else "test"
        for kind, label in (("positive", 1), ("negative", 0)):
            video = f"uX{label}_{number:06d}"
            name = f"{video}_0" if number % 2 else video
            toa = 80 + number if label else None
            data, boxes = clip_arrays(100 * label + number, 100, toa)
            for folder in ("vgg16_features", "detections"):
                (root / folder / kind).mkdir(parents=True, exist_ok=True)
            np.savez(root / "vgg16_features" / kind / f"{name}.npz", features=data)
            if pickles:
                (root / "detections" / kind / f"{name}.pkl").write_bytes(pickle.dumps(list(boxes), 2))
            lines[split].append(f"{kind}/{name}.npz {label}")
            if toa is not None:
                (root / "frame_labels").mkdir(exist_ok=True)
                marks = "".join(f"{frame} {int(frame >= toa)}\n" for frame in range(100))
                (root / "frame_labels" / f"{video}.txt").write_text(marks)
    for split, listed in lines.items():
        (root / "vgg16_features" / f"{split}.txt").write_text("\n".join(listed) + "\n")
    return root


def write_video(path: Path, *, frames: int = 20, fps: float = 10.0) -> Path:
    """Writes a grey video that gets brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps) as video:
        for frame in range(frames):
            video.write(np.full((32, 48, 3), 40 + 5 * frame, np.uint8))
    return path


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_nexar(root: Path, *, per_kind: int = 2) -> Path:
    """Writes Nexar as on Hugging Face: whole training clips, test clips trimmed half a second before the event."""
    columns = ["file_name", "time_of_event", "time_of_alert", "light_conditions", "weather", "scene",
               "time_to_accident"]  # fmt: skip
    for split in ("train", "test-public"):
        for kind in ("positive", "negative"):
            rows = []
            for number in range(per_kind):
                video = write_video(root / split / kind / f"{number + 1:05d}.mp4")
                event, alert, remaining = 1.2, 0.7, 0.5
                times: list[object] = ["", "", remaining] if split == "test-public" else [event, alert, ""]
                if kind == "negative":
                    times = ["", "", ""]
                rows.append([video.name, *times[:2], "Normal", "Clear", "Urban", times[2]])
            write_table(root / split / kind / "metadata.csv", columns, rows)
    return root


def write_nexar_kaggle(root: Path, *, per_kind: int = 2) -> Path:
    """Writes Nexar as on Kaggle: ids without leading zeros, labels for the training clips only."""
    rows: list[list[object]] = []
    for number in range(1, 2 * per_kind + 1):
        write_video(root / "train" / f"{number:05d}.mp4")
        label = number % 2
        rows.append([number, 1.2 if label else "", 0.7 if label else "", label])
    write_table(root / "train.csv", ["id", "time_of_event", "time_of_alert", "target"], rows)
    write_video(root / "test" / "09001.mp4")
    write_table(root / "test.csv", ["id"], [[9001]])
    return root


def write_videos(root: Path, *, per_kind: int = 2) -> Path:
    """Writes a user's own videos with ``annotations.csv``; near misses have their closest moment at 1.5 s."""
    rows: list[list[object]] = []
    for split in ("train", "test"):
        for number in range(per_kind):
            for kind, label in (("crash", 1), ("drive", 0)):
                video = write_video(root / split / f"{kind}_{number}.mp4")
                times = [1.2, ""] if label else ["", 1.5 if number else ""]
                rows.append([video.relative_to(root).as_posix(), label, *times, split])
    write_table(root / "annotations.csv", ["file", "label", "time_of_event", "time_of_reference", "split"], rows)
    return root


def write_features(
    root: Path, *, per_kind: int = 2, frames: int = 30, splits: Sequence[str] = ("train", "test"), boxes: bool = True
) -> Path:
    """Writes a feature folder that is a dataset of its own; near misses are closest at frame 15."""
    folder = feature_folder(root)
    clips = []
    for split in splits:
        for number in range(2 * per_kind):
            label = number % 2
            toa = 20.0 + number % 8 if label else None
            clip = ListedClip(f"{split}/{number:03d}", "", "toy", split, label, toa, None if label else 15.0)
            folder.store(clip.id, clip_features(number + len(split), frames, toa, boxes=boxes))
            clips.append(clip)
    write_clip_table(root, clips)
    return root


def feature_folder(root: Path, *, fps: float = 10.0) -> FeatureFolder:
    return FeatureFolder.create(root, Manifest("f" * 32, WIDTH, BOXES, fps, {"perception": "fake"}))


def clip_features(seed: int, frames: int, toa: float | None, *, fps: float = 10.0, boxes: bool = True) -> ClipFeatures:
    features, rows = clip_arrays(seed, frames, toa)
    return ClipFeatures(features, np.asarray(features.any(axis=-1)), np.arange(frames) / fps, rows if boxes else None)


def features_for(clips: Iterable[ListedClip], root: Path, *, frames: int = 20) -> FeatureFolder:
    """Writes the feature folder of a dataset of videos."""
    folder = feature_folder(root)
    for number, clip in enumerate(clips):
        folder.store(clip.id, clip_features(number, frames, 12.0 if clip.label else None))
    return folder


WRITERS = {
    "dad": write_dad,
    "ccd": write_ccd,
    "a3d": write_a3d,
    "nexar": write_nexar,
    "videos": write_videos,
    "features": write_features,
}
