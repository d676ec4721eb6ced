"""Sessions: streaming equals batch, bad frames are survived, gaps start over, memory stays."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.errors import InputError
from mmattn.video.crash.stream.frame_risk import FrameRisk
from mmattn.video.crash.stream.session import MAX_SIDE
from tests.video.crash.tiny import clips, tiny_model
from tests.video.crash.tiny_door import drive, glancing_predictor


def risks(steps: list[FrameRisk]) -> list[float]:
    return [step.risk for step in steps]


@pytest.mark.parametrize("architecture", ["crash", "gru", "dsta"])
def test_features_fed_one_by_one_give_the_batch_result(architecture: str):
    predictor = glancing_predictor()
    predictor.model = tiny_model(architecture=architecture)
    features = clips(1, 12)
    with torch.no_grad():
        expected = predictor.model(features).logits.softmax(-1)[0, :, 1]
    session = predictor.open_session()
    steps = [step for frame in features[0].numpy() for step in session.feed_features(frame)]
    np.testing.assert_allclose(risks(steps), expected, atol=1e-5)
    np.testing.assert_allclose([step.time for step in steps], np.arange(12) / 10)


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_how_a_stream_is_cut_changes_nothing(size: int):
    frames = drive(40)
    times = np.arange(40) / 25
    whole = glancing_predictor().open_session().feed(frames, times)
    session = glancing_predictor().open_session()
    pieces = [step for i in range(0, 40, size) for step in session.feed(frames[i : i + size], times[i : i + size])]
    np.testing.assert_allclose(risks(pieces), risks(whole), atol=1e-6)
    assert [step.source for step in pieces] == [step.source for step in whole]
    assert len(whole) == 16


def test_perception_sees_only_the_frames_that_steps_read_at_their_own_times():
    predictor = glancing_predictor()
    predictor.open_session(fps=30.0).feed(drive(30))
    times = [time for time, _ in predictor.perception.shown]
    np.testing.assert_allclose(times, np.arange(0, 30, 3) / 30)


def test_frames_without_times_count_on_at_the_sessions_rate():
    session = glancing_predictor().open_session(fps=5.0)
    steps = session.feed(drive(2)) + session.feed(drive(1)[0])
    assert [round(step.time, 6) for step in steps] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [step.source for step in steps] == [0, 0, 1, 1, 2]


BAD = {
    "lost": (None, "it was lost"),
    "grey": (np.zeros((66, 90), np.uint8), "it is uint8 (66, 90), expected uint8 (H, W, 3)"),
    "float": (np.full((66, 90, 3), np.nan, np.float32), "it is float32 (66, 90, 3)"),
    "empty": (np.zeros((0, 90, 3), np.uint8), "it is uint8 (0, 90, 3)"),
    "text": ("frame", "it is a str"),
    "size": (np.zeros((90, 66, 3), np.uint8), "it is 66 x 90 pixels, the frames before were 90 x 66"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_frame_is_left_out_and_the_frame_before_stands_in(kind: str):
    bad, reason = BAD[kind]
    frames: list = drive(12)
    frames[5] = bad
    session = glancing_predictor().open_session()
    steps = [step for frame, i in zip(frames, range(12), strict=True) for step in session.feed([frame], [i / 10])]
    assert [step.source for step in steps] == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 11]
    assert session.gate.num_bad == 1
    (problem,) = session.gate.problems
    assert problem.source == 5
    assert reason in problem.reason
    held = drive(12)
    held[5] = held[4]
    assert risks(steps)[:5] == pytest.approx(risks(glancing_predictor().open_session().feed(held[:5])))
    assert np.isfinite(risks(steps)).all()


def test_a_frame_that_comes_out_of_order_is_left_out():
    session = glancing_predictor().open_session()
    session.feed(drive(3), [0.0, 0.1, 0.2])
    assert session.feed(drive(1)[0], 0.1) == []
    assert "its time, 0.1 s, is not after that of the frame before, 0.2 s" in session.gate.problems[0].reason
    assert session.feed(drive(1)[0], float("nan")) == []
    assert len(session.feed(drive(1)[0], 0.3)) == 1


def test_steps_before_the_first_good_frame_fall_away():
    session = glancing_predictor().open_session()
    assert session.feed([None, None], [0.0, 0.1]) == []
    assert [step.time for step in session.feed(drive(1)[0], 0.2)] == [0.2]


def test_a_size_that_stays_starts_the_session_over():
    predictor = glancing_predictor()
    session = predictor.open_session()
    session.feed(drive(6))
    wide = drive(10, 50, 120)
    steps = session.feed(wide)
    assert [step.restarted for step in steps] == [True, False, False, False, False, False]
    assert steps[0].source == 10
    assert predictor.perception.opened == 2
    fresh = glancing_predictor().open_session().feed(wide[4:])
    assert risks(steps) == pytest.approx(risks(fresh), abs=1e-6)
    assert session.gate.num_bad == 4


def test_a_short_gap_keeps_the_state_and_a_long_one_starts_over():
    frames = drive(12)
    session = glancing_predictor().open_session()
    short = session.feed(frames, [i / 10 if i < 6 else 0.8 + i / 10 for i in range(12)])
    assert not any(step.restarted for step in short)
    assert [step.source for step in short] == [0, 1, 2, 3, 4, *[5] * 5, *[6] * 5, 7, 8, 9, 10, 11]
    session = glancing_predictor().open_session()
    long = session.feed(frames, [i / 10 if i < 6 else 3 + i / 10 for i in range(12)])
    assert [step.time for step in long if step.restarted] == [pytest.approx(3.6)]
    assert len(long) == 12
    assert risks(long)[6:] == pytest.approx(risks(glancing_predictor().open_session().feed(frames[6:])), abs=1e-6)


def test_a_run_of_high_risk_does_not_cross_a_new_start():
    predictor = glancing_predictor(alert_threshold=0.0, persistence=4, cooldown=0.0)
    frames = drive(6)
    steps = predictor.open_session().feed(frames, [0.0, 0.1, 0.2, 5.0, 5.1, 5.2])
    assert [step.alert for step in steps] == [None] * 6
    steps = predictor.open_session().feed(frames, np.arange(6) / 10)
    assert [step.source for step in steps if step.alert] == [3]


def test_large_pictures_are_reduced_and_boxes_come_back_in_their_pixels():
    predictor = glancing_predictor()
    (step,) = predictor.open_session().feed(np.zeros((2160, 3840, 3), np.uint8))
    assert predictor.perception.shown[0][1] == (720, MAX_SIDE, 3)
    np.testing.assert_allclose(step.sight.boxes, [[960, 540, 1920, 1080]], atol=0.5)


def test_features_of_another_width_are_refused_and_those_with_nan_left_out():
    session = glancing_predictor().open_session()
    with pytest.raises(InputError, match=r"Features have shape \(1, 5, 13\), expected \(steps, 5, 12\)"):
        session.feed_features(np.zeros((5, 13)))
    features = clips(1, 4)[0].numpy()
    features[2, 1, 3] = np.nan
    steps = session.feed_features(features)
    assert [step.source for step in steps] == [0, 1, 3]
    assert session.gate.problems[0].reason == "its features are not finite numbers"


def test_attention_belongs_to_the_boxes_that_were_seen():
    steps = glancing_predictor().open_session().feed(drive(3))
    for step in steps:
        assert step.sight.attention.shape == (1,)
        assert step.sight.attention[0] == pytest.approx(1, abs=1e-5)
        assert step.sight.classes == ("car",)


def test_a_saved_session_goes_on_exactly(tmp_path: Path):
    predictor = glancing_predictor(alert_threshold=0.0, persistence=6, cooldown=0.0)
    features = clips(1, 12)[0].numpy()
    whole = predictor.open_session().feed_features(features)
    first = predictor.open_session()
    steps = first.feed_features(features[:5])
    saved = first.save(tmp_path / "drive.session")
    second = predictor.load_session(saved)
    steps += second.feed_features(features[5:])
    assert risks(steps) == pytest.approx(risks(whole), abs=1e-6)
    assert [step.time for step in steps] == pytest.approx([step.time for step in whole])
    alerts = [[step.alert for step in some if step.alert] for some in (steps, whole)]
    assert [alert.frame for alert in alerts[0]] == [alert.frame for alert in alerts[1]] != []
    assert second.gate.num_fed == 12


def test_a_saved_session_goes_on_with_pictures(tmp_path: Path):
    predictor = glancing_predictor()
    first = predictor.open_session()
    first.feed(drive(5))
    second = predictor.load_session(first.save(tmp_path / "s"))
    steps = second.feed(drive(3))
    assert [round(step.time, 6) for step in steps] == [0.5, 0.6, 0.7]


def test_files_that_are_no_session_of_this_model_are_refused(tmp_path: Path):
    predictor = glancing_predictor()
    (tmp_path / "x").write_text("no")
    for name in ("x", "missing"):
        with pytest.raises(InputError, match="is no saved session"):
            predictor.load_session(tmp_path / name)
    saved = predictor.open_session().save(tmp_path / "s")
    predictor.model = tiny_model(hidden_dim=32, grid=(8, 4))
    with pytest.raises(InputError, match=r"is the session of another model: its state is \(2, 1, 16\)"):
        predictor.load_session(saved)


def test_a_closed_session_and_a_model_without_perception_say_so():
    predictor = glancing_predictor()
    session = predictor.open_session()
    session.close()
    with pytest.raises(InputError, match="This session is closed"):
        session.feed(drive(1))
    predictor.perception = None
    with pytest.raises(InputError, match="features that cannot be made from pictures"):
        predictor.open_session().feed(drive(1))
    with pytest.raises(InputError, match="fps is -1"):
        predictor.open_session(fps=-1)
    with pytest.raises(InputError, match="2 frames came with 1 times"):
        predictor.open_session().feed_features(clips(1, 2)[0].numpy(), times=[0.0])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream():
    session = glancing_predictor().open_session()
    frame = drive(1)[0]

    def feed(count: int, start: int) -> tuple[int, int]:
        """Returns the objects and the numbers in tensors that are alive afterwards."""
        for i in range(start, start + count):
            session.feed(frame if i % 7 else None, i / 10)
            session.perception.shown.clear()
        gc.collect()
        alive = gc.get_objects()
        return len(alive), sum(thing.numel() for thing in alive if type(thing) is torch.Tensor)

    feed(150, 0)
    before = feed(10, 150)
    after = feed(60, 160)
    assert after[1] == before[1]
    assert after[0] - before[0] < 30  # fewer than one for every two steps
    assert session.num_steps > 210
