"""The CRASH app: see how likely an accident is while a dashcam video plays, in a browser.

    mmattn app crash

The model runs once per video. Threshold, persistence and cooldown only move the alerts on what was computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mmattn.core.weights.checkpoint import embedded_path
from mmattn.media.video import VIDEO_SUFFIXES
from mmattn.ui.crash.clip import MAX_SECONDS, Watched, pack, watch
from mmattn.ui.crash.live import Live, live_html, look
from mmattn.ui.crash.view import CURVE_CSS, FOLLOW_VIDEO, alarms_html, curve_html, verdict_html
from mmattn.ui.theme import model_choice, page, reading_notes
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.video.crash.stream.normal_driving import NormalDriving

__all__ = ["build_app", "move_alerts", "sample_clips"]

LIVE_SECONDS = 1800

INTRO = """# CRASH · see the accident coming
Give it a video from the windscreen of a car. Frame by frame, knowing only what came before, it says how likely an
accident is, and which road users it looks at."""

ADVISORY = """
<div style="border-left:5px solid #e66316;padding:8px 14px;border-radius:6px;background:rgba(230,99,22,.10)">
<b>Advisory only.</b> A research demonstration. It misses accidents and warns without cause; do not rely on it while
driving, and do not use it to judge who was at fault.</div>
"""

HOW_TO_READ = """
- **Risk** (0 to 1): the model's belief, at that moment, that an accident is coming in the next seconds. It uses frames
  up to that moment only. The number is no calibrated probability of the road outside; compare it with the threshold.
- **Alert** (vermilion line and word): raised when the risk has been at or above the dashed *threshold* for
  *persistence* frames in a row, and not again within *cooldown* seconds. Moving a slider moves the alerts; the risk
  stays.
- **Boxes**: the road users it looks at most. The brighter and thicker, the more they count for the risk at that moment.
  Attention says what was weighed, not what is at fault.
- **Playhead**: follows the video; click on the curve to go there.
- **Band** (where there is one): one standard deviation over random passes of the network.
- **False alarms per hour**: alerts these settings raise in driving without an accident. A lower threshold warns earlier
  and more often in vain; there is no setting without a price.
"""

LIMITS = f"""
- The embedded model is small and was trained on *generated* dashcam scenes. A simulator is not the road: real light,
  weather, cameras and behaviour differ, and the numbers on its card do not carry over.
- It knows cars, trucks, two-wheelers and pedestrians. Animals, debris, ice or a driver asleep it cannot see.
- It expects a camera that looks ahead from a car, at about 84 degrees of view. Other views give meaningless numbers.
- Videos of up to {MAX_SECONDS // 60} minutes. They and the results stay on the machine that runs this page. They are
  deleted within a quarter of an hour after you leave; what you sent and never used, within a day.
"""


def build_app(
    predictors: Mapping[str, CrashPredictor],
    *,
    examples: Sequence[Path] | None = None,
    driving: Mapping[str, NormalDriving] | None = None,
) -> gr.Blocks:
    """Builds the page; nothing is loaded or started.

    Args:
        predictors: Models a visitor can choose from, by the name shown; the first is preselected.
        examples: Example videos; None takes the bundled ones.
        driving: Curves of normal driving by model, for the false alarms; None takes what ships with the embedded model.
    """
    names = list(predictors)
    known = _bundled_driving(predictors) if driving is None else dict(driving)
    clips = list(sample_clips() if examples is None else examples)
    start = predictors[names[0]].rule
    with page("CRASH · mmattn", INTRO) as demo:
        gr.HTML(ADVISORY)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                model = model_choice(names)
                threshold = gr.Slider(
                    0, 1, value=start.threshold, step=0.01, label="Alert threshold (risk)", elem_id="crash-threshold"
                )
                persistence = gr.Slider(
                    1, 20, value=start.persistence, step=1, label="Persistence (frames)", elem_id="crash-persistence"
                )
                cooldown = gr.Slider(
                    0, 10, value=start.cooldown, step=0.5, label="Cooldown (s)", elem_id="crash-cooldown"
                )
                alarms = gr.HTML(alarms_html(None, known.get(names[0]), start), elem_id="crash-alarms")
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                rule = [threshold, persistence, cooldown]
                with gr.Tab("Video"):
                    _video_tab(predictors, known, model, rule, alarms, clips)
                with gr.Tab("Webcam, live"):
                    _live_tab(predictors, model, rule)
        reading_notes(HOW_TO_READ, LIMITS)
    return demo


def _video_tab(
    predictors: Mapping[str, CrashPredictor],
    known: Mapping[str, NormalDriving],
    model: gr.Dropdown,
    rule: list[gr.Slider],
    alarms: gr.HTML,
    clips: Sequence[Path],
) -> None:
    state = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            source = gr.Video(
                sources=["upload", "webcam"], label="Your video", height=240, include_audio=False, elem_id="crash-input"
            )
            run = gr.Button("Watch for accidents", variant="primary", size="lg", elem_id="crash-run")
            if clips:
                gr.Examples([[str(clip)] for clip in clips], inputs=[source], label="Samples")
        with gr.Column(scale=2, min_width=320):
            verdict = gr.HTML(verdict_html(None), elem_id="crash-verdict")
            player = gr.Video(
                label="What it looks at", interactive=False, autoplay=True, height=380, elem_id="crash-video"
            )
            curve = gr.HTML(
                curve_html(None), css_template=CURVE_CSS, js_on_load=FOLLOW_VIDEO, elem_id="crash-curve", padding=True
            )
            make = gr.Button("Make JSON, CSV and MP4 with these alerts", interactive=False, elem_id="crash-make")
            files = gr.File(label="Downloads", visible=False, file_count="multiple", elem_id="crash-files")

    def on_watch(video: str | None, name: str) -> Watched:
        return watch(predictors[name], video)

    def on_move(watched: Watched | None, name: str, *values: float) -> tuple[str, str, str]:
        return move_alerts(watched, known.get(name), *values)

    def on_ready(watched: Watched) -> tuple[str, Any]:
        return str(watched.clip), gr.update(interactive=True)

    def on_make(watched: Watched | None, *values: float) -> Any:
        return gr.update(value=pack(watched, _rule(*values)), visible=True)

    controls, views = [state, model, *rule], [verdict, curve, alarms]
    watched = run.click(on_watch, [source, model], state, api_name="watch", concurrency_id="crash")
    # The curve first: the video's playhead then finds it.
    watched.success(on_move, controls, views, api_visibility="private").success(
        on_ready, state, [player, make], api_visibility="private"
    ).success(lambda: gr.update(visible=False, value=None), None, files, api_visibility="private")
    # One listener for all, so that the settings of the last movement are the ones that stay.
    moving: list[Any] = [*rule, model]
    gr.on(
        [control.change for control in moving],
        on_move,
        controls,
        views,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    make.click(on_make, [state, *rule], files, api_visibility="private", concurrency_id="crash")


def _live_tab(predictors: Mapping[str, CrashPredictor], model: gr.Dropdown, rule: list[gr.Slider]) -> None:
    state = gr.State(None, time_to_live=LIVE_SECONDS)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            camera = gr.Image(
                sources=["webcam"],
                streaming=True,
                type="numpy",
                label="Camera, looking ahead",
                height=240,
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="crash-camera",
            )
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(live_html(None, AlertRule()), elem_id="crash-live-status")
            view = gr.Image(
                label="What it looks at, and the risk of the last seconds",
                show_label=False,
                interactive=False,
                format="jpeg",
                elem_id="crash-live-view",
            )

    def on_frame(
        frame: np.ndarray | None, live: Live | None, name: str, *values: float
    ) -> tuple[Live | None, Any, str]:
        return look(predictors[name], name, frame, live, _rule(*values))

    camera.stream(
        on_frame,
        [camera, state, model, *rule],
        [state, view, status],
        stream_every=0.1,
        time_limit=LIVE_SECONDS,
        concurrency_limit=4,
        show_progress="hidden",
        api_visibility="private",
    )


def move_alerts(
    watched: Watched | None, driving: NormalDriving | None, threshold: float, persistence: float, cooldown: float
) -> tuple[str, str, str]:
    """Returns verdict, curve and false alarms under these settings; the model does not run."""
    rule = _rule(threshold, persistence, cooldown)
    result = None if watched is None else replace(watched.result, rule=rule)
    return verdict_html(result), curve_html(result), alarms_html(result, driving, rule)


def sample_clips() -> list[Path]:
    """Returns the bundled sample videos, at most six."""
    folder = embedded_path("crash") / "samples"
    return sorted(path for path in folder.glob("*") if path.suffix in VIDEO_SUFFIXES)[:6]


def _bundled_driving(predictors: Mapping[str, CrashPredictor]) -> dict[str, NormalDriving]:
    embedded = NormalDriving.load(embedded_path("crash"))
    if embedded is None:
        return {}
    return {name: embedded for name, predictor in predictors.items() if predictor.name == "embedded"}


def _rule(threshold: float, persistence: float, cooldown: float) -> AlertRule:
    return AlertRule(float(threshold), int(persistence), float(cooldown))
