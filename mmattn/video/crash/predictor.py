"""The one door to a CRASH model: from a video to a :class:`CrashResult`, from a stream to risks as they come.

``CrashPredictor.from_pretrained("embedded").predict("drive.mp4")`` gives risk, alerts and attended road users. Scripts,
apps and tests use it. Memory does not grow with the resolution of a video, and with its length only by the result.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from mmattn.core.config_fields import chosen
from mmattn.core.device import resolve_device
from mmattn.errors import InputError, MediaError
from mmattn.media.npz import read_array
from mmattn.media.video import VideoReader, open_video
from mmattn.video.crash.config import CrashInferOptions
from mmattn.video.crash.model import RiskModel
from mmattn.video.crash.perception.build import build_perception
from mmattn.video.crash.perception.protocol import Perception
from mmattn.video.crash.results import CrashResult
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.video.crash.stream.frame_risk import FrameRisk, Step
from mmattn.video.crash.stream.session import CrashSession
from mmattn.video.crash.weights.store import StoredCrash

__all__ = ["FEATURE_SUFFIXES", "Clip", "CrashPredictor", "Item"]

Picture: TypeAlias = npt.NDArray[np.uint8]

FEATURE_SUFFIXES = frozenset({".npz"})
"""Files of ready-made features, as DAD, CCD and A3D are distributed."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Clip:
    """Frames that are in memory already.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, or a sequence of (H, W, 3); None for a lost one.
        fps: Their rate; None is the model's.
        times: Seconds of each, instead of a rate.
    """

    frames: npt.NDArray[np.uint8] | Sequence[Any]
    fps: float | None = None
    times: npt.ArrayLike | None = None


Item: TypeAlias = str | Path | npt.NDArray[np.uint8] | Clip


class CrashPredictor:
    """A loaded risk model with its perception.

    Args:
        model: The risk model, in evaluation mode.
        perception: Makes its features; None when only ready-made features can be scored.
        device: Where the risk model runs.
        options: Choices of this run.
        name: What the apps call this model.
    """

    def __init__(
        self,
        model: RiskModel,
        perception: Perception | None,
        *,
        device: torch.device,
        options: CrashInferOptions | None = None,
        name: str = "crash",
    ) -> None:
        self.model = model.to(device).eval()
        if device.type == "cpu":
            self.model.pack_weights()
        self.perception = perception
        self.device = device
        self.options = options or CrashInferOptions()
        self.name = name
        self.rule = AlertRule(self.options.alert_threshold, self.options.persistence, self.options.cooldown)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "embedded",
        *,
        device: str = "auto",
        options: CrashInferOptions | None = None,
        features_only: bool = False,
        **overrides: Any,
    ) -> CrashPredictor:
        """Loads a checkpoint.

        Args:
            source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.
            device: "auto", "cpu", "cuda", ...
            options: Choices of this run.
            features_only: Load no perception, and none of the weights it may need: only ready-made features are scored.
            **overrides: Fields of :class:`CrashConfig` that change scoring, such as ``mc_samples``.

        Raises:
            CheckpointError: If the checkpoint is of another system or its tensors do not fit.
            WeightsUnavailableError: If weights are neither on disk nor reachable.
            InputError: If an option is out of range.
        """
        options = options or CrashInferOptions()
        # Before anything heavy is read.
        AlertRule(options.alert_threshold, options.persistence, options.cooldown)
        stored = StoredCrash.load(source)
        where = resolve_device(device)
        perception = None if features_only else build_perception(stored, where, boxes=options.boxes)
        name = "embedded" if str(source) == "embedded" else Path(str(source)).name
        model = stored.build(chosen(stored.config, overrides))
        return cls(model, perception, device=where, options=options, name=name)

    def predict(self, item: Item, *, each: Callable[[], None] | None = None) -> CrashResult:
        """Returns the result of one video.

        Args:
            item: Path of a video or of an ``.npz`` of features, frames (T, H, W, 3) uint8 RGB at the
                model's rate, or a :class:`Clip`.
            each: Called before every few steps of a video; what it raises ends the work.

        Raises:
            InputError: If nothing in it can be scored.
            MediaError: If a file is no video, or no frame of it can be decoded.
        """
        if isinstance(item, Clip):
            return self._predict_frames(item)
        if isinstance(item, np.ndarray):
            if item.ndim != 4:
                raise InputError(f"The frames are an array {item.shape}, expected (T, H, W, 3) of uint8 RGB.")
            return self._predict_frames(Clip(item))
        path = Path(item)
        return self._predict_npz(path) if path.suffix.lower() in FEATURE_SUFFIXES else self._predict_video(path, each)

    def predict_batch(self, items: Sequence[Item]) -> list[CrashResult]:
        """Returns one result per item, in order. Each is scored on its own."""
        return [self.predict(item) for item in items]

    def predict_features(
        self, features: npt.ArrayLike, valid: npt.ArrayLike | None = None, times: npt.ArrayLike | None = None
    ) -> CrashResult:
        """Returns the result of features (T, N + 1, F) at the model's rate; it has no pictures.

        Args:
            features: Slot 0 is the frame.
            valid: (T, N + 1) bool, slots that hold something; None as the model decides.
            times: (T,) seconds; None counts from 0.

        Raises:
            InputError: If shapes do not fit the model, or no step has finite features.
        """
        session = self.open_session()
        return self._result(session, session.feed_features(features, valid, times), "These features")

    def open_session(self, fps: float | None = None) -> CrashSession:
        """Returns a session for a stream, see :class:`.stream.session.CrashSession`.

        Args:
            fps: Frames per second of frames that come without times; None is the model's rate.

        Raises:
            InputError: If ``fps`` is not positive.
        """
        return CrashSession(self.model, self.perception, device=self.device, rule=self.rule, fps=fps)

    def load_session(self, path: str | Path) -> CrashSession:
        """Returns a session that goes on where :meth:`.stream.session.CrashSession.save` was called.

        Raises:
            InputError: If the file is no session of this model.
        """
        session = self.open_session()
        session.restore(path)
        return session

    def _predict_frames(self, clip: Clip) -> CrashResult:
        session = self.open_session(clip.fps)
        steps: list[FrameRisk] = []
        count = len(clip.frames)
        times = session.gate.times(count, clip.times)
        for start in range(0, count, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            steps += session.feed(list(clip.frames[part]), times[part])
        return self._result(session, steps, "This clip", video=clip.frames)

    def _predict_npz(self, path: Path) -> CrashResult:
        """Scores features as DAD and CCD (``data``) or A3D (``features``) distribute them."""
        names = _names_in(path)
        name = "features" if "features" in names and "data" not in names else "data"
        slots, width = self.model.config.num_boxes + 1, self.model.config.feature_dim
        features = read_array(path, name, (None, slots, width))
        session = self.open_session()
        return self._result(session, session.feed_features(features), f"'{path}'")

    def _predict_video(self, path: Path, each: Callable[[], None] | None) -> CrashResult:
        if self.perception is None:
            raise InputError(
                f"'{path}' is a video, and this model reads features (npz) that cannot be made from one.",
                "Pass --checkpoint of a model with a perception, such as embedded.",
            )
        with open_video(path, cut_short=True) as reader:
            session = self._session_for(path, reader)
            steps: list[FrameRisk] = []
            waiting: list[Step] = []
            for time in reader.timestamps.tolist():
                source = session.gate.admit_time(time)
                waiting += [] if source is None else session.due(source, time)
                if sum(step.is_new for step in waiting) >= _AT_ONCE:
                    if each is not None:
                        each()
                    steps += session.run(waiting, lambda wanted: _read(reader, wanted))
                    waiting = []
            steps += session.run(waiting, lambda wanted: _read(reader, wanted))
            size, missing = reader.size, reader.missing
        return self._result(session, steps, f"'{path}'", video=path, size=size, missing=missing)

    def _session_for(self, path: Path, reader: VideoReader) -> CrashSession:
        """Returns a session whose road users come from a file, where the run asks for that."""
        if self.options.boxes is None:
            return self.open_session(reader.fps)
        from mmattn.video.crash.perception.box_file import find_box_file, read_box_file
        from mmattn.video.crash.perception.box_table import FileDetector
        from mmattn.video.crash.perception.crop_perception import CropPerception

        if not isinstance(self.perception, CropPerception):
            raise InputError("Boxes from a file fit perceptions by crops only.", "Leave --boxes out.")
        table = read_box_file(find_box_file(self.options.boxes, path), reader.timestamps)
        perception = self.perception.with_detector(FileDetector(table))
        return CrashSession(self.model, perception, device=self.device, rule=self.rule, fps=reader.fps)

    def _result(
        self,
        session: CrashSession,
        steps: Sequence[FrameRisk],
        what: str,
        *,
        video: Any = None,
        size: tuple[int, int] | None = None,
        missing: int = 0,
    ) -> CrashResult:
        problems = tuple(f"frame {problem.source}: {problem.reason}" for problem in session.gate.problems)
        if not steps:
            reason = f"of {session.gate.num_fed} frames none can be used ({problems[0]})" if problems else "it has none"
            raise InputError(f"{what} has no frame to score: {reason}.")
        return CrashResult.of_steps(
            steps,
            size=session.gate.size if size is None else size,
            fps=self.model.config.fps,
            rule=self.rule,
            video=video,
            overlay=self.options.overlay,
            left_out=session.gate.num_bad,
            slots=None if video is None else self.model.config.num_boxes,
            problems=problems,
            missing=missing,
        )


def _read(reader: VideoReader, numbers: Sequence[int]) -> list[Picture | None]:
    """Returns frames; those that cannot be decoded are None."""
    if not numbers:
        return []
    try:
        return list(reader.get_batch(numbers))
    except MediaError:
        # One of them is damaged: only the others are of use.
        return [_read_one(reader, number) for number in numbers]


def _read_one(reader: VideoReader, number: int) -> Picture | None:
    try:
        frame: Picture = reader.get_batch([number])[0]
    except MediaError:
        return None
    return frame


def _names_in(path: Path) -> list[str]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return list(content.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' is damaged or no npz file: {error}.", "Download it again.") from error
