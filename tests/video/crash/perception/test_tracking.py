"""Tracks: identities through gaps, and motion on the ground."""

from dataclasses import replace

import numpy as np
import pytest

from mmattn.video.crash.perception.embedded import EgoSpeed
from mmattn.video.crash.perception.tracking import Detections, Tracker, affinity


def seen(*users: tuple[float, float, float, float], kind: int = 0, lamp: float = 0.0) -> Detections:
    """Detections of road users given as right, forward, right velocity, forward velocity."""
    state = np.array(users, float).reshape(-1, 4)
    u, half = 160 + 176 * state[:, 0] / state[:, 1], 88 * 1.8 / state[:, 1]
    bottom = 83 + 176 * 1.3 / state[:, 1]
    box = np.stack([u - half, bottom - 1.6 * half, u + half, bottom], 1)
    n = len(state)
    heading = np.tile([0.0, 1.0], (n, 1))
    return Detections(
        box, np.full(n, 0.9), np.full(n, kind), state[:, :2], heading, np.full(n, lamp), state[:, 2:],
        np.zeros((n, 3), bool),
    )  # fmt: skip


def test_a_road_user_keeps_its_number_through_two_missed_frames():
    tracker = Tracker()
    numbers = []
    for t in range(10):
        gone = t in (4, 5)
        tracks = tracker.update(t / 10, seen((0.0, 20.0 - t / 2, 0, -5)) if not gone else seen())
        numbers.append(tracks.number.tolist())
    assert numbers == [[0]] * 10


def test_a_road_user_that_was_gone_for_long_is_another_one():
    tracker = Tracker()
    tracker.update(0.0, seen((0.0, 20.0, 0, 0)))
    assert len(tracker.update(0.6, seen())) == 0
    assert tracker.update(0.7, seen((0.0, 20.0, 0, 0))).number.tolist() == [1]


def test_two_that_pass_each_other_keep_their_numbers():
    tracker = Tracker()
    for t in range(12):
        x = -2.2 + 0.4 * t
        tracks = tracker.update(t / 10, seen((x, 12.0, 4, 0), (-x, 24.0, -4, 0)))
    assert tracks.number.tolist() == [0, 1]
    np.testing.assert_allclose(tracks.position, [[2.2, 12.0], [-2.2, 24.0]], atol=0.3)


@pytest.mark.parametrize("moves", [-4.0, 4.0])
def test_who_is_seen_from_the_side_faces_where_the_track_goes(moves: float):
    tracker = Tracker()
    for t in range(8):
        far = seen((moves * t / 10, 15.0, 0.0, 0.0))
        box = far.box + np.array([-20.0, 0, 20, 0])  # more than twice as wide as high
        tracks = tracker.update(t / 10, replace(far, box=box, heading=np.array([[0.0, 0.4]])))
    np.testing.assert_allclose(tracks.heading, [[np.sign(moves), 0.0]], atol=1e-9)


def test_an_unsure_heading_counts_as_far_as_it_is_sure():
    tracker = Tracker()
    for t, heading in enumerate([[0.1, -0.1], [0.0, 1.0], [0.0, 0.9]]):
        tracks = tracker.update(t / 10, replace(seen((0.0, 20.0, 0.0, 0.0)), heading=np.array([heading])))
    np.testing.assert_allclose(tracks.heading, [np.array([0.1, 1.8]) / np.hypot(0.1, 1.8)], atol=1e-9)


def test_position_velocity_and_acceleration_are_those_of_the_motion():
    tracker = Tracker(velocity_noise=(0.5, 0.5))
    for t in range(14):
        now = t / 10
        z, v = 30 - 8 * now + 2 * now**2, -8 + 4 * now
        tracks = tracker.update(now, seen((1.0 + 0.5 * now, z, 0.5, v)))
    assert tracks.position[0] == pytest.approx([1.65, 22.98], abs=0.1)
    assert tracks.velocity[0] == pytest.approx([0.5, -2.8], abs=0.3)
    assert tracks.acceleration[0] == pytest.approx([0.0, 4.0], abs=0.8)
    assert tracks.age[0] == pytest.approx(1.3)


def test_lamps_are_remembered_for_half_a_second_and_the_half_before():
    tracker = Tracker()
    for t in range(12):
        tracks = tracker.update(t / 10, seen((0.0, 20.0, 0, 0), lamp=float(t >= 6)))
    assert tracks.lamp[0].tolist() == [1.0, 1.0, 0.0]


def test_image_rates_are_relative_to_the_width():
    tracker = Tracker()
    for t in range(5):
        tracks = tracker.update(t / 10, seen((0.0, 20.0 * np.exp(-0.5 * t / 10), 0, -10)))
    assert tracks.image[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert tracks.image[0, 2] == pytest.approx(0.5, abs=1e-6)


def test_more_road_users_than_a_tracker_holds_leave_the_best():
    many = seen(*((x, 30.0, 0.0, 0.0) for x in np.linspace(-60, 60, 300)))
    assert len(Tracker().update(0.0, many)) == 48


def test_affinity_is_one_for_the_same_box_and_falls_with_distance():
    box = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    score = affinity(box, box)
    assert score[0, 0] == pytest.approx(1.0)
    assert score[0, 1] == pytest.approx(-0.7)


def test_the_cameras_speed_is_smooth_and_its_change_has_the_right_sign():
    speed = EgoSpeed()
    for t in range(20):
        value, change = speed.update(t / 10, 12.0 - 4.0 * t / 10)
    assert value == pytest.approx(12.0 - 4.0 * 1.8, abs=1e-9)
    assert change == pytest.approx(-4.0, abs=0.5)
