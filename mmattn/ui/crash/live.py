"""The live part of the CRASH page: a webcam is watched frame by frame, one session for each visitor."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from mmattn.ui.crash.view import attended
from mmattn.ui.notices import as_notices
from mmattn.ui.theme import waiting_html
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.results import CrashResult, draw_step
from mmattn.video.crash.stream.alerts import Alert, AlertRule
from mmattn.video.crash.stream.frame_risk import FrameRisk
from mmattn.video.crash.stream.session import CrashSession

__all__ = ["Live", "live_html", "look"]

REMEMBERED_SECONDS = 60
_SIDE = 560
_CURVE_SECONDS = 10.0


@dataclass
class Live:
    """What is kept of one visitor's camera.

    Attributes:
        model: Name of the model that watches.
        session: The stream.
        started: Moment of its first frame on this machine's clock, seconds.
        steps: The last minute.
        num_steps: Steps so far.
    """

    model: str
    session: CrashSession
    started: float
    steps: deque[FrameRisk] = field(default_factory=deque)
    num_steps: int = 0

    def feed(self, frame: np.ndarray, now: float) -> list[FrameRisk]:
        """Takes the next frame and returns the steps it made due.

        Args:
            frame: (H, W, 3) uint8 RGB.
            now: Moment on the clock of ``started``, seconds.
        """
        new = self.session.feed(frame, now - self.started)
        self.steps += new
        self.num_steps += len(new)
        while self.steps and self.steps[-1].time - self.steps[0].time > REMEMBERED_SECONDS:
            self.steps.popleft()
        return new

    def alerts(self, rule: AlertRule) -> list[Alert]:
        """Returns the alerts of the last minute under a rule, which may have changed since."""
        return CrashResult.of_steps(list(self.steps), size=(0, 0), fps=1.0, rule=rule).alerts


def look(
    predictor: CrashPredictor,
    name: str,
    frame: np.ndarray | None,
    live: Live | None,
    rule: AlertRule,
    now: float | None = None,
) -> tuple[Live | None, Any, str]:
    """Takes one frame of a visitor's camera.

    Args:
        predictor: The model.
        name: Its name; with another name than before the session starts over.
        frame: (H, W, 3) uint8 RGB; None when the camera gave nothing.
        live: What was kept; None at the first frame.
        rule: When risk becomes an alert.
        now: Seconds on a clock that only goes on; None takes this machine's.

    Returns:
        What to keep, the picture with everything drawn on it (unchanged while no step is due), and the line below.

    Raises:
        gr.Error: With a notice for the visitor when the model cannot read pictures.
    """
    moment = time.monotonic() if now is None else now
    if frame is None:
        return live, gr.skip(), live_html(live, rule)
    with as_notices():
        if live is None or live.model != name:
            live = Live(name, predictor.open_session(), moment)
        new = live.feed(frame, moment)
    return live, draw(frame, live, rule) if new else gr.skip(), live_html(live, rule)


def draw(frame: np.ndarray, live: Live, rule: AlertRule) -> np.ndarray:
    """Returns the frame (H, W, 3) with the boxes that are attended to, the gauge and the curve of the last seconds."""
    last = live.steps[-1]
    recent = [step for step in live.steps if last.time - step.time <= _CURVE_SECONDS]
    return draw_step(
        frame,
        last.sight,
        [step.time for step in recent],
        [step.risk for step in recent],
        threshold=rule.threshold,
        alerts=[alert.time for alert in live.alerts(rule)],
        side=_SIDE,
    )


def live_html(live: Live | None, rule: AlertRule) -> str:
    """The coloured line of the live view."""
    if live is None or not live.steps:
        return waiting_html("The camera is not running")
    last, alerts = live.steps[-1], live.alerts(rule)
    is_alarm = bool(alerts) and last.time - alerts[-1].time < 1.0
    spread = "" if last.uncertainty is None else f" ± {last.uncertainty:.2f}"
    word = "ALERT" if is_alarm else f"{len(alerts)} alert{'' if len(alerts) == 1 else 's'} in the last minute"
    return (
        f'<div class="mm-verdict {"anomalous" if is_alarm else "normal"}"><span class="number">{last.risk:.2f}{spread}'
        f'</span><span class="word">{word}</span><span>looks at {attended(last.sight)}</span>'
        f"<span>{live.num_steps} steps watched</span></div>"
    )
