"""Handlers of the CRASH app, called as plain functions, and the page built without starting it."""

import csv
import gc
import json
import re
from html import unescape
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from mmattn.media.video import open_video
from mmattn.ui.crash import clip as clip_module
from mmattn.ui.crash.app import build_app, move_alerts
from mmattn.ui.crash.clip import Watched, pack, watch
from mmattn.ui.crash.live import REMEMBERED_SECONDS, Live, live_html, look
from mmattn.ui.crash.view import alarms_html, attended, curve_html, verdict_html
from mmattn.ui.hub import build_hub
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.video.crash.stream.frame_risk import Sight
from mmattn.video.crash.stream.normal_driving import NormalDriving
from tests.ui.crash.parts import tiny_predictor, write_clip
from tests.video.crash.perception.crop_parts import pictures

DEFAULTS = (0.6, 3, 2.0)
RULE = AlertRule(*DEFAULTS)


@pytest.fixture(scope="module")
def predictor() -> CrashPredictor:
    return tiny_predictor()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "drive.mp4")


@pytest.fixture(scope="module")
def watched(predictor: CrashPredictor, clip: Path) -> Watched:
    return watch(predictor, clip)


def steps_in(html: str) -> list[list]:
    return json.loads(unescape(re.search(r"data-steps='([^']*)'", html)[1]))


def alerts_in(html: str) -> list[float]:
    return json.loads(re.search(r"data-alerts='([^']*)'", html)[1])


def test_the_video_that_plays_has_one_frame_for_each_step(watched: Watched):
    assert watched.name == "drive.mp4"
    with open_video(watched.clip) as reader:
        assert len(reader) == len(watched.result.risk) == 30
        assert reader.fps == pytest.approx(10.0)
        np.testing.assert_allclose(reader.timestamps, watched.result.times, atol=1e-3)
        # Boxes are drawn on the picture, which had none.
        with open_video(watched.result.video) as original:
            frame = original.get_batch([watched.result.sources[1]])[0]
        drawn = reader.get_batch([1])[0]
    assert drawn.shape == (180, 320, 3)
    assert abs(drawn[::2, ::2].astype(int) - frame).max() > 100


def test_the_page_draws_risk_alerts_and_attention_of_every_step(watched: Watched):
    verdict, curve, _ = move_alerts(watched, None, *DEFAULTS)
    result = watched.result
    steps = steps_in(curve)
    assert [step[0] for step in steps] == pytest.approx(result.times.tolist(), abs=1e-3)
    assert [step[1] for step in steps] == pytest.approx(result.risk.tolist(), abs=1e-4)
    assert all(step[2] is None for step in steps)
    assert re.fullmatch(r"\w+ \d+ %, \w+ \d+ %", steps[1][3])
    assert alerts_in(curve) == pytest.approx([alert.time for alert in result.alerts])
    assert curve.count('class="alert"') + curve.count('class="alert late"') == len(result.alerts) == 1
    assert f"1 alert at {result.alerts[0].time:.1f} s" in verdict
    assert f"{result.score:.2f}" in verdict


def test_sliders_move_the_alerts_without_running_the_model(
    watched: Watched, predictor: CrashPredictor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predictor, "predict", None)
    monkeypatch.setattr(predictor.model, "extend", None)
    none = move_alerts(watched, None, 1.0, 1, 0.0)
    assert "no alert" in none[0]
    assert alerts_in(none[1]) == []
    low = alerts_in(move_alerts(watched, None, 0.0, 1, 0.0)[1])
    assert low == [0.0]
    late = alerts_in(move_alerts(watched, None, 0.0, 5, 0.0)[1])
    assert late == pytest.approx([0.4])
    once = alerts_in(move_alerts(watched, None, 0.2, 1, 0.0)[1])
    cooled = alerts_in(move_alerts(watched, None, 0.2, 1, 10.0)[1])
    assert len(once) == 2
    assert cooled == once[:1]
    assert steps_in(none[1]) == steps_in(move_alerts(watched, None, *DEFAULTS)[1])


def test_uncertainty_is_drawn_where_there_is_one(clip: Path):
    predictor = tiny_predictor(dropout=0.5, legacy_eval_dropout=True, mc_samples=4)
    curve = curve_html(watch(predictor, clip).result)
    assert 'class="band"' in curve
    assert all(step[2] >= 0 for step in steps_in(curve))
    assert any(step[2] > 0 for step in steps_in(curve))


def test_false_alarms_are_counted_on_normal_driving_under_the_sliders():
    curve = np.full(36_000, 0.1)
    curve[::3600] = 0.7
    driving = NormalDriving([curve], 10.0, "an hour of generated driving")
    text = alarms_html(None, driving, AlertRule(0.6, 1, 0.0))
    assert "<b>10 per hour</b>" in text
    assert "60 minutes of an hour of generated driving" in text
    assert "<b>0.0 per hour</b> (with 95 % confidence at most 3.0)" in alarms_html(None, driving, RULE)


def test_without_curves_of_normal_driving_the_rate_is_said_to_be_unknown(watched: Watched):
    text = move_alerts(watched, None, *DEFAULTS)[2]
    assert "not known for this model" in text
    assert "mmattn calibrate crash" in text
    # Three seconds tell nothing about an hour.
    assert "If nothing happened" not in text


def test_attention_to_repeated_boxes_counts_together():
    boxes = np.array([[0, 0, 5, 5], [9, 9, 20, 20], [0, 0, 5, 5]], np.float32)
    sight = Sight(boxes, np.ones(3), ("car", "two_wheeler", "car"), np.array([0.3, 0.45, 0.25]))
    assert attended(sight) == "car 55 %, two wheeler 45 %"
    assert attended(Sight(boxes[:0], np.zeros(0), (), np.zeros(0))) == "the scene"


def test_downloads_hold_numbers_and_video_under_the_current_settings(watched: Watched):
    names = {Path(path).name: Path(path) for path in pack(watched, AlertRule(0.2, 1, 0.0))}
    assert {"drive.mp4.risk.json", "drive.mp4.risk.csv", "drive.mp4.overlay.mp4"} <= set(names)
    content = json.loads(names["drive.mp4.risk.json"].read_text())
    assert content["alert_threshold"] == 0.2
    assert len(content["alerts"]) == 2
    rows = list(csv.DictReader(names["drive.mp4.risk.csv"].open()))
    assert [float(row["risk"]) for row in rows] == pytest.approx(watched.result.risk.tolist(), abs=1e-6)
    with open_video(names["drive.mp4.overlay.mp4"]) as reader:
        assert len(reader) == 30


def test_files_of_a_forgotten_video_are_removed(predictor: CrashPredictor, clip: Path):
    held = watch(predictor, clip)
    folder = held.folder
    assert folder.is_dir()
    del held
    gc.collect()
    assert not folder.exists()


def test_a_missing_or_broken_video_is_a_notice(predictor: CrashPredictor, tmp_path: Path):
    with pytest.raises(gr.Error, match="Give a video first"):
        watch(predictor, None)
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    with pytest.raises(gr.Error, match=r"torn\.mp4"):
        watch(predictor, tmp_path / "torn.mp4")
    with pytest.raises(gr.Error, match="Watch a video first"):
        pack(None, RULE)


def test_a_video_that_is_too_long_is_a_notice(predictor: CrashPredictor, clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clip_module, "MAX_SECONDS", 2)
    with pytest.raises(gr.Error, match="minutes long"):
        watch(predictor, clip)


def test_a_model_without_perception_is_a_notice(predictor: CrashPredictor, clip: Path):
    blind = CrashPredictor(predictor.model, None, device=predictor.device)
    with pytest.raises(gr.Error, match="features"):
        watch(blind, clip)
    with pytest.raises(gr.Error, match="cannot be made from pictures"):
        look(blind, "blind", pictures(1)[0], None, RULE)


def test_before_anything_is_watched_the_page_says_so():
    assert "No video watched yet" in verdict_html(None)
    assert "follows the video" in curve_html(None)
    assert "not running" in live_html(None, RULE)


def stream(predictor: CrashPredictor, frames: list[np.ndarray], rule: AlertRule = RULE, fps: float = 10.0):
    live, views = None, []
    for i, frame in enumerate(frames):
        live, view, status = look(predictor, "tiny", frame, live, rule, now=100.0 + i / fps)
        views.append((view, status))
    return live, views


def test_a_camera_is_scored_as_a_video_of_the_same_frames(predictor: CrashPredictor, clip: Path):
    with open_video(clip) as reader:
        frames = list(reader.get_batch(range(0, 60, 2)))
    live, views = stream(predictor, frames)
    risks = [step.risk for step in live.steps]
    expected = predictor.predict(np.stack(frames)).risk
    np.testing.assert_allclose(risks, expected[: len(risks)], atol=1e-5)
    assert len(risks) >= 29
    assert views[-1][0].shape == (180 + 112, 320, 3)
    assert f"{risks[-1]:.2f}" in views[-1][1]


def test_sliders_move_the_alerts_of_the_camera_too(predictor: CrashPredictor):
    live, _ = stream(predictor, pictures(30))
    last = live.steps[-1].time
    assert live.alerts(AlertRule(0.0, 1, 0.0))[0].time == 0.0
    assert live.alerts(AlertRule(1.0, 1, 0.0)) == []
    assert "0 alerts in the last minute" in live_html(live, AlertRule(1.0, 1, 0.0))
    assert "ALERT" in live_html(live, AlertRule(0.0, round(last * 10) + 1, 0.0))


def test_a_lost_frame_and_a_frame_between_steps_change_no_picture(predictor: CrashPredictor):
    live, _ = stream(predictor, pictures(3))
    same, view, _ = look(predictor, "tiny", None, live, RULE)
    assert same is live
    assert view == gr.skip()
    _, view, _ = look(predictor, "tiny", pictures(1)[0], live, RULE, now=100.0 + 0.2001)
    assert view == gr.skip()


def test_another_model_starts_another_session(predictor: CrashPredictor):
    live, _ = stream(predictor, pictures(3))
    other, _, _ = look(tiny_predictor(2), "other", pictures(1)[0], live, RULE, now=101.0)
    assert other is not live
    assert other.model == "other"


def test_only_the_last_minute_of_a_camera_is_kept(predictor: CrashPredictor):
    live = Live("tiny", predictor.open_session(), 0.0)
    for i, frame in enumerate(pictures(1, 30, 40) * 700):
        live.feed(frame, i / 10)
    assert live.num_steps >= 699
    assert live.steps[-1].time - live.steps[0].time <= REMEMBERED_SECONDS


def test_visitors_do_not_share_a_camera_session(predictor: CrashPredictor):
    first, _ = stream(predictor, pictures(5))
    alone = [step.risk for step in first.steps]
    one, other = None, None
    for i, frame in enumerate(pictures(5)):
        one, _, _ = look(predictor, "tiny", frame, one, RULE, now=i / 10)
        other, _, _ = look(predictor, "tiny", 255 - frame, other, RULE, now=i / 10)
    assert [step.risk for step in one.steps] == pytest.approx(alone, abs=1e-6)


def test_the_page_names_its_one_public_endpoint_and_shows_the_notice(predictor: CrashPredictor):
    app = build_app({"tiny": predictor}, examples=[])
    assert {f.api_name for f in app.fns.values() if f.api_visibility == "public"} == {"watch"}
    texts = [str(getattr(block, "value", "")) for block in app.blocks.values()]
    assert any("Advisory only" in text for text in texts)
    assert any("False alarms per hour" in text for text in texts)


def test_the_hub_shows_it(predictor: CrashPredictor):
    hub = build_hub({"Crash": build_app({"tiny": predictor}, examples=[])})
    labels = [getattr(block, "label", None) for block in hub.blocks.values()]
    assert "Crash" in labels
    assert "Alert threshold (risk)" in labels
