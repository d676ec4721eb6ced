"""Annotated clips as tensors of one length.

Shapes: T frames, N boxes, F features. Slot 0 of a frame is the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, default_collate

from mmattn.errors import InputError
from mmattn.video.crash.datasets.augmentation import MissingData, clip_generator
from mmattn.video.crash.datasets.clip_reading import ClipReader, frames_before, reference_frame
from mmattn.video.crash.datasets.feature_folder import ClipFeatures
from mmattn.video.crash.datasets.records import ListedClip

__all__ = ["CrashDataset", "collate_clips", "window_start"]

_AFTER = 0.1


class CrashDataset(Dataset[dict[str, Any]]):
    """Annotated clips as tensors.

    An item holds ``features`` (T, N + 1, F) float32, ``valid`` (T, N + 1) bool (True where a slot holds something),
    ``label`` (1 = accident), ``toa`` (frames before the accident, a float; T + 1 without one, above T in a clip trimmed
    before it), ``reference`` (frame the clip is judged relative to: closest moment, accident, or its end), ``id``,
    ``path``, ``dataset``, ``fps`` and, if asked for, ``boxes`` (T, N, 6) float32 x1, y1, x2, y2, score, class.

    Args:
        clips: What to read.
        reader: Reads the features of one clip.
        num_frames: T of every item; None leaves clips as long as they are. Shorter clips repeat their last frame (as
            UString's demo does); longer ones are cut to a window, see :func:`window_start`.
        missing: Data that goes missing.
        with_boxes: Whether items have ``boxes``.
        seed: Seed of the windows of clips in which nothing happens.

    Raises:
        InputError: If ``num_frames`` is below 1.
    """

    def __init__(
        self,
        clips: Sequence[ListedClip],
        reader: ClipReader,
        *,
        num_frames: int | None = None,
        missing: MissingData | None = None,
        with_boxes: bool = False,
        seed: int = 0,
    ) -> None:
        if num_frames is not None and num_frames < 1:
            raise InputError(f"num_frames is {num_frames}, expected at least 1.")
        self.clips = list(clips)
        self.reader = reader
        self.num_frames = num_frames
        self.missing = missing or MissingData()
        self.with_boxes = with_boxes
        self.seed = seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one item.

        Raises:
            InputError: If the clip cannot be read or its annotation does not fit it; the message names the file.
        """
        clip = self.clips[index]
        loaded = self.reader(clip, with_boxes=self.with_boxes)
        toa = frames_before(clip, loaded.times, self.reader.fps)
        reference = reference_frame(clip, toa, loaded.times, self.reader.fps)
        if self.num_frames is not None:
            start = window_start(clip, len(loaded.times), self.num_frames, reference, self.seed)
            loaded = _window(loaded, start, self.num_frames)
            toa = toa - start if clip.label else float(self.num_frames + 1)
            reference -= start
        features, valid = self._with_missing(clip, loaded)
        item = {
            "features": torch.from_numpy(features), "valid": torch.from_numpy(valid), "label": clip.label, "toa": toa,
            "reference": reference, "id": clip.id, "path": clip.path, "dataset": clip.dataset, "fps": self.reader.fps,
        }  # fmt: skip
        if loaded.boxes is not None:
            item["boxes"] = torch.from_numpy(np.ascontiguousarray(loaded.boxes))
        return item

    def _with_missing(
        self, clip: ListedClip, loaded: ClipFeatures
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        features = np.ascontiguousarray(loaded.features, np.float32)
        if self.missing.rate == 0:
            return features, np.ascontiguousarray(loaded.valid)
        frames, slots = loaded.valid.shape
        gone = self.missing.mask(clip.id, frames, slots - 1)
        return np.where(gone[..., None], np.float32(0), features), loaded.valid & ~gone


def collate_clips(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Makes one batch; labels become (B,) int64, the other numbers (B,) float32.

    Raises:
        InputError: If clips of a batch differ in length.
    """
    lengths = sorted({len(item["features"]) for item in items})
    if len(lengths) > 1:
        raise InputError(
            f"Clips of {lengths[0]} to {lengths[-1]} frames cannot be one batch.",
            "Set data.init_args.num_frames to one length for all.",
        )
    batch: dict[str, Any] = default_collate(items)
    for name in ("toa", "reference", "fps"):
        batch[name] = batch[name].to(torch.float32)
    return batch


def window_start(clip: ListedClip, length: int, num_frames: int, reference: float, seed: int) -> int:
    """Returns the first frame of the ``num_frames`` that are kept of a clip of ``length`` frames.

    A clip with an accident or a known closest moment keeps a tenth of the window after it, as DAD's clips do (accident
    in frame 90 of 100). In a clip in which nothing happens the place is drawn from the seed and the clip's id.

    Args:
        clip: The clip.
        length: Its frames.
        num_frames: Frames to keep.
        reference: From :func:`reference_frame`.
        seed: Seed of the draw.

    Returns:
        0 when the clip is not longer than the window.
    """
    last = max(length - num_frames, 0)
    if not clip.label and clip.reference is None:
        return int(clip_generator(clip.id, seed).integers(last + 1))
    end = math.ceil(reference) + int(_AFTER * num_frames)
    return min(max(end - num_frames, 0), last)


def _window(clip: ClipFeatures, start: int, num_frames: int) -> ClipFeatures:
    """Returns ``num_frames`` frames from ``start`` on, the last frame repeated where the clip is too short."""
    frames = np.minimum(np.arange(start, start + num_frames), len(clip.times) - 1)
    boxes = None if clip.boxes is None else clip.boxes[frames]
    return ClipFeatures(clip.features[frames], clip.valid[frames], clip.times[frames], boxes)
