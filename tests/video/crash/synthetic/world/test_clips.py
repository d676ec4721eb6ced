"""The generated clips: what was promised about labels, near misses, visibility and splits."""

from itertools import pairwise

import numpy as np
import pytest

from mmattn.video.crash.synthetic.world.clips import NEAR, SPLITS, TYPES, draw_clip, plan
from mmattn.video.crash.synthetic.world.physics import FRAMES, overlap, time_to_contact
from mmattn.video.crash.synthetic.world.scenarios import HELD_OUT


@pytest.fixture(scope="module")
def clips():
    return [draw_clip("val", 9_000 + number) for number in range(45)]


def touching(clip, pair, until):
    a, b = (clip.agents[i] for i in pair)
    return overlap(a.pose[:until], a.size, b.pose[:until], b.size)


def test_a_third_of_a_split_are_accidents_and_45_percent_of_the_rest_near_misses():
    outcomes = [plan("train", number)[2] for number in range(600)]
    assert outcomes.count("collision") == 200
    assert outcomes.count("near") == 180


def test_accidents_touch_first_at_their_frame_and_nobody_else_touches(clips):
    accidents = [clip for clip in clips if clip.label]
    assert len(accidents) == 15
    for clip in accidents:
        state = 2 * clip.accident
        assert not touching(clip, clip.parties, state).any()
        assert touching(clip, clip.parties, state + 2).any()
        assert 20 <= clip.accident <= 48
        assert clip.toa == clip.accident


def test_clips_without_accident_never_touch_and_near_misses_come_within_a_second(clips):
    for clip in clips:
        if clip.label:
            continue
        assert clip.toa == FRAMES + 1
        assert not touching(clip, clip.parties, 100).any()
        assert (clip.ttc < 1.0) == (clip.outcome == "near")
        assert 20 <= clip.ref <= 48
        if clip.outcome == "near":
            a, b = (clip.agents[i] for i in clip.parties)
            assert time_to_contact(a, b)[clip.ref] == pytest.approx(clip.ttc, abs=0.1)
            assert clip.ttc >= NEAR[0]


def test_who_collides_is_seen_in_the_second_before(clips):
    for clip in clips:
        if clip.label:
            for party in set(clip.parties) - {0}:
                frames = clip.seen.frame[clip.seen.agent == party]
                assert ((frames >= clip.accident - 12) & (frames < clip.accident)).sum() >= 9


def test_boxes_lie_inside_the_picture_in_the_order_of_frames(clips):
    for clip in clips[:10]:
        seen = clip.seen
        assert (np.diff(seen.frame) >= 0).all()
        assert (seen.box >= 0).all()
        assert (seen.box[:, [0, 2]] <= 320).all()
        assert (seen.box[:, [1, 3]] <= 180).all()
        assert (seen.box[:, 2:] - seen.box[:, :2] >= 2.5).all()
        assert 0 not in seen.agent  # the ego vehicle does not see itself


def test_the_same_number_draws_the_same_clip():
    first, again = draw_clip("train", 3), draw_clip("train", 3)
    np.testing.assert_array_equal(first.seen.box, again.seen.box)
    assert first.seed != draw_clip("val", 3).seed


def test_head_on_collisions_are_in_one_test_split_alone():
    assert HELD_OUT not in TYPES
    assert {plan("test_head_on", number)[1] for number in range(60)} == {HELD_OUT, "normal"}
    assert all(plan(split, n)[1] != HELD_OUT for split in set(SPLITS) - {"test_head_on"} for n in range(200))
    assert sum(TYPES.values()) == pytest.approx(1.0)


def test_seed_ranges_of_the_splits_do_not_meet():
    starts = sorted(split.first_seed for split in SPLITS.values())
    assert all(b - a >= 10_000_000 for a, b in pairwise(starts))


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split is 'tset', expected one of train, detector, val"):
        plan("tset", 0)
