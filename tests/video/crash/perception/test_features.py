"""Features of road users and pairs: named, bounded, and telling a collision course from none."""

import numpy as np
import pytest

from mmattn.video.crash.perception.features import (
    BOX_FEATURES,
    FEATURES,
    FRAME_FEATURES,
    View,
    danger_of,
    describe,
    ego_gap,
    pair_gaps,
)
from mmattn.video.crash.perception.tracking import Tracker
from tests.video.crash.perception.test_tracking import seen

VIEW = View(320, 180, 83.0)


def features_of(*users, ego_speed=10.0, kind=0, slots=12):
    tracker = Tracker(velocity_noise=(0.3, 0.3))
    for t in range(6):
        moved = [(x + vx * t / 10, z + vz * t / 10, vx, vz) for x, z, vx, vz in users]
        tracks = tracker.update(t / 10, seen(*moved, kind=kind))
    return describe(tracks, ego_speed, 0.0, VIEW, slots)


def value(row, name):
    return row[BOX_FEATURES.index(name)]


def test_names_are_unique_and_fill_the_vector():
    assert len(set(BOX_FEATURES + FRAME_FEATURES)) == FEATURES
    features, order = features_of((0.0, 20.0, 0.0, -5.0))
    assert features.shape == (2, FEATURES)
    assert order.tolist() == [0]


def test_frame_and_boxes_never_share_a_feature():
    features, _ = features_of((0.0, 20.0, 0.0, -5.0), (3.0, 30.0, 0.0, 0.0))
    split = len(BOX_FEATURES)
    assert not features[0, :split].any()
    assert not features[1:, split:].any()
    assert features[0, split] == 1.0


def test_an_empty_frame_has_a_frame_slot_alone():
    features, order = describe(Tracker().update(0.0, seen()), 5.0, 0.0, VIEW, 12)
    assert features.shape == (1, FEATURES)
    assert len(order) == 0
    assert features[0, len(BOX_FEATURES) + 2] == 0.5


def test_a_collision_course_with_the_ego_is_more_dangerous_than_passing_beside():
    (_, towards), _ = features_of((0.0, 15.0, 0.0, -10.0))
    (_, beside), _ = features_of((4.0, 15.0, 0.0, -10.0))
    assert value(towards, "ego_steady_least") <= 0
    assert value(beside, "ego_steady_least") > 0.3
    assert value(towards, "ego_steady_danger") > 2 * value(beside, "ego_steady_danger")
    assert value(towards, "ego_steady_when") == pytest.approx(0.6, abs=0.21)


def test_two_others_on_a_collision_course_are_seen_as_a_pair():
    features, _ = features_of((-8.0, 25.0, 8.0, 0.0), (0.0, 17.0, 0.0, 8.0), ego_speed=8.0)
    for row in features[1:]:
        assert value(row, "partner") == 1.0
        assert value(row, "pair_steady_least") <= 0
        assert value(row, "partner_closing") > 1.0
    apart, _ = features_of((-8.0, 25.0, -8.0, 0.0), (0.0, 17.0, 0.0, 8.0), ego_speed=8.0)
    assert value(apart[1], "pair_steady_danger") < 0.2 * value(features[1], "pair_steady_danger")


def test_the_most_endangered_get_the_slots():
    features, order = features_of((6.0, 40.0, 0.0, 0.0), (0.0, 10.0, 0.0, -8.0), (-6.0, 50.0, 0.0, 0.0), slots=2)
    assert len(order) == 2
    assert order[0] == 1
    assert value(features[1], "z") < value(features[2], "z")


def test_a_standing_road_user_has_no_speed_over_ground():
    (_, parked), _ = features_of((3.0, 25.0, 0.0, -10.0), ego_speed=10.0)
    assert value(parked, "speed") == pytest.approx(0.0, abs=0.05)


def test_gaps_are_between_outlines_not_centres():
    car = np.array([0])
    ends = np.array([[[0.0, 1.25], [0.0, -1.25]]])
    ahead = np.zeros((1, 7, 2)) + np.array([0.0, 10.0])
    expected = 10.0 - 1.25 - (4.4 / 2 - 0.5) - 0.9
    np.testing.assert_allclose(ego_gap(ahead, ends, car), expected)
    both = np.concatenate([ahead, ahead + np.array([4.0, 0.0])])
    gaps = pair_gaps(both, np.repeat(ends, 2, 0), np.array([0, 0]))
    np.testing.assert_allclose(gaps[0, 1], 4.0 - 1.8)
    assert (gaps[0, 0] == 30.0).all()


def test_danger_falls_with_time_and_is_a_tenth_for_what_stays_where_it_is():
    later, beside = np.full(7, 30.0), np.full(7, 0.3)
    later[3] = 0.0
    assert danger_of(later) == pytest.approx(np.exp(-1.2 / 1.5))
    assert danger_of(beside) == pytest.approx(0.1 * np.exp(-0.3 / 1.5))
