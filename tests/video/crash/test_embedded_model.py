"""The CRASH that ships: small enough, described, and right about its own samples."""

import re
from pathlib import Path

import numpy as np
import pytest

import mmattn
from mmattn.errors import InputError
from mmattn.media.video import open_video
from mmattn.video.crash.config import CrashInferOptions
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.video.crash.stream.normal_driving import NormalDriving

ASSETS = Path(mmattn.__file__).parent / "assets" / "crash"
ACCIDENTS = {"rear_end_collision": 3.2, "crossing_others_collision": 4.1, "pedestrian_collision": 4.2}  # seconds


@pytest.fixture(scope="module")
def predictor() -> CrashPredictor:
    return CrashPredictor.from_pretrained("embedded", device="cpu")


def test_it_is_small_and_its_card_has_its_numbers():
    assert sum(path.stat().st_size for path in ASSETS.glob("model.safetensors")) < 16 * 2**20
    card = (ASSETS / "README.md").read_text(encoding="utf-8")
    assert "simulator is not the road" in card
    assert re.search(r"CRASH as shipped.*0\.925.*0\.670", card)


@pytest.mark.parametrize("name", list(ACCIDENTS))
def test_accidents_among_its_samples_are_seen_before_they_happen(predictor: CrashPredictor, name: str):
    result = predictor.predict(ASSETS / "samples" / f"{name}.mp4")
    assert len(result.alerts) >= 1
    assert 0.2 < ACCIDENTS[name] - result.alerts[0].time < 2.5
    assert result.risk[:10].max() < 0.5


@pytest.mark.parametrize("name", ["cut_in_near", "quiet_traffic"])
def test_clips_without_an_accident_raise_no_alert(predictor: CrashPredictor, name: str):
    result = predictor.predict(ASSETS / "samples" / f"{name}.mp4")
    assert list(result.alerts) == []
    assert result.score < 0.6


def test_a_stream_of_frames_gives_the_risks_of_the_file(predictor: CrashPredictor):
    path = ASSETS / "samples" / "quiet_traffic.mp4"
    whole = predictor.predict(path)
    with open_video(path) as reader:
        frames, times = reader.get_batch(list(range(20))), reader.timestamps[:20]
    session = predictor.open_session(fps=10)
    steps = [step for frame, time in zip(frames, times, strict=True) for step in session.feed([frame], [time])]
    np.testing.assert_allclose([step.risk for step in steps], whole.risk[: len(steps)], atol=1e-5)
    assert len(steps) == 20


def test_its_quiet_footage_says_how_often_it_cries_wolf(predictor: CrashPredictor):
    quiet = NormalDriving.load(ASSETS)
    assert quiet is not None
    assert len(quiet.curves) == 146
    usual = CrashInferOptions()
    rules = [AlertRule(threshold, usual.persistence, usual.cooldown) for threshold in (0.9, 0.2)]
    few, many = (quiet.false_alarms(rule) for rule in rules)
    assert few.per_hour < many.per_hour


def test_boxes_of_another_detector_are_refused(tmp_path: Path):
    (tmp_path / "boxes.csv").write_text("frame,x1,y1,x2,y2,score\n0,1,1,20,20,0.9\n")
    options = CrashInferOptions(boxes=str(tmp_path / "boxes.csv"))
    with pytest.raises(InputError):
        CrashPredictor.from_pretrained("embedded", device="cpu", options=options).predict(
            ASSETS / "samples" / "quiet_traffic.mp4"
        )


def test_an_accident_after_five_seconds_of_calm_raises_the_alert_of_the_accident_alone(predictor: CrashPredictor):
    both = predictor.predict(Path(__file__).parent / "quiet_then_rear_end.mp4")
    alone = predictor.predict(ASSETS / "samples" / "rear_end_collision.mp4")
    before_contact = [alert.time for alert in alone.alerts if alert.time < ACCIDENTS["rear_end_collision"]]
    assert len(before_contact) == 1
    assert both.alerts[0].time == pytest.approx(before_contact[0] + 5.0, abs=0.2)
    assert both.risk[both.times < 5].max() < 0.6


@pytest.mark.parametrize("name", [*ACCIDENTS, "cut_in_near", "quiet_traffic", "crossing_near"])
def test_its_own_samples_are_not_doubted(predictor: CrashPredictor, name: str):
    assert predictor.predict(ASSETS / "samples" / f"{name}.mp4").doubts == ()
