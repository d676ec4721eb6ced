"""The perception of the embedded model: its detector, tracks of road users, and features of their movement.

Works on pictures of any size: they are fitted into 320 x 180 with grey bars where the shape differs. Distances assume a
horizontal view of about 84 degrees; a narrower camera makes everything seem nearer by the same factor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattn.core.weights.loading import load_into
from mmattn.video.crash.perception.camera import HEIGHT, HORIZON_ROW, WIDTH
from mmattn.video.crash.perception.detector import CrashDetector, decode_boxes, detector_input
from mmattn.video.crash.perception.features import FEATURES, View, describe
from mmattn.video.crash.perception.protocol import FramePerception, check_frames
from mmattn.video.crash.perception.tracking import KIND_NAMES, Detections, Tracker
from mmattn.video.crash.weights.store import load_detector

__all__ = ["EgoSpeed", "EmbeddedPerception", "EmbeddedSession", "FrameWriter", "letterbox"]

Picture = npt.NDArray[np.uint8]

VIEW = View(WIDTH, HEIGHT, HORIZON_ROW)
_BEFORE = 0.2
_REMEMBERED = 0.45
_GREY = 110
# Seconds of guesses that the change of speed is fitted to, that speed is the mean of; what draws the change to zero.
_SPEEDS_REMEMBERED, _SPEEDS_AVERAGED, _STIFFNESS = 0.75, 0.25, 0.05


class EmbeddedPerception:
    """Boxes, tracks and features from the embedded detector.

    Args:
        detector: The trained network.
        num_boxes: Box slots N.
        threshold: Smallest score of a detection.
        fps: Frames per second of the videos it was trained on.
    """

    def __init__(
        self, detector: CrashDetector, *, num_boxes: int = 12, threshold: float = 0.3, fps: float = 10.0
    ) -> None:
        self.detector = detector.eval().to(memory_format=torch.channels_last)
        self.threshold = threshold
        self.fps = fps
        self.feature_dim = FEATURES
        self.num_boxes = num_boxes

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Self:
        """Builds it from the detector's tensors.

        Args:
            tensors: State dict of the detector, in any floating type.
            options: ``widths`` and ``neck`` of the detector; ``num_boxes``, ``threshold``, ``fps`` where they differ
                from the defaults.

        Raises:
            CheckpointError: If the tensors do not fit the network.
        """
        rest = dict(options)
        detector = CrashDetector(rest.pop("widths"), rest.pop("neck"))
        load_into(detector, tensors)
        return cls(detector, **rest)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Builds it from the folder ``detector`` that the detector's training wrote, or from "embedded".

        Raises:
            CheckpointError: If it is none.
        """
        return cls.from_tensors(*load_detector(folder))

    def open(self) -> EmbeddedSession:
        """Returns a session for a new video."""
        return EmbeddedSession(self)

    @torch.inference_mode()
    def detect(self, picture: Picture, before: Picture) -> tuple[Detections, float]:
        """Returns what is detected in a picture, and the speed of the camera in m/s.

        Args:
            picture: uint8 RGB (HEIGHT, WIDTH, 3).
            before: The picture 0.2 s earlier, or the same one at the start.
        """
        both = (torch.from_numpy(np.ascontiguousarray(p))[None] for p in (picture, before))
        output = self.detector(detector_input(*both).contiguous(memory_format=torch.channels_last))
        return decode_boxes(output, self.threshold)[0], float(output.speed[0])


class EmbeddedSession:
    """One video being watched; frames are taken one at a time, so that pushing in pieces changes nothing."""

    def __init__(self, perception: EmbeddedPerception) -> None:
        self.perception = perception
        self._past: deque[tuple[float, Picture]] = deque()
        self._writer = FrameWriter(perception.num_boxes)

    def push(self, frames: Sequence[Picture], times: Sequence[float]) -> list[FramePerception]:
        """Takes the next frames and returns what is perceived in each; see :class:`PerceptionSession`.

        Raises:
            InputError: If a frame is no picture or a time does not go on; nothing has changed then.
        """
        check_frames(frames, times, self._past[-1][0] if self._past else -np.inf)
        return [self._next(frame, float(time)) for frame, time in zip(frames, times, strict=True)]

    def _next(self, frame: Picture, time: float) -> FramePerception:
        picture, scale, offset = letterbox(frame)
        while self._past and time - self._past[0][0] > _REMEMBERED:
            self._past.popleft()
        self._past.append((time, picture))
        before = min(self._past, key=lambda past: abs(time - _BEFORE - past[0]))[1]
        detections, speed = self.perception.detect(picture, before)
        seen = self._writer.write(time, detections, speed)
        boxes = (seen.boxes - np.tile(offset, 2)) / scale
        height, width = frame.shape[:2]
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        return FramePerception(boxes, seen.scores, seen.classes, seen.features, seen.valid)


class FrameWriter:
    """Follows detections and writes the slots of each frame; shared with the simulated perception of training.

    Args:
        num_boxes: Box slots N.
        velocity_noise: See :class:`Tracker`; None takes its default.
    """

    def __init__(self, num_boxes: int, velocity_noise: tuple[float, float] | None = None) -> None:
        self.num_boxes = num_boxes
        self._tracker = Tracker(velocity_noise) if velocity_noise is not None else Tracker()
        self._speed = EgoSpeed()

    def write(self, time: float, detections: Detections, speed: float) -> FramePerception:
        """Takes the detections and the camera's speed of the next frame; boxes stay in the detector's pixels."""
        tracks = self._tracker.update(time, detections)
        rows, order = describe(tracks, *self._speed.update(time, speed), VIEW, self.num_boxes)
        features = np.zeros((self.num_boxes + 1, FEATURES), np.float32)
        features[: len(rows)] = rows
        kinds = tracks.kind[order].argmax(1) if len(order) else ()
        return FramePerception(
            tracks.box[order].astype(np.float32),
            tracks.score[order].astype(np.float32),
            tuple(KIND_NAMES[kind] for kind in kinds),
            features,
            np.arange(self.num_boxes + 1) < len(rows),
        )


class EgoSpeed:
    """The speed of the camera over the last second: a mean of the detector's guesses, a line for its change.

    >>> speed = EgoSpeed()
    >>> [tuple(round(v, 2) for v in speed.update(t / 10, 10.0 - t)) for t in range(3)]
    [(10.0, 0.0), (9.5, -0.91), (9.0, -2.86)]
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def update(self, time: float, speed: float) -> tuple[float, float]:
        """Takes the next guess and returns the smoothed speed (m/s) and its change (m/s2).

        The slope is that of least squares, drawn towards zero while there is little to fit it to.
        """
        self._seen.append((time, speed))
        while time - self._seen[0][0] > _SPEEDS_REMEMBERED:
            self._seen.popleft()
        times, speeds = np.array(self._seen).T
        lever = times - times.mean()
        slope = float((lever * speeds).sum() / ((lever**2).sum() + _STIFFNESS))
        return float(speeds[time - times < _SPEEDS_AVERAGED].mean()), slope


def letterbox(frame: Picture) -> tuple[Picture, float, npt.NDArray[np.float64]]:
    """Fits a frame into WIDTH x HEIGHT without distorting it.

    Returns:
        The picture, the factor from the frame's pixels to the picture's, and where its corner lies, (2,).
    """
    height, width = frame.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = frame if size == (width, height) else np.asarray(cv2.resize(frame, size, interpolation=way), np.uint8)
    if size == (WIDTH, HEIGHT):
        return fitted, scale, np.zeros(2)
    left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    picture = np.full((HEIGHT, WIDTH, 3), _GREY, np.uint8)
    picture[top : top + size[1], left : left + size[0]] = fitted
    return picture, scale, np.array([left, top], float)
