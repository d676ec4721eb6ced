"""Missing data and less data: the robustness study of CRASH, as options of its data.

The paper (arXiv 2407.17757) reports results with 10 to 50 % of the data missing and with 50 and 75 % of the training
clips. Its code does not contain the masking, so **how** data goes missing is our reading of it:

* ``box``: each box of each frame is missing with probability p, on its own;
* ``frame``: each frame is missing, its whole picture and all its boxes, with probability p, on its own;
* ``segment``: one run of frames is missing, p of the clip's length, at a random place.

What is missing is 0 and not valid. The draw depends on the seed and the clip's id alone: the same every epoch, in
every process, and for every model that is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.video.crash.datasets.records import ListedClip

__all__ = ["MissingData", "MissingMode", "clip_generator", "split_clips", "take_fraction"]

MissingMode = Literal["box", "frame", "segment"]


@dataclass(frozen=True)
class MissingData:
    """Which part of every clip is missing.

    Attributes:
        mode: "box", "frame" or "segment".
        rate: p, in [0, 1]; 0 leaves clips as they are.
        seed: Seed of the draws.

    Raises:
        InputError: If the mode is unknown or the rate out of range.
    """

    mode: MissingMode = "box"
    rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.mode not in get_args(MissingMode) or not 0.0 <= self.rate <= 1.0:
            raise InputError(
                f"missing_mode is {self.mode!r} and missing_rate {self.rate}, expected one of "
                f"{', '.join(get_args(MissingMode))} and a rate in [0, 1]."
            )

    def mask(self, clip_id: str, num_frames: int, num_boxes: int) -> npt.NDArray[np.bool_]:
        """Returns (T, N + 1), True where a slot of a frame is missing; slot 0 is the frame.

        Args:
            clip_id: The clip.
            num_frames: T.
            num_boxes: N.
        """
        rng = clip_generator(clip_id, self.seed)
        missing = np.zeros((num_frames, num_boxes + 1), bool)
        if self.mode == "box":
            missing[:, 1:] = rng.random((num_frames, num_boxes)) < self.rate
        elif self.mode == "frame":
            missing[rng.random(num_frames) < self.rate] = True
        else:
            length = round(self.rate * num_frames)
            start = int(rng.integers(num_frames - length + 1))
            missing[start : start + length] = True
        return missing


def clip_generator(clip_id: str, seed: int) -> np.random.Generator:
    """Returns a generator that depends on the clip and the seed alone."""
    digest = hashlib.sha256(f"{seed}\0{clip_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def take_fraction(clips: Sequence[ListedClip], fraction: float, seed: int) -> list[ListedClip]:
    """Returns a share of the clips with the same share of each label, in their order.

    Args:
        clips: All clips.
        fraction: Share in (0, 1]; of each label at least one clip is kept.
        seed: Seed of the draw. A larger fraction of the same seed contains a smaller one.

    Raises:
        InputError: If the fraction is out of range.
    """
    if not 0.0 < fraction <= 1.0:
        raise InputError(f"The fraction of the clips is {fraction}, expected a number in (0, 1].")
    return split_clips(clips, 1.0 - fraction, seed)[0]


def split_clips(clips: Sequence[ListedClip], share: float, seed: int) -> tuple[list[ListedClip], list[ListedClip]]:
    """Returns ``(rest, part)``: a part with this share of each label, and what is left, both in their order.

    Args:
        clips: All clips.
        share: Share of the part, in [0, 1). Of each label it is rounded to whole clips, at least one unless the share
            is 0, and never all of them.
        seed: Seed of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(clips)).tolist()
    part: set[int] = set()
    for label in sorted({clip.label for clip in clips}):
        members = [index for index in order if clips[index].label == label]
        count = max(round(share * len(members)), 1) if share > 0 else 0
        part.update(members[: min(count, len(members) - 1)])
    rest = [clip for index, clip in enumerate(clips) if index not in part]
    return rest, [clip for index, clip in enumerate(clips) if index in part]
