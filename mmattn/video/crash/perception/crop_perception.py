"""Perception by crops: a detector finds road users, a backbone describes the frame and every box as pictures.

This is how the published features were made (DAD apart): at most N boxes of a frame, each cut out and described by an
image network. The crops of several frames pass through the backbone in one call.

Shapes: n boxes of a frame, N box slots, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.video.crash.perception.box_sampling import select_boxes, select_boxes_upstream
from mmattn.video.crash.perception.crops import Crops, Fit
from mmattn.video.crash.perception.protocol import FramePerception, check_frames
from mmattn.video.crash.perception.road_detectors import FrameBoxes, RoadDetector, kind_name
from mmattn.video.crash.perception.tracking import KIND_NAMES

__all__ = ["Backbone", "CropOptions", "CropPerception", "CropSession"]

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """Settings of a perception by crops: ``perception_options`` of a model that uses one.

    Attributes:
        detector: "none", or the name of a detector of torchvision.
        detector_weights: Torchvision's name of its weights, or the path of a file.
        detector_size: Shorter side of the picture inside the detector, pixels; None is the detector's own.
        score_threshold: Smallest score of a box.
        backbone: Name of the network that describes crops; empty is the perception's own choice.
        backbone_weights: Name of its weights, or the path of a file; empty is the library's first choice.
        frame_resize: How the frame is fitted into the backbone's square, see :class:`Crops`; None is the perception's
            own choice, as for ``box_resize``.
        box_resize: How boxes are.
        selection: "best" keeps the boxes of the best scores; "upstream" those that the published demo keeps.
        fill: "repeat" fills the slots up with the best boxes again, as the published features; "empty" leaves them.
        seed: Of the draws of "upstream".
        batch_frames: Frames whose crops pass through the backbone together. With VGG-16 each takes about 0.5 GB.
    """

    detector: str = "fasterrcnn_resnet50_fpn_v2"
    detector_weights: str = "COCO_V1"
    detector_size: int | None = None
    score_threshold: float = 0.3
    backbone: str = ""
    backbone_weights: str = ""
    frame_resize: Fit | None = None
    box_resize: Fit | None = None
    selection: Literal["best", "upstream"] = "best"
    fill: Literal["repeat", "empty"] = "repeat"
    seed: int = 123
    batch_frames: int = 2

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Self:
        """Builds it from plain JSON values.

        Raises:
            InputError: If a name is unknown or a value out of range.
        """
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise InputError(f"perception_options has no {', '.join(unknown)}.", f"Choose among: {', '.join(names)}.")
        made = cls(**options)
        choices = {
            "frame_resize": (None, *get_args(Fit)), "box_resize": (None, *get_args(Fit)),
            "selection": ("best", "upstream"), "fill": ("repeat", "empty"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(made, name) not in allowed:
                words = ", ".join(str(choice) for choice in allowed)
                raise InputError(f"{name} is {getattr(made, name)!r}, expected one of {words}.")
        if made.batch_frames < 1 or not 0.0 <= made.score_threshold <= 1.0:
            raise InputError("batch_frames must be at least 1 and score_threshold in [0, 1].")
        if made.selection == "upstream" and made.fill == "empty":
            raise InputError('selection "upstream" always fills up.', 'Use fill "repeat".')
        return made


class Backbone(NamedTuple):
    """A network and how pictures are made for it.

    Attributes:
        network: Maps crops (n, 3, S, S) to features (n, F).
        crops: How crops are made.
        feature_dim: F.
    """

    network: nn.Module
    crops: Crops
    feature_dim: int


class CropPerception:
    """Boxes of a detector and features of a backbone.

    Args:
        detector: Finds road users.
        backbone: Maps crops (n, 3, S, S) to features (n, F); it is called once for a batch of frames.
        crops: How crops are made for it.
        feature_dim: F.
        num_boxes: Box slots N.
        fps: Frames per second that the risk model was trained at.
        device: Where the backbone runs.
        options: How boxes are selected; the names of detector and backbone are for people.
    """

    def __init__(
        self,
        detector: RoadDetector,
        backbone: nn.Module,
        crops: Crops,
        *,
        feature_dim: int,
        num_boxes: int = 19,
        fps: float = 10.0,
        device: torch.device | None = None,
        options: CropOptions | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.detector = detector
        self.backbone = backbone.to(self.device).to(memory_format=torch.channels_last).eval()
        self.crops = crops
        self.feature_dim = feature_dim
        self.num_boxes = num_boxes
        self.fps = fps
        self.options = options or CropOptions()

    def with_detector(self, detector: RoadDetector) -> CropPerception:
        """Returns the same perception with other boxes, such as a :class:`FileDetector`'s; the backbone is shared."""
        changed = copy(self)
        changed.detector = detector
        return changed

    def settings(self) -> dict[str, Any]:
        """Returns everything that shapes the features, as plain JSON types."""
        crops = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.crops).items()}
        shaping = {name: value for name, value in asdict(self.options).items() if name != "batch_frames"}
        return {**shaping, "crops": crops, "num_boxes": self.num_boxes, "fps": self.fps}

    def open(self) -> CropSession:
        """Returns a session for a new video."""
        return CropSession(self)

    @torch.inference_mode()
    def describe(self, frames: Sequence[Picture], boxes: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Returns the features of frames and boxes, float32 (sum of n_i + 1, F): each frame, then its boxes.

        Args:
            frames: uint8 RGB (H, W, 3).
            boxes: For each frame (n_i, 4) x1, y1, x2, y2, whole pixels inside it.
        """
        features: Tensor = self.backbone(self.crops(frames, boxes).to(self.device))
        return features.float().cpu().numpy()


class CropSession:
    """One video being watched."""

    def __init__(self, perception: CropPerception) -> None:
        self.perception = perception
        self._last = -np.inf
        self._rng = np.random.RandomState(perception.options.seed)

    def push(self, frames: Sequence[Picture], times: Sequence[float]) -> list[FramePerception]:
        """Takes the next frames and returns what is perceived in each; see :class:`PerceptionSession`.

        Raises:
            InputError: If a frame is no picture or a time does not go on; nothing has changed then.
        """
        check_frames(frames, times, self._last)
        step = self.perception.options.batch_frames
        seen: list[FramePerception] = []
        for start in range(0, len(frames), step):
            seen += self._perceive(frames[start : start + step], times[start : start + step])
        if len(times):
            self._last = float(times[-1])
        return seen

    def _perceive(self, frames: Sequence[Picture], times: Sequence[float]) -> list[FramePerception]:
        found = self.perception.detector(frames, times)
        selected = [self._select(one, frame.shape[:2]) for one, frame in zip(found, frames, strict=True)]
        # A box that fills several slots is described once.
        distinct, slots = zip(*(_distinct(rows) for rows in selected), strict=True)
        features = np.split(
            self.perception.describe(frames, distinct), np.cumsum([len(rows) + 1 for rows in distinct])[:-1]
        )
        return [self._frame(rows, own[0], own[1:][at]) for rows, own, at in zip(selected, features, slots, strict=True)]

    def _select(self, found: FrameBoxes, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Returns (n, 6) x1, y1, x2, y2, score, kind of the boxes that get a slot."""
        image_size, num_boxes = (size[0], size[1]), self.perception.num_boxes
        if self.perception.options.selection == "upstream":
            table = np.column_stack([found.boxes, found.scores])
            per_class = [table[found.kinds == kind] for kind in (*range(len(KIND_NAMES)), -1)]
            drawn = select_boxes_upstream(per_class, image_size, self._rng, num_boxes=num_boxes)
            return drawn.astype(np.float32)
        chosen = select_boxes(found.boxes, found.scores, found.kinds, image_size, num_boxes=num_boxes)
        if self.perception.options.fill == "empty":
            return chosen.boxes[: chosen.distinct]
        if chosen.distinct == 0:
            chosen.boxes[:, 5] = -1  # the whole frame is no road user
        return chosen.boxes

    def _frame(
        self, rows: npt.NDArray[np.float32], frame: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]
    ) -> FramePerception:
        slots = self.perception.num_boxes + 1
        features = np.zeros((slots, self.perception.feature_dim), np.float32)
        features[0] = frame
        features[1 : len(boxes) + 1] = boxes
        return FramePerception(
            rows[:, :4].copy(),
            rows[:, 4].copy(),
            tuple(kind_name(int(kind)) for kind in rows[:, 5]),
            features,
            np.arange(slots) <= len(rows),
        )


def _distinct(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the boxes that differ, (m, 4), and which of them each row is, (n,)."""
    if len(rows) == 0:
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    corners = rows[:, :4].astype(np.int64)
    # What stands in for the boxes of a frame of one pixel has no area.
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    boxes, at = np.unique(corners, axis=0, return_inverse=True)
    return boxes, at.reshape(-1)
