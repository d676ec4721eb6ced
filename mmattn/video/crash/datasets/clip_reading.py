"""From an annotated clip to its features: out of the public npz files, or out of a feature folder.

Readers are small objects that can be sent to a data loader's worker processes. Shapes: T frames, N boxes, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from mmattn.errors import InputError
from mmattn.media.npz import read_array
from mmattn.video.crash.datasets.feature_folder import ClipFeatures, FeatureFolder
from mmattn.video.crash.datasets.records import ListedClip

__all__ = ["ClipReader", "FolderReader", "NpzReader", "frames_before", "reference_frame"]


class ClipReader(Protocol):
    """Reads the features of clips of one dataset."""

    @property
    def fps(self) -> float:
        """Frames per second of the features."""

    def __call__(self, clip: ListedClip, *, with_boxes: bool = False) -> ClipFeatures:
        """Returns features (T, N + 1, F) float32 and what belongs to them.

        Raises:
            InputError: If a file is missing or damaged, an array is missing or has a wrong shape, a feature is not a
                finite number, or boxes are asked for and missing; the message names the file.
        """


@dataclass(frozen=True)
class NpzReader:
    """Reads the npz files of DAD, CCD and A3D exactly as they are distributed.

    Attributes:
        fps: Frames per second.
        num_frames: T that every clip must have.
        key: Name of the array of features.
    """

    fps: float
    num_frames: int
    key: str

    def __call__(self, clip: ListedClip, *, with_boxes: bool = False) -> ClipFeatures:
        """Returns one clip; a slot is valid when any of its features is not 0."""
        features = read_array(clip.path, self.key, (self.num_frames, None, None), row=clip.row)
        features = features.astype(np.float32, copy=False)
        check_finite(features, clip.path)
        boxes = self._boxes(clip, features.shape[1] - 1) if with_boxes else None
        times = np.arange(self.num_frames) / self.fps
        return ClipFeatures(features, np.asarray(features.any(axis=-1)), times, boxes)

    def _boxes(self, clip: ListedClip, num_boxes: int) -> npt.NDArray[np.float32]:
        if self.key == "features" and not clip.boxes_path:
            raise InputError(
                f"The clip {clip.id!r} has no boxes that can be read.",
                "A3D's boxes are pickles; convert them with: mmattn convert crash FOLDER --to boxes --output FOLDER",
            )
        path, row = (clip.boxes_path, None) if clip.boxes_path else (clip.path, clip.row)
        return read_array(path, "det", (self.num_frames, num_boxes, 6), row=row).astype(np.float32)


@dataclass(frozen=True)
class FolderReader:
    """Reads clips from a feature folder.

    Attributes:
        folder: The folder.
    """

    folder: FeatureFolder

    @property
    def fps(self) -> float:
        """Frames per second of the features."""
        return self.folder.manifest.fps

    def __call__(self, clip: ListedClip, *, with_boxes: bool = False) -> ClipFeatures:
        """Returns one clip in single precision."""
        loaded = self.folder.load(clip.id, with_boxes=with_boxes)
        # torch widens half precision three times as fast as NumPy.
        features = torch.from_numpy(loaded.features).float().numpy()
        check_finite(features, self.folder.file(clip.id))
        return loaded._replace(features=features)


def check_finite(features: npt.NDArray[np.floating], path: str | Path) -> None:
    """Checks the features of a clip.

    Args:
        features: (T, N, D).
        path: Of their file.

    Raises:
        InputError: If a feature is no finite number; the message names the file and the first such frame.
    """
    is_finite = np.isfinite(features)
    if not is_finite.all():
        frame = int(np.argmin(is_finite.all(axis=(1, 2))))
        raise InputError(f"'{path}': features of frame {frame} are not finite numbers.")


def frames_before(clip: ListedClip, times: npt.NDArray[np.float64], fps: float) -> float:
    """Returns the time of accident in frames: how many frames of the clip lie before it; T + 1 without an accident.

    For a clip trimmed before its accident the frames that are missing count too, so the number exceeds T.

    Args:
        clip: The clip.
        times: (T,) seconds of its frames.
        fps: Frames per second.

    Raises:
        InputError: If the accident lies before the first frame, or (in clips that are not trimmed and annotated in
            frames) beyond the last.
    """
    if not clip.label:
        return float(len(times) + 1)
    if clip.time_to_event is not None:
        return len(times) + clip.time_to_event * fps
    toa = _in_frames(clip.toa, clip.in_seconds, times, fps)
    beyond = not clip.in_seconds and toa > len(times)
    if toa < 1 or beyond:
        raise InputError(
            f"The accident of clip {clip.id!r} is at frame {toa:g}, expected 1 to {len(times)} ('{clip.path}').",
            "Correct the annotation; see all problems with: mmattn data check crash",
        )
    return toa


def reference_frame(clip: ListedClip, toa: float, times: npt.NDArray[np.float64], fps: float) -> float:
    """Returns the frame a clip is judged relative to: its closest moment, its accident, or its end.

    Args:
        clip: The clip.
        toa: From :func:`frames_before`.
        times: (T,) seconds of its frames.
        fps: Frames per second.
    """
    if clip.reference is not None:
        return _in_frames(clip.reference, clip.in_seconds, times, fps)
    return toa if clip.label else float(len(times))


def _in_frames(value: float | None, in_seconds: bool, times: npt.NDArray[np.float64], fps: float) -> float:
    if value is None:
        raise InputError("An accident has no time.")
    if not in_seconds:
        return value
    # Half a millisecond: times in annotations are rounded, and 3.3 * 10 is not 33.
    before = float(np.searchsorted(times, value - 5e-4))
    return before if before < len(times) else len(times) + max(0.0, value - times[-1] - 1 / fps) * fps
