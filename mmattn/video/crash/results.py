"""What CRASH says about a video: risk, alerts and attended road users, to be saved, drawn and sent as JSON. No torch.

Shapes: T steps, n boxes of a step, N the most boxes of any step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattn.media.files import atomic_path
from mmattn.media.image import write_png
from mmattn.media.video import open_video
from mmattn.media.video_writer import VideoWriter
from mmattn.metrics.tables import write_csv, write_json
from mmattn.video.crash.stream.alerts import Alert, AlertRule, find_alerts, sustained_risk
from mmattn.video.crash.stream.frame_risk import FrameRisk, Sight
from mmattn.video.crash.stream.trust import Doubt, doubts
from mmattn.viz.risk import overlay_risk

__all__ = ["SHOWN_BOXES", "CrashResult", "draw_step", "fit_picture"]

Picture = npt.NDArray[np.uint8]

OVERLAY_SIDE = 960
_NARROWEST = 320
SHOWN_BOXES = 5
_LISTED_BOXES = 3
_READ_AT_ONCE = 16
_WINDOW = 10.0


@dataclass(frozen=True)
class CrashResult:
    """One video. ``dataclasses.replace(result, rule=...)`` moves the alerts without running the model again.

    Attributes:
        times: (T,) seconds of the steps, at the model's frame rate.
        risk: (T,) probability of an accident, in [0, 1].
        sights: T; road users of each step in pixels of the video, with their attention.
        sources: (T,) number of the video's frame each step has read.
        size: Height and width of the video, pixels; (0, 0) when only features were read.
        fps: Steps per second.
        rule: When risk becomes an alert.
        uncertainty: (T,) standard deviation of the risk over Monte-Carlo passes; None without them.
        video: The video's file, or its frames (F, H, W, 3) uint8 RGB; None when there are no pictures.
        overlay: Whether :meth:`save` writes the video with everything drawn on it.
        restarts: Times at which the session started over, seconds.
        left_out: Frames that could not be used.
        problems: The last of them, with the reason.
        settled: (T,) whether the risk of a step is past the transient of a beginning; None if all are.
        slots: Most road users that the model takes in; None if there are only features.
        missing: Frames that the file promises and does not hold.
    """

    times: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]
    sights: Sequence[Sight]
    sources: npt.NDArray[np.int64]
    size: tuple[int, int]
    fps: float
    rule: AlertRule
    uncertainty: npt.NDArray[np.float64] | None = None
    video: Path | Sequence[Picture] | Picture | None = None
    overlay: bool = True
    restarts: tuple[float, ...] = ()
    left_out: int = 0
    problems: tuple[str, ...] = ()
    settled: npt.NDArray[np.bool_] | None = None
    slots: int | None = None
    missing: int = 0

    @classmethod
    def of_steps(cls, steps: Sequence[FrameRisk], **facts: Any) -> CrashResult:
        """Builds it from what a session returned and the other attributes."""
        spread = [step.uncertainty for step in steps]
        known = [value for value in spread if value is not None]
        return cls(
            times=np.array([step.time for step in steps]),
            risk=np.array([step.risk for step in steps]),
            sights=[step.sight for step in steps],
            sources=np.array([step.source for step in steps], np.int64),
            uncertainty=np.array(known) if steps and len(known) == len(steps) else None,
            restarts=tuple(step.time for step in steps if step.restarted),
            settled=np.array([step.is_settled for step in steps], bool),
            **facts,
        )

    @property
    def score(self) -> float:
        """Largest risk of the video, first steps left out, unless there are no others."""
        return float(self.risk[self.peak])

    @property
    def peak(self) -> int:
        """Step of the largest risk, first steps left out, unless there are no others."""
        if self.settled is None or not self.settled.any():
            return int(self.risk.argmax())
        return int(np.where(self.settled, self.risk, -np.inf).argmax())

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the result should not be trusted; nothing if it may be."""
        settled = np.ones(len(self.risk), bool) if self.settled is None else self.settled
        return doubts(
            self.sights,
            self.sources,
            settled,
            fps=self.fps,
            slots=self.slots,
            has_boxes=self.slots is not None,
            missing=self.missing,
        )

    @property
    def alerts(self) -> list[Alert]:
        """Alerts under the rule, in order. Steps before and after a new start are never one run."""
        cuts = [0, *np.searchsorted(self.times, self.restarts).tolist(), len(self.times)]
        if len(cuts) == 2:
            return find_alerts(self.risk, self.times, self.rule)
        # A step that does not count stands for the cut; numbers are those of the whole curve afterwards.
        at = np.array(cuts[1:-1])
        risk = np.insert(self.risk, at, np.nan)
        found = find_alerts(risk, np.insert(self.times, at, self.times[at]), self.rule)
        places = np.cumsum(np.isnan(risk))
        return [Alert(alert.frame - int(places[alert.frame]), alert.time, alert.start, alert.risk) for alert in found]

    def plot(self) -> Picture:
        """Returns the risk over time with threshold and alerts, (h, w, 3) uint8 RGB."""
        # Everything else works without matplotlib.
        from mmattn.viz.curves import plot_curve

        events = {f"alert {i}": alert.time for i, alert in enumerate(self.alerts, start=1)}
        return plot_curve(
            self.times,
            self.risk,
            threshold=self.rule.threshold,
            spread=self.uncertainty,
            events=events if len(events) <= 8 else None,
            xlabel="time (s)",
            ylabel="risk of an accident",
            title="Risk over time",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns curve, alerts and facts as plain JSON types."""
        alerts = self.alerts
        return {
            "score": round(self.score, 6),
            "label": "alert" if alerts else "no alert",
            "alerts": [alert.to_json() for alert in alerts],
            "alert_threshold": self.rule.threshold,
            "persistence": self.rule.persistence,
            "cooldown": self.rule.cooldown,
            "sustained_risk": round(sustained_risk(self.risk, self.rule.persistence), 6),
            "peak_seconds": round(float(self.times[self.peak]), 3),
            "warnings": [doubt.to_json() for doubt in self.doubts],
            "transient_steps": 0 if self.settled is None else int((~self.settled).sum()),
            "frames": len(self.times),
            "fps": self.fps,
            "size": list(self.size),
            "left_out": self.left_out,
            "missing": self.missing,
            "problems": list(self.problems),
            "restarts": [round(time, 3) for time in self.restarts],
            "seconds_of_frames": [round(float(time), 3) for time in self.times],
            "risk": [round(float(value), 6) for value in self.risk],
        }

    def frames_json(self) -> Iterator[dict[str, Any]]:
        """Yields each step with its most attended road users as plain JSON types."""
        for i, sight in enumerate(self.sights):
            seen = sight.strongest(_LISTED_BOXES)
            users = [
                {
                    "box": [round(float(value), 1) for value in box],
                    "class": name,
                    "score": round(float(score), 4),
                    "attention": round(float(attention), 4),
                }
                for box, score, name, attention in zip(*seen, strict=True)
            ]
            step: dict[str, Any] = {"time": round(float(self.times[i]), 3), "risk": round(float(self.risk[i]), 6)}
            if self.uncertainty is not None:
                step["std"] = round(float(self.uncertainty[i]), 6)
            yield {**step, "road_users": len(sight.boxes), "attended": users}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns arrays under the names of UString's ``*_result.npz``, and attention and times beside them.

        ``score`` (T,), ``det`` (T, N, 6) x1, y1, x2, y2, score, class (a place in ``classes``; empty rows are zero),
        ``epistemic`` (T,) the variance of the risk, where it is known. ``aleatoric`` is not estimated and left out.
        """
        names = sorted({name for sight in self.sights for name in sight.classes})
        most = max((len(sight.boxes) for sight in self.sights), default=0)
        det = np.zeros((len(self.sights), most, 6), np.float32)
        attention = np.zeros((len(self.sights), most), np.float32)
        for row, weights, sight in zip(det, attention, self.sights, strict=True):
            n = len(sight.boxes)
            row[:n, :4], row[:n, 4], weights[:n] = sight.boxes, sight.scores, sight.attention
            row[:n, 5] = [names.index(name) for name in sight.classes]
        known = {} if self.uncertainty is None else {"epistemic": self.uncertainty**2}
        return {
            "score": self.risk.astype(np.float32),
            "det": det,
            "attention": attention,
            "times": self.times,
            "classes": np.array(names, dtype=np.str_),
            **known,
        }

    def overlay_frames(self) -> Iterator[Picture]:
        """Yields the picture of each step, about 960 pixels a side, with boxes, gauge and curve drawn on it."""
        alerts = [alert.time for alert in self.alerts]
        note = self.doubts[0].message.split(": ")[0].rstrip(".") if self.doubts else ""
        for i, picture in enumerate(self._pictures()):
            first = int(np.searchsorted(self.times, float(self.times[i]) - _WINDOW))
            times, risks = self.times[first : i + 1], self.risk[first : i + 1]
            yield draw_step(
                picture, self.sights[i], times, risks, threshold=self.rule.threshold, alerts=alerts, note=note
            )

    def save(self, directory: Path, name: str) -> list[Path]:
        """Writes JSON, CSV, npz, the curve and, where there are pictures, video and worst moment; returns the paths.

        Args:
            directory: Existing folder.
            name: Full name of the input file; outputs are ``NAME.risk.json`` and so on.
        """
        paths = {kind: directory / f"{name}.{kind}" for kind in ("risk.json", "risk.csv", "curve.png", "result.npz")}
        write_json(paths["risk.json"], {**self.to_json(), "steps": list(self.frames_json())})
        write_csv(paths["risk.csv"], ["seconds", "risk", "std", "road_users", "alert"], self._step_rows())
        write_png(paths["curve.png"], self.plot())
        with atomic_path(paths["result.npz"]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self.arrays())
        written = list(paths.values())
        if self.overlay and self.video is not None:
            video, peak = directory / f"{name}.overlay.mp4", directory / f"{name}.peak.png"
            worst = self.peak
            with VideoWriter(video, self.fps) as writer:
                for i, frame in enumerate(self.overlay_frames()):
                    writer.write(frame)
                    if i == worst:
                        write_png(peak, frame)
            written = [video, *written, peak]
        return written

    def _step_rows(self) -> Iterator[list[Any]]:
        """Yields what the table of steps says of each."""
        alerted = {alert.frame for alert in self.alerts}
        for i, sight in enumerate(self.sights):
            std = "" if self.uncertainty is None else f"{self.uncertainty[i]:.6f}"
            yield [f"{self.times[i]:.3f}", f"{self.risk[i]:.6f}", std, len(sight.boxes), int(i in alerted)]

    def _pictures(self) -> Iterator[Picture]:
        """Yields the frame that each step has read, a few in memory at a time."""
        if self.video is None:
            return
        if not isinstance(self.video, Path):
            yield from (np.asarray(self.video[source]) for source in self.sources)
            return
        with open_video(self.video, cut_short=True) as reader:
            for start in range(0, len(self.sources), _READ_AT_ONCE):
                yield from reader.get_batch(self.sources[start : start + _READ_AT_ONCE])


def draw_step(
    picture: Picture,
    sight: Sight,
    times: npt.ArrayLike,
    risks: npt.ArrayLike,
    *,
    threshold: float,
    alerts: Sequence[float],
    side: int = OVERLAY_SIDE,
    note: str = "",
) -> Picture:
    """Returns the picture of a step, fitted, with the boxes that are attended to, the gauge and the curve.

    Args:
        picture: (H, W, 3) uint8 RGB.
        sight: What the step sees, in pixels of the picture.
        times: (T,) seconds of the curve; the last is the step's own.
        risks: (T,) risks of the curve.
        threshold: Of the alerts.
        alerts: Their moments, seconds.
        side: Longest side, pixels.
        note: Why not to trust it, a few words; drawn at the top.
    """
    fitted, scale = fit_picture(picture, side)
    seen = sight.strongest(SHOWN_BOXES)
    return overlay_risk(
        fitted,
        seen.boxes * scale,
        seen.attention,
        times=times,
        risks=risks,
        now=float(np.asarray(times)[-1]),
        risk=float(np.asarray(risks)[-1]),
        threshold=threshold,
        alerts=alerts,
        captions=seen.captions,
        note=note,
    )


def fit_picture(picture: Picture, side: int = OVERLAY_SIDE) -> tuple[Picture, float]:
    """Returns a picture of at most ``side`` pixels a side and at least 320 in width, and the factor to its pixels."""
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    scale = max(scale, _NARROWEST / width)
    if scale == 1.0:
        return picture, 1.0
    import cv2

    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = max(round(width * scale), _NARROWEST), max(round(height * scale), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8), scale
