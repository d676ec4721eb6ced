"""A stream being watched: frames in, risks and alerts out, for as long as it lasts, in constant memory.

Frames are resampled by their times to the steps the model was trained at (:mod:`mmattn.media.stream.resampling`),
perceived, and scored. How the frames are cut into calls of :meth:`CrashSession.feed` changes nothing but the moment
answers arrive.

Frames that cannot be used are left out (:mod:`mmattn.media.stream.frame_gate`); a step one would have served reads the
frame before. After more than a second without a frame, and when the frames keep another size, the session starts over:
tracks and risk begin anew, and the first answer says so (``restarted``). Shorter gaps keep the state. The first
second or so of every beginning is a transient (``is_settled``). However long the stream, the risk rests on its last
seconds alone (:mod:`.windows`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmattn.errors import InputError
from mmattn.media.files import atomic_path
from mmattn.media.stream.frame_gate import FrameGate
from mmattn.media.stream.resampling import Resampler
from mmattn.video.crash.model import RiskModel
from mmattn.video.crash.perception.protocol import FramePerception, Perception, PerceptionSession
from mmattn.video.crash.stream.alerts import AlertMonitor, AlertRule
from mmattn.video.crash.stream.frame_risk import FrameRisk, Sight, Step
from mmattn.video.crash.stream.windows import RiskWindows

__all__ = ["MAX_SIDE", "CrashSession"]

Picture: TypeAlias = npt.NDArray[np.uint8]
Read: TypeAlias = Callable[[list[int]], Sequence[Picture | None]]

MAX_SIDE = 1280
"""Larger pictures are reduced before perception; boxes come back in the pixels of the original."""


class _Held(NamedTuple):
    """What was perceived last, and the number of the frame it was perceived in."""

    source: int
    seen: FramePerception


class CrashSession:
    """See the module; made by :meth:`.predictor.CrashPredictor.open_session`.

    Args:
        model: The risk model, in evaluation mode.
        perception: What makes its features; None when only features are fed.
        device: Where the model runs.
        rule: When risk becomes an alert.
        fps: Frames per second of frames that come without times; None is the model's rate.

    Attributes:
        gate: Counts frames, and says which were left out and why.
    """

    def __init__(
        self,
        model: RiskModel,
        perception: Perception | None,
        *,
        device: torch.device,
        rule: AlertRule,
        fps: float | None = None,
    ) -> None:
        self.model, self.perception, self.device = model, perception, device
        self.gate = FrameGate(model.config.fps if fps is None else fps)
        self.clock = Resampler(model.config.fps)
        self.monitor = AlertMonitor(rule)
        self.num_steps = 0
        self._perceiver: PerceptionSession | None = None
        self._held: _Held | None = None
        self._last_read = -1
        self._is_open = True
        self._start_over()

    def feed(self, frames: Any, times: Any = None) -> list[FrameRisk]:
        """Takes the next frames and returns the steps that were due.

        Args:
            frames: One frame (H, W, 3) uint8 RGB, or a sequence of them; None stands for one that was lost.
            times: Seconds of each, ascending; None counts on at the session's ``fps``.

        Raises:
            InputError: If the session is closed, has no perception, or there are not as many times as frames.
        """
        self._check_open()
        if self.perception is None:
            raise InputError(
                "This model reads features that cannot be made from pictures.", "Use feed_features, or another model."
            )
        is_one = frames is None or (isinstance(frames, np.ndarray) and frames.ndim != 4)
        pictures = [frames] if is_one else list(frames)
        steps: list[Step] = []
        wanted: dict[int, Picture] = {}
        for picture, time in zip(pictures, self.gate.times(len(pictures), times), strict=True):
            admitted = self.gate.admit(picture, time)
            if admitted is None:
                continue
            due = self.due(admitted.source, time, restarts=admitted.has_new_size)
            wanted |= {step.source: picture for step in due if step.is_new}
            steps += due
        return self.run(steps, lambda sources: [wanted[source] for source in sources])

    def due(self, source: int, time: float, *, restarts: bool = False) -> list[Step]:
        """Takes the time of a good frame, which need not be decoded yet, and returns the steps it makes due.

        Args:
            source: Its number.
            time: Seconds, above the time before.
            restarts: Start over with this frame, whatever its time.
        """
        restarts = restarts or self.clock.is_gap(time)
        if restarts:
            self.clock = Resampler(self.model.config.fps)
        steps: list[Step] = []
        for moment in self.clock.push(time):
            is_first = moment.is_new and self._last_read != source
            if is_first:
                self._last_read = source
            steps.append(Step(moment.time, self._last_read, time, is_first, restarts and not steps))
        return steps

    @torch.inference_mode()
    def run(self, steps: Sequence[Step], read: Read) -> list[FrameRisk]:
        """Perceives and scores steps.

        Args:
            steps: From :meth:`due`, in order.
            read: Returns the frames of these numbers; None for one that cannot be had, whose steps read the one before.
        """
        starts = np.cumsum([step.restarts for step in steps])
        results: list[FrameRisk] = []
        for _, group in groupby(zip(starts, steps, strict=True), key=lambda pair: int(pair[0])):
            part = [step for _, step in group]
            if part[0].restarts:
                self._start_over()
                self.monitor.interrupt()
            results += self._score(self._perceive(part, read), use_valid=True)
        return results

    @torch.inference_mode()
    def feed_features(
        self, features: npt.ArrayLike, valid: npt.ArrayLike | None = None, times: Any = None
    ) -> list[FrameRisk]:
        """Takes the features of the next steps; they must come at the model's own rate.

        Args:
            features: (N + 1, F) or (K, N + 1, F); a step with NaN in it is left out and counted.
            valid: Slots that hold something, (N + 1,) or (K, N + 1) bool; None as the model decides.
            times: Seconds of each step; None counts on at the model's rate.

        Raises:
            InputError: If the session is closed or shapes do not fit.
        """
        self._check_open()
        array = np.asarray(features, np.float32)
        array = array[None] if array.ndim == 2 else array
        slots = (self.model.config.num_boxes + 1, self.model.config.feature_dim)
        if array.ndim != 3 or array.shape[1:] != slots:
            raise InputError(
                f"Features have shape {array.shape}, expected (steps, {slots[0]}, {slots[1]}).",
                "They were made with another backbone or number of boxes than the checkpoint.",
            )
        mask = (array != 0).any(axis=-1) if valid is None else np.asarray(valid, bool).reshape(array.shape[:2])
        rows: list[tuple[Step, FramePerception]] = []
        for row, time in enumerate(self.gate.times(len(array), times, self.model.config.fps)):
            source = self.gate.count(time)
            if np.isfinite(array[row]).all():
                rows.append((Step(time, source, time, True), _unseen(array[row], mask[row])))
            else:
                self.gate.note(source, "its features are not finite numbers")
        return self._score(rows, use_valid=valid is not None)

    def save(self, path: str | Path) -> Path:
        """Writes the state to a file, for :meth:`.predictor.CrashPredictor.load_session`, and returns its path.

        Risk, clock and alerts go on from there exactly; road users are followed anew, which takes about a second.

        Raises:
            InputError: If the session is closed.
            MediaError: If the file cannot be written.
        """
        self._check_open()
        numbers: dict[str, float] = {f"alert_{name}": value for name, value in self.monitor.state().items()}
        numbers |= {f"gate_{name}": value for name, value in self.gate.state().items()}
        numbers |= {"clock_start": self.clock.start, "clock_step": self.clock.step, "num_steps": self.num_steps}
        if self.clock.last is not None:
            numbers["clock_last"] = self.clock.last
        numbers["num_seen"] = self._num_seen
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._windows.to_tensors().items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"crash_session": json.dumps(numbers)})
        return Path(path)

    def restore(self, path: str | Path) -> None:
        """Takes up the state that :meth:`save` wrote.

        Raises:
            InputError: If the file is missing, or no session of this model.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                numbers = json.loads((file.metadata() or {})["crash_session"])
                tensors = {name: file.get_tensor(name).to(self.device) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"'{path}' is no saved session: {error}.", "Give a file that session.save wrote."
            ) from error
        if not {"hidden", "history", "ages"} <= tensors.keys() or "num_seen" not in numbers:
            raise InputError(f"'{path}' is a session of another version.", "Open the stream anew.")
        expected = self.model.initial_state(1).hidden.shape
        if tensors["hidden"].shape != expected:
            raise InputError(
                f"'{path}' is the session of another model: its state is {tuple(tensors['hidden'].shape)}, expected "
                f"{tuple(expected)}."
            )
        self._windows.restore(tensors)
        self._num_seen = int(numbers["num_seen"])
        self.monitor.restore(_part_of(numbers, "alert_"))
        self.gate.restore(_part_of(numbers, "gate_"))
        self.clock.start, self.clock.step = numbers["clock_start"], int(numbers["clock_step"])
        self.clock.last, self.num_steps = numbers.get("clock_last"), int(numbers["num_steps"])

    def close(self) -> None:
        """Ends the session and frees what it holds."""
        self._is_open = False
        self._perceiver = self._held = None

    def _start_over(self) -> None:
        self._windows = RiskWindows(self.model)
        self._num_seen = 0
        self._perceiver = None if self.perception is None else self.perception.open()
        self._held = None

    def _perceive(self, steps: Sequence[Step], read: Read) -> list[tuple[Step, FramePerception]]:
        """Returns what each step reads; steps before the first good frame fall away."""
        new = [step for step in steps if step.is_new]
        pictures = read([step.source for step in new])
        usable = []
        for step, picture in zip(new, pictures, strict=True):
            if picture is None:
                self.gate.note(step.source, "it cannot be decoded")
            else:
                usable.append((step, *_reduced(picture)))
        seen: dict[int, FramePerception] = {}
        if usable and self._perceiver is not None:
            found = self._perceiver.push([picture for _, picture, _ in usable], [s.frame_time for s, _, _ in usable])
            for (step, _, factor), one in zip(usable, found, strict=True):
                boxes = (one.boxes * factor).astype(np.float32)
                seen[step.source] = replace(one, boxes=boxes) if factor != 1 else one
        rows = []
        for step in steps:
            if step.source in seen:
                self._held = _Held(step.source, seen[step.source])
            if self._held is not None:
                rows.append((step._replace(source=self._held.source), self._held.seen))
        return rows

    def _score(self, rows: Sequence[tuple[Step, FramePerception]], *, use_valid: bool) -> list[FrameRisk]:
        if not rows:
            return []
        features = torch.from_numpy(np.stack([seen.features for _, seen in rows])[None]).to(self.device)
        valid = torch.from_numpy(np.stack([seen.valid for _, seen in rows])[None]).to(self.device)
        output = self._windows.extend(features, valid if use_valid else None)
        risks = output.logits[0].double().softmax(dim=-1)[:, 1].cpu().tolist()
        attention = output.box_attention[0].float().cpu().numpy()
        spread = [None] * len(rows) if output.uncertainty is None else output.uncertainty[0].cpu().tolist()
        results = []
        for (step, seen), risk, weights, deviation in zip(rows, risks, attention, spread, strict=True):
            sight = Sight(seen.boxes, seen.scores, seen.classes, weights[: len(seen.boxes)].copy())
            alert = self.monitor.update(risk, step.time)
            is_anew = step.restarts and self.num_steps > 0
            is_settled = self._num_seen >= self.model.config.warm_up
            results.append(FrameRisk(step.time, risk, deviation, sight, step.source, alert, is_anew, is_settled))
            self.num_steps, self._num_seen = self.num_steps + 1, self._num_seen + 1
        return results

    def _check_open(self) -> None:
        if not self._is_open:
            raise InputError("This session is closed.", "Open another one.")


def _part_of(numbers: dict[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def _reduced(picture: Picture) -> tuple[Picture, float]:
    """Returns a picture of at most MAX_SIDE pixels a side, and how much larger the original is."""
    longest = max(picture.shape[:2])
    if longest <= MAX_SIDE:
        return picture, 1.0
    import cv2

    factor = longest / MAX_SIDE
    size = max(round(picture.shape[1] / factor), 1), max(round(picture.shape[0] / factor), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def _unseen(features: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> FramePerception:
    """Features without boxes."""
    return FramePerception(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), features, valid)
