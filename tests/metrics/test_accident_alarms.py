"""Warning time at a limited false-alarm rate: thresholds, misses, operating points."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.metrics.accident_alarms import far_limited_mtta, far_threshold, lead_time
from tests.metrics.clips import Clips, clip_sets, random_clips


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0.9), (0.1, 0.8), (0.19, 0.8), (0.5, 0.4), (0.99, 0.0)])
def test_the_threshold_lets_through_the_share_that_was_asked_for(rate: float, expected: float) -> None:
    maxima = np.arange(10) / 10
    threshold = far_threshold(maxima[::-1], rate)
    assert threshold == expected
    assert (maxima > threshold).mean() <= rate


def test_binary_fractions_do_not_cost_a_false_alarm() -> None:
    # 0.29 * 100 is 28.999999999999996 in double precision.
    assert (np.arange(100) > far_threshold(np.arange(100), 0.29)).sum() == 29
    # 0.1 * 30 is 3.0000000000000004 for some orders of multiplication.
    assert (np.arange(30) > far_threshold(np.arange(30), 0.1)).sum() == 3


def test_ties_never_exceed_the_rate() -> None:
    maxima = [0.5] * 9 + [0.1]
    assert far_threshold(maxima, 0.2) == 0.5


@pytest.mark.parametrize("maxima", [[], [0.1, np.nan], [[0.1]]], ids=["none", "nan", "2-d"])
def test_a_threshold_needs_finite_scores_of_clips_without_accident(maxima: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one clip without accident"):
        far_threshold(maxima, 0.1)


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\)"):
        far_threshold([0.1], rate)


def test_lead_is_real_seconds_and_misses_count_zero() -> None:
    scores = np.full((4, 20), 0.1)
    scores[0, 5] = 0.8  # toa 15: alarm one second before, at 10 fps
    scores[1, 12:] = 0.9  # toa 12: too late, a miss
    scores[2, 3] = 0.8  # no accident: a false alarm
    result = lead_time(scores, [1, 1, 0, 0], [15, 12, 21, 21], 10.0, threshold=0.5)
    assert result.mean == pytest.approx((1.0 + 0.0) / 2)
    assert (result.recall, result.false_alarm_rate, result.threshold) == (0.5, 0.5, 0.5)


def test_a_score_at_the_threshold_is_no_alarm() -> None:
    assert lead_time([[0.5, 0.5]], [1], [2], 1.0, threshold=0.5).recall == 0.0


def test_an_accident_beyond_the_end_can_be_warned_of() -> None:
    # The clip ends 2 s before the accident, the alarm is its last frame.
    assert lead_time([[0.1, 0.1, 0.9]], [1], [4], 1.0, threshold=0.5).mean == 2.0


def test_one_kind_of_clip_leaves_the_other_side_undefined() -> None:
    quiet = lead_time([[0.9]], [0], [2], 10.0, threshold=0.5)
    assert (math.isnan(quiet.mean), math.isnan(quiet.recall), quiet.false_alarm_rate) == (True, True, 1.0)
    assert math.isnan(lead_time([[0.9]], [1], [1], 10.0, threshold=0.5).false_alarm_rate)
    assert math.isnan(far_limited_mtta([[0.9]], [1], [1], 10.0))
    assert math.isnan(far_limited_mtta([[0.9]], [0], [1], 10.0))


def test_limited_mtta_averages_the_operating_points_it_allows() -> None:
    # Negatives 0.2, 0.4, 0.6, 0.8; a quarter of false alarms allows thresholds 0.8 and 0.6. Alarms above 0.8 come in
    # frame 3 and above 0.6 in frame 2 of an accident at frame 4; the other accident is missed at both.
    scores = [[0.1, 0.5, 0.7, 0.9], [0.3] * 4, [0.2] * 4, [0.4] * 4, [0.6] * 4, [0.8] * 4]
    labels, toas = [1, 1, 0, 0, 0, 0], [4, 4, 5, 5, 5, 5]
    assert far_limited_mtta(scores, labels, toas, 1.0, far_limit=0.25) == pytest.approx((0.5 + 1.0) / 2)
    assert far_limited_mtta(scores, labels, toas, 1.0, far_limit=0.1) == pytest.approx(0.5)


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan])
def test_frames_per_second_must_be_positive(fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be positive"):
        lead_time([[0.5]], [1], [1], fps, threshold=0.5)


@given(clip_sets(both_kinds=True), st.floats(0.0, 0.9), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_lead_at_the_threshold_of_its_own_clips_keeps_the_rate_and_ignores_their_order(
    clips: Clips, rate: float, random: object
) -> None:
    quiet = clips.scores[clips.labels == 0].max(axis=1)
    result = lead_time(*clips, 10.0, threshold=far_threshold(quiet, rate))
    assert result.false_alarm_rate <= rate + 1e-9
    assert 0.0 <= result.mean <= clips.toas[clips.labels == 1].mean() / 10.0 + 1e-9
    order = np.arange(len(clips.labels))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = lead_time(*clips.permuted(order), 10.0, threshold=result.threshold)
    assert again.mean == pytest.approx(result.mean)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_lead_grows_as_the_threshold_falls(seed: int) -> None:
    clips = random_clips(seed)
    leads = [lead_time(*clips, 10.0, threshold=value).mean for value in np.linspace(1, 0, 9)]
    assert all(a <= b or math.isnan(a) for a, b in pairwise(leads))
