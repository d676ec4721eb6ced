"""Results: what is saved can be read again, and alerts move without the model."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmattn.media.image import read_image
from mmattn.media.video import open_video
from mmattn.video.crash.results import CrashResult, fit_picture
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.video.crash.stream.frame_risk import Sight
from tests.video.crash.tiny_door import drive, glancing_predictor, write_drive

RISK = [0.1, 0.2, 0.7, 0.8, 0.9, 0.3, 0.2, 0.1]


def sight(count: int = 3) -> Sight:
    boxes = np.array([[10, 10, 30, 40], [40, 5, 60, 30], [0, 0, 5, 5]], np.float32)[:count]
    return Sight(boxes, np.array([0.9, 0.8, 0.4], np.float32)[:count], ("car", "truck", "car")[:count],
                 np.array([0.2, 0.7, 0.1], np.float32)[:count])  # fmt: skip


def result(**changes) -> CrashResult:
    facts = {
        "times": np.arange(8) / 10, "risk": np.array(RISK), "sights": [sight(i % 4) for i in range(8)],
        "sources": np.arange(8), "size": (66, 90), "fps": 10.0, "rule": AlertRule(0.6, 3, 2.0), "video": drive(8),
    }  # fmt: skip
    return CrashResult(**{**facts, **changes})


def test_saving_writes_everything_under_the_inputs_name(tmp_path: Path):
    paths = result().save(tmp_path, "drive.mp4")
    kinds = ["overlay.mp4", "risk.json", "risk.csv", "curve.png", "result.npz", "peak.png"]
    assert [path.name for path in paths] == [f"drive.mp4.{kind}" for kind in kinds]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_the_json_has_the_risk_of_every_step_the_alerts_and_the_attended_road_users(tmp_path: Path):
    result().save(tmp_path, "x")
    saved = json.loads((tmp_path / "x.risk.json").read_text())
    assert saved["risk"] == RISK
    assert saved["alerts"] == [{"frame": 4, "time": 0.4, "start": 0.2, "risk": 0.9}]
    assert (saved["label"], saved["score"], saved["sustained_risk"], saved["peak_seconds"]) == ("alert", 0.9, 0.7, 0.4)
    assert [step["road_users"] for step in saved["steps"]] == [0, 1, 2, 3, 0, 1, 2, 3]
    most = saved["steps"][3]["attended"][0]
    assert most == {"box": [40.0, 5.0, 60.0, 30.0], "class": "truck", "score": 0.8, "attention": 0.7}
    assert "std" not in saved["steps"][0]


def test_the_table_has_a_line_per_step(tmp_path: Path):
    result(uncertainty=np.full(8, 0.25)).save(tmp_path, "x")
    rows = list(csv.DictReader((tmp_path / "x.risk.csv").open()))
    assert [float(row["risk"]) for row in rows] == RISK
    assert [row["alert"] for row in rows] == list("00001000")
    assert rows[2] == {"seconds": "0.200", "risk": "0.700000", "std": "0.250000", "road_users": "2", "alert": "0"}


def test_the_npz_has_the_names_of_ustrings_results(tmp_path: Path):
    result(uncertainty=np.full(8, 0.5)).save(tmp_path, "x")
    with np.load(tmp_path / "x.result.npz", allow_pickle=False) as saved:
        assert set(saved.files) == {"score", "det", "epistemic", "attention", "times", "classes"}
        np.testing.assert_allclose(saved["score"], RISK, rtol=1e-6)
        assert saved["det"].shape == (8, 3, 6)
        np.testing.assert_allclose(saved["det"][3, 1], [40, 5, 60, 30, 0.8, 1], rtol=1e-6)
        assert not saved["det"][0].any()
        np.testing.assert_allclose(saved["epistemic"], 0.25)
        assert saved["classes"].tolist() == ["car", "truck"]


def test_the_overlay_has_a_frame_per_step_with_a_panel_below(tmp_path: Path):
    result().save(tmp_path, "x")
    with open_video(tmp_path / "x.overlay.mp4") as video:
        assert len(video) == 8
        assert video.fps == pytest.approx(10)
        height, width = video.size
        frames = video.get_batch(range(8))
    assert (height, width) == (236 + 112, 320)
    frame = read_image(tmp_path / "x.peak.png")
    # the border of an alert, raised in this very frame
    assert np.abs(frame[3, 200].astype(int) - [230, 99, 22]).max() < 3
    assert np.abs(frames[1, 3, 200].astype(int) - [230, 99, 22]).max() > 60


def test_pictures_of_a_file_are_read_again_when_the_overlay_is_written(tmp_path: Path):
    video = write_drive(tmp_path / "drive.mp4", 8)
    own = list(result(video=video).overlay_frames())
    assert len(own) == 8
    kept = list(result().overlay_frames())
    assert np.abs(own[5][60:120, 100:300].astype(int) - kept[5][60:120, 100:300]).mean() < 12


def test_without_pictures_or_on_request_there_is_no_overlay(tmp_path: Path):
    for changes in ({"video": None}, {"overlay": False}):
        paths = result(**changes).save(tmp_path, "x")
        assert [path.suffix for path in paths] == [".json", ".csv", ".png", ".npz"]


def test_alerts_move_with_the_rule_alone():
    found = result()
    assert [alert.frame for alert in found.alerts] == [4]
    assert [alert.frame for alert in replace(found, rule=AlertRule(0.6, 1, 0.0)).alerts] == [2]
    assert replace(found, rule=AlertRule(0.95, 1, 0.0)).to_json()["label"] == "no alert"


def test_alerts_are_those_of_the_session_also_across_a_new_start():
    predictor = glancing_predictor(alert_threshold=0.0, persistence=3, cooldown=0.0)
    frames = drive(12)
    times = [i / 10 if i < 5 else 4 + i / 10 for i in range(12)]
    steps = predictor.open_session().feed(frames, times)
    found = CrashResult.of_steps(steps, size=(66, 90), fps=10.0, rule=predictor.rule)
    assert found.restarts == (pytest.approx(4.5),)
    assert found.alerts == [step.alert for step in steps if step.alert]
    assert [alert.frame for alert in found.alerts] == [2, 7]


def test_the_curve_is_a_picture_and_many_alerts_are_not_all_named():
    assert result().plot().shape == (300, 800, 3)
    risk = np.tile([0.9, 0.0], 40)
    many = result(times=np.arange(80) / 10, risk=risk, rule=AlertRule(0.6, 1, 0.0))
    assert len(many.alerts) == 40
    assert many.plot().shape == (300, 800, 3)


def test_one_step_makes_a_whole_result(tmp_path: Path):
    one = result(times=np.zeros(1), risk=np.array([0.4]), sights=[sight()], sources=np.zeros(1, int), video=drive(1))
    assert len(one.save(tmp_path, "x")) == 6


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((2160, 3840), (540, 960)), ((1920, 1080), (960, 540)), ((66, 90), (235, 320)), ((540, 960), (540, 960))],
)
def test_pictures_are_fitted_to_what_can_be_looked_at(size: tuple[int, int], fitted: tuple[int, int]):
    picture, scale = fit_picture(np.zeros((*size, 3), np.uint8))
    assert picture.shape[:2] == fitted
    assert scale == pytest.approx(fitted[1] / size[1])


def test_first_steps_are_left_out_of_score_and_peak_unless_there_are_no_others():
    risk = np.array([0.95, 0.2, 0.3, 0.4, 0.5, 0.3, 0.2, 0.1])
    late = np.arange(8) >= 2
    assert (result(risk=risk).score, result(risk=risk).peak) == (0.95, 0)
    settled = result(risk=risk, settled=late)
    assert (settled.score, settled.peak) == (0.5, 4)
    assert (settled.to_json()["peak_seconds"], settled.to_json()["transient_steps"]) == (0.4, 2)
    assert result(risk=risk, settled=np.zeros(8, bool)).score == 0.95


def test_a_result_says_why_it_should_not_be_trusted(tmp_path: Path):
    doubtful = result(settled=np.zeros(8, bool), slots=12, sights=[sight(0)] * 8)
    saved = doubtful.to_json()["warnings"]
    assert [warning["code"] for warning in saved] == ["too_short", "no_road_users"]
    assert "Road users not recognised" in saved[1]["message"]
    plain = next(iter(result().overlay_frames()))
    noted = next(iter(doubtful.overlay_frames()))
    assert (plain[:300] != noted[:300]).any()
    assert result(slots=12).doubts == ()
