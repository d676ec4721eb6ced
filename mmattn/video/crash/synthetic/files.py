"""Drawn clips on disk: one file per clip with its pictures as JPEG files and everything that is exactly known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mmattn.media.files import atomic_path
from mmattn.video.crash.synthetic.drawing.render import render
from mmattn.video.crash.synthetic.world.camera import Seen
from mmattn.video.crash.synthetic.world.clips import draw_clip

__all__ = ["ClipFile", "clip_path", "read_clip", "write_clip", "write_clips"]


@dataclass(frozen=True)
class ClipFile:
    """A drawn clip.

    Attributes:
        pictures: JPEG files, one per frame.
        seen: Exact boxes and states.
        label: 1 for an accident.
        toa: Frames before the accident; FRAMES + 1 without one.
        ref: Frame of the accident or of the shortest time to collision.
        ttc: Shortest time to collision, s.
        type: Type of conflict.
        outcome: "collision", "near" or "clear".
        view: Focal length (pixels), height (m) and row of the horizon of the camera, (3,).
    """

    pictures: list[bytes]
    seen: Seen
    label: int
    toa: float
    ref: int
    ttc: float
    type: str
    outcome: str
    view: npt.NDArray[np.float64]


def clip_path(folder: str | Path, split: str, number: int) -> Path:
    """Returns where a clip is kept."""
    return Path(folder) / split / f"{number:06d}.npz"


def write_clips(folder: str | Path, split: str, numbers: Sequence[int]) -> None:
    """Draws clips of a split into a folder, about 0.5 MB each; those that are there are left as they are."""
    missing = [number for number in numbers if not clip_path(folder, split, number).is_file()]
    for number in tqdm(missing, desc=f"Drawing {split} clips", unit="clip", mininterval=10, disable=not missing):
        write_clip(clip_path(folder, split, number), split, number)


def write_clip(path: Path, split: str, number: int) -> None:
    """Draws a clip and writes its file."""
    clip = draw_clip(split, number)
    pictures = render(clip)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            jpeg=np.frombuffer(b"".join(pictures), np.uint8),
            ends=np.cumsum([len(picture) for picture in pictures]),
            numbers=np.array([clip.label, clip.toa, clip.ref, clip.ttc]),
            names=np.array([clip.type, clip.outcome]),
            view=np.array([clip.camera.focal, clip.camera.height, clip.camera.horizon]),
            **{f"seen_{f.name}": getattr(clip.seen, f.name) for f in fields(Seen)},
        )


def read_clip(path: str | Path) -> ClipFile:
    """Reads a clip that :func:`write_clips` wrote.

    Raises:
        FileNotFoundError: If there is none.
    """
    with np.load(path, allow_pickle=False) as stored:
        data, ends = stored["jpeg"].tobytes(), stored["ends"]
        starts = np.concatenate([[0], ends[:-1]])
        label, toa, ref, ttc = (float(value) for value in stored["numbers"])
        return ClipFile(
            [data[start:end] for start, end in zip(starts, ends, strict=True)],
            Seen(**{f.name: stored[f"seen_{f.name}"] for f in fields(Seen)}),
            int(label),
            toa,
            int(ref),
            ttc,
            str(stored["names"][0]),
            str(stored["names"][1]),
            stored["view"],
        )
