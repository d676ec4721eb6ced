"""Physics of the generated clips: driving, roads, and what counts as a collision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.video.crash.synthetic.world.drivers import brake
from mmattn.video.crash.synthetic.world.physics import (
    FRAMES,
    STATES,
    STEP,
    TIME,
    Agent,
    Push,
    Road,
    Size,
    drive,
    overlap,
    sidestep,
    steer,
    time_to_contact,
    turn_back,
)
from mmattn.video.crash.synthetic.world.scenarios import SCRIPTS

CAR = Size(4.0, 2.0, 1.5)
STRAIGHT = Road(0.0, 3.5, 2, 1)


def car(s: float, d: float, speed: float, direction: float = 0.0, pushes: tuple[Push, ...] = ()) -> Agent:
    return steer(STRAIGHT, "car", CAR, (s, d), direction, drive(speed, pushes))


def test_constant_speed_covers_speed_times_time():
    distance, speed, acceleration = drive(8.0)
    np.testing.assert_allclose(distance, 8.0 * TIME)
    assert (speed == 8.0).all()
    assert (acceleration == 0.0).all()


def test_braking_stops_after_v_squared_over_2a_and_stays_there():
    distance, speed, acceleration = drive(10.0, [Push(1.0, 9.0, -5.0)])
    assert distance[-1] == pytest.approx(10.0 + 100 / 10, abs=0.05)
    assert speed[-1] == 0.0
    assert acceleration[-1] == 0.0
    assert (np.diff(distance) >= 0).all()


@given(st.floats(0, 20), st.lists(st.tuples(st.floats(0, 4), st.floats(0.1, 3), st.floats(-9, 4)), max_size=4))
def test_speed_is_never_negative_and_distance_never_shrinks(speed, pushes):
    distance, speeds, _ = drive(speed, [Push(start, start + length, a) for start, length, a in pushes])
    assert (speeds >= 0).all()
    assert (np.diff(distance) >= 0).all()


def test_brake_lamps_follow_braking_and_standing():
    agent = car(0, 0, 5.0, pushes=(Push(1.0, 9.0, -5.0),))
    assert not agent.braking[:20].any()
    assert agent.braking[21:].all()


def test_sidestep_ends_where_it_should_and_a_turned_back_one_at_zero():
    move = sidestep(3.5, 1.0, 2.0)
    assert move[0] == 0.0
    assert move[-1] == pytest.approx(3.5)
    assert turn_back(move, 2.0, 1.0)[-1] == pytest.approx(0.0)
    assert turn_back(move, 2.0, 1.0).max() == pytest.approx(1.75, abs=0.01)


@pytest.mark.parametrize("curvature", [0.0, 1 / 120, -1 / 90])
def test_a_road_maps_progress_back_to_where_it_came_from(curvature):
    road = Road(curvature, 3.5, 2, 1)
    for s, d in ((0.0, 0.0), (30.0, 3.0), (60.0, -4.0)):
        x, z, _ = road.to_ground(np.array(s), np.array(d))
        assert road.progress(float(x), float(z)) == pytest.approx(s, abs=1e-6)


def test_rectangles_overlap_when_they_share_ground():
    origin = np.array([0.0, 0.0, 0.0])
    assert overlap(origin, CAR, np.array([1.9, 0.0, 0.0]), CAR)
    assert not overlap(origin, CAR, np.array([2.1, 0.0, 0.0]), CAR)
    assert overlap(origin, CAR, np.array([0.0, 2.9, np.pi / 2]), CAR)
    assert not overlap(origin, CAR, np.array([0.0, 3.1, np.pi / 2]), CAR)
    # Their circles meet, the rectangles do not: only the axes of the turned one tell.
    assert not overlap(origin, CAR, np.array([2.6, 2.6, np.pi / 4 + np.pi / 2]), CAR)


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-4, 4), st.floats(-4, 4))
def test_overlap_is_symmetric_and_survives_a_turn_of_the_world(x, z, yaw, turn):
    a, b = np.array([0.0, 0.0, 0.3]), np.array([x, z, yaw])
    turned = np.array([x * np.cos(turn) + z * np.sin(turn), z * np.cos(turn) - x * np.sin(turn), yaw + turn])
    expected = overlap(a, CAR, b, Size(8.0, 2.5, 3.0))
    assert overlap(b, Size(8.0, 2.5, 3.0), a, CAR) == expected
    # Not at the very border, where rounding decides.
    grown, shrunk = Size(8.01, 2.51, 3.0), Size(7.99, 2.49, 3.0)
    if overlap(a, CAR, b, grown) == overlap(a, CAR, b, shrunk):
        assert overlap(np.array([0.0, 0.0, 0.3 + turn]), CAR, turned, Size(8.0, 2.5, 3.0)) == expected


def test_time_to_contact_is_gap_over_closing_speed():
    times = time_to_contact(car(0, 0, 10.0), car(24.0, 0, 0.0))
    assert times.shape == (FRAMES,)
    assert times[0] == pytest.approx(20.0 / 10.0, abs=0.11)
    assert times[10] == pytest.approx(1.0, abs=0.11)


def test_vehicles_that_pass_beside_each_other_never_collide():
    assert np.isinf(time_to_contact(car(0, 0, 10.0), car(40.0, 3.5, 10.0, np.pi))).all()


def test_whoever_is_to_collide_brakes_in_the_last_six_tenths_or_not_at_all():
    rng = np.random.default_rng(0)
    drawn = [brake(rng, "collision", 3.0, 10.0) for _ in range(200)]
    assert any(not pushes for pushes in drawn)
    assert all(2.4 <= push.start <= 2.85 for pushes in drawn for push in pushes)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_every_script_gives_whole_trajectories_with_the_ego_vehicle_first(kind):
    draft = SCRIPTS[kind](np.random.default_rng(1), "clear")
    assert all(agent.pose.shape == (STATES, 3) and np.isfinite(agent.pose).all() for agent in draft.agents)
    assert len(set(draft.parties)) == 2
    assert max(draft.parties) < len(draft.agents)
    travelled = np.linalg.norm(np.diff(draft.agents[0].pose[:, :2], axis=0), axis=1) / STEP
    assert travelled.max() < 25
