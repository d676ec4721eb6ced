"""Frames of drawn clips as training items of the embedded detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.errors import InputError
from mmattn.video.crash.perception.camera import FOCAL, HEIGHT, WIDTH
from mmattn.video.crash.perception.detector import LAG, STRIDE, VALUES, detector_input
from mmattn.video.crash.perception.tracking import KIND_NAMES
from mmattn.video.crash.synthetic.drawing.render import decode
from mmattn.video.crash.synthetic.files import clip_path, read_clip, write_clips
from mmattn.video.crash.synthetic.world.camera import Seen
from mmattn.video.crash.synthetic.world.physics import FRAMES

__all__ = ["DetectorDataModule", "DetectorFrames", "targets"]

GRID = (HEIGHT // STRIDE, WIDTH // STRIDE)
_SHARE, _LEAST = 0.13, 0.45
_NEIGHBOUR = 0.55


def targets(seen: Seen, frame: int, *, motion: bool) -> dict[str, Tensor]:
    """Returns what the detector should say of a frame.

    Args:
        seen: Exact boxes and states of the clip.
        frame: The frame.
        motion: Whether there was an earlier picture to see motion by.

    Returns:
        ``heat`` (4, h, w): Gaussians around centres, 1 at the centre. ``values`` (11, h, w) and their ``weight``
        (11, h, w), not zero at centres and their close neighbours. ``speed`` and ``speed_weight``, scalars.
    """
    heat = np.zeros((len(KIND_NAMES), *GRID), np.float32)
    values = np.zeros((len(VALUES), *GRID), np.float32)
    weight = np.zeros((len(VALUES), *GRID), np.float32)
    rows = seen.at(frame)
    v, u = np.mgrid[0 : GRID[0], 0 : GRID[1]]
    order = np.argsort(-seen.place[rows, 1], kind="stable") + (rows.start or 0)
    for row in order:  # from far to near: the nearer one keeps a contested cell
        x1, y1, x2, y2 = seen.box[row] / STRIDE
        middle = (x1 + x2) / 2, (y1 + y2) / 2
        cell = min(int(middle[0]), GRID[1] - 1), min(int(middle[1]), GRID[0] - 1)
        sigma = max(_SHARE * (x2 - x1), _LEAST), max(_SHARE * (y2 - y1), _LEAST)
        blob = np.exp(-((u - cell[0]) ** 2) / (2 * sigma[0] ** 2) - (v - cell[1]) ** 2 / (2 * sigma[1] ** 2))
        kind = int(seen.kind[row])
        heat[kind] = np.maximum(heat[kind], blob)
        here = blob >= _NEIGHBOUR
        number = int(here.sum())
        values[:, here] = at_cells(seen, row, middle, u[here], v[here])
        weight[:, here] = value_weights(seen, row, kind, motion=motion)[:, None] / number
    return {
        "heat": torch.from_numpy(heat),
        "values": torch.from_numpy(values),
        "weight": torch.from_numpy(weight),
        "speed": torch.tensor(float(seen.ego_speed[frame])),
        "speed_weight": torch.tensor(float(motion)),
    }


def at_cells(
    seen: Seen, row: int, middle: tuple[float, float], u: npt.NDArray[np.int64], v: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Returns the values of a road user as seen from the cells (n,) around its centre, (11, n)."""
    x1, y1, x2, y2 = seen.box[row]
    right, forward = seen.place[row]
    far = max(float(forward), 1.0)
    shift = np.clip(2 * (right / far - (x1 + x2 - WIDTH) / 2 / FOCAL), -3, 3)
    constant = [
        np.log((x2 - x1) / STRIDE),
        np.log((y2 - y1) / STRIDE),
        np.log(far),
        shift,
        np.sin(seen.heading[row]),
        np.cos(seen.heading[row]),
        float(seen.braking[row]),
        *np.clip(seen.velocity[row] / 10, -2.5, 2.5),
    ]
    return np.stack([middle[0] - u, middle[1] - v, *(np.full(len(u), value) for value in constant)]).astype(np.float32)


def value_weights(seen: Seen, row: int, kind: int, *, motion: bool) -> npt.NDArray[np.float32]:
    """Returns how much each value counts, (11,): lamps only where they can be seen, velocity only with motion."""
    behind = KIND_NAMES[kind] != "pedestrian" and np.cos(seen.heading[row]) > 0.3
    size = 1.0 if seen.visible[row] > 0.3 else 0.5
    weights = [0.5, 0.5, 1.0, 1.0, 1.5, 1.0, 0.5, 0.5, 0.6 * behind, 0.7 * motion, 0.7 * motion]
    return np.array(weights, np.float32) * size


def mirrored_frame(picture: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the input (4, H, W) and its targets as seen in a mirror."""
    sign = torch.ones(len(VALUES))
    sign[[VALUES.index(name) for name in ("shift", "sin", "vx")]] = -1.0
    values = target["values"].flip(-1) * sign[:, None, None]
    # A centre at 0.3 of a cell is at 0.7 of the mirrored one.
    values[0] = torch.where(target["weight"].flip(-1)[0] > 0, 1.0 - values[0], values[0])
    turned = {"heat": target["heat"].flip(-1), "values": values, "weight": target["weight"].flip(-1)}
    return picture.flip(-1), target | turned


class DetectorFrames(Dataset[dict[str, Tensor]]):
    """Frames ``{picture (4, H, W), heat, values, weight, speed, speed_weight}`` of drawn clips.

    Args:
        folder: Where the clips are.
        split: Split of the clips.
        numbers: Which clips.
        per_clip: Frames of each clip, spread over it.
        augment: Mirror and change the brightness of half of them, by the item's number.
    """

    def __init__(self, folder: Path, split: str, numbers: range, per_clip: int, *, augment: bool) -> None:
        self.folder, self.split, self.numbers = folder, split, numbers
        self.per_clip, self.augment = per_clip, augment

    def __len__(self) -> int:
        return len(self.numbers) * self.per_clip

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place, turn = divmod(index, self.per_clip)
        clip = read_clip(clip_path(self.folder, self.split, self.numbers[place]))
        rng = np.random.default_rng([self.numbers[place], turn, 3])
        frame = min(int((turn + rng.random()) * FRAMES / self.per_clip), FRAMES - 1)
        before = max(frame - LAG, 0)
        pictures = torch.from_numpy(decode([clip.pictures[frame], clip.pictures[before]]))
        picture = detector_input(pictures[:1], pictures[1:])[0]
        target = targets(clip.seen, frame, motion=before == frame - LAG)
        if self.augment and rng.random() < 0.5:
            picture, target = mirrored_frame(picture, target)
        if self.augment:
            picture = (picture + 0.5) * rng.uniform(0.8, 1.2) - 0.5 + rng.uniform(-0.04, 0.04)
        return {"picture": picture.float(), **target}


class DetectorDataModule(BaseDataModule):
    """Frames of drawn clips.

    Args:
        clips: Training clips of the split "detector".
        val_clips: Validation clips of the split "val".
        per_clip: Training frames of each clip.
        val_per_clip: Validation frames of each clip.
        folder: Where the clips are kept, about 0.3 MB each; drawn there when missing.
        batch_size: Frames per training batch.
        num_workers: Loading processes.
        seed: Seed of the training order.

    Raises:
        InputError: If there are no clips or no frames.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {"val": "Set data.init_args.val_clips above 0."}

    def __init__(
        self,
        clips: int = 700,
        val_clips: int = 40,
        per_clip: int = 25,
        val_per_clip: int = 10,
        folder: str = "runs/crash_clips",
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        if clips < 1 or not 1 <= per_clip <= FRAMES or not 1 <= val_per_clip <= FRAMES:
            raise InputError(
                f"clips {clips}, per_clip {per_clip}, val_per_clip {val_per_clip}: at least one clip and 1 to "
                f"{FRAMES} frames of each are needed."
            )
        self.clips, self.val_clips = clips, val_clips
        self.per_clip, self.val_per_clip = per_clip, val_per_clip
        self.folder = Path(folder)

    def prepare_data(self) -> None:
        """Draws the clips that are missing."""
        write_clips(self.folder, "detector", range(self.clips))
        write_clips(self.folder, "val", range(self.val_clips))

    def train_dataset(self) -> DetectorFrames:
        """Returns the training frames."""
        return DetectorFrames(self.folder, "detector", range(self.clips), self.per_clip, augment=True)

    def val_dataset(self) -> DetectorFrames | None:
        """Returns the validation frames, or None."""
        if not self.val_clips:
            return None
        return DetectorFrames(self.folder, "val", range(self.val_clips), self.val_per_clip, augment=False)
