"""Legacy AP, mTTA, TTA@R80 and P@R80 against hand-computed values and the published loop."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmattn.bench.peers.accident_metrics import legacy_threshold_loop
from mmattn.metrics.accident_legacy import LegacyMetrics, legacy_metrics
from tests.metrics.clips import Clips, clip_sets, random_clips


def legacy(clips: Clips, fps: float = 10.0) -> tuple[float, ...]:
    return astuple(legacy_metrics(*clips, fps))


def test_two_accidents_and_a_quiet_clip_give_the_values_computed_by_hand() -> None:
    # Thresholds from 0.2 on. Up to 0.2 all three clips are called; up to 0.5 both accidents, from their frames 2 and
    # 1; up to 0.9 one accident, from its frame 3.
    scores = [[0.2, 0.2, 0.5, 0.9], [0.2, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]]
    result = legacy_metrics(scores, [1, 1, 0], [4, 4, 5], fps=2.0)
    # Recall 1/2: precision 1, relative time 1 - 3/4. Recall 1, at the lowest threshold: precision 2/3, time 1.
    assert result.ap == pytest.approx(1.0 * 0.5 + 0.5 * (1.0 + 2 / 3) * 0.5)
    assert result.mtta == pytest.approx((0.25 + 1.0) / 2 * 2.0)
    # Recall 1 is nearer to 0.8 than 1/2 is.
    assert (result.tta_r80, result.p_r80) == pytest.approx((2.0, 2 / 3))


def test_time_is_relative_to_the_accident_and_scaled_by_the_whole_clip() -> None:
    # The alarm comes in frame 0, half a second before the accident, and is worth the whole clip of five seconds.
    scores = np.full((2, 50), 0.1)
    scores[:, 0] = 0.9
    assert legacy_metrics(scores, [1, 0], [5, 51], fps=10.0).mtta == pytest.approx(5.0)


def test_a_score_of_zero_lifts_recall_and_precision_above_one() -> None:
    # At threshold 0 all four clips are hits, of two accidents: recall 2, precision 1, time 1.
    result = legacy_metrics([[0.0, 0.9], [0.3, 0.9], [0.0, 0.1], [0.2, 0.1]], [1, 1, 0, 0], [2, 2, 3, 3], fps=1.0)
    assert result.ap == pytest.approx(1.0 + 1.0)
    assert result.ap > 1


def test_saturated_scores_fall_to_the_base_rate_although_the_ranking_is_perfect() -> None:
    scores = np.array([[0.9999], [0.9998], [0.9997], [0.9996]])
    assert legacy_metrics(scores, [1, 0, 0, 0], [1, 2, 2, 2], fps=1.0).ap == pytest.approx(0.25)


def test_fewer_frames_than_thresholds_are_computed_where_the_script_fails() -> None:
    clips = Clips(np.array([[0.05, 0.9], [0.05, 0.3]]), np.array([1, 0]), np.array([2, 3]))
    assert legacy(clips) == pytest.approx(legacy_threshold_loop(*clips, 10.0), abs=1e-12)


def test_without_an_accident_nothing_is_defined() -> None:
    assert all(math.isnan(value) for value in legacy(random_clips(0, accidents=0.0)))
    empty = legacy_metrics(np.zeros((0, 5)), [], [], 10.0)
    assert all(math.isnan(value) for value in astuple(empty))


def test_scores_that_are_all_one_leave_no_threshold() -> None:
    assert repr(legacy_metrics([[1.0], [1.0]], [1, 0], [1, 2], 10.0)) == repr(LegacyMetrics())


def test_without_other_clips_precision_is_one() -> None:
    result = legacy_metrics(random_clips(1, accidents=1.1).scores, np.ones(12), np.full(12, 10), fps=10.0)
    assert (result.ap, result.p_r80) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(
    ("scores", "toas", "fps", "message"),
    [
        ([[1.2, 0.0]], [2], 1.0, r"a score is 1\.2; legacy thresholds need probabilities"),
        ([[-0.1, 0.0]], [2], 1.0, r"a score is -0\.1"),
        ([[0.5, 0.0]], [3], 1.0, "clip 0 has its accident at frame 3, beyond its 2 frames"),
        ([[0.5, 0.0]], [0], 1.0, "its toa is below 1 frame"),
        ([[0.5, np.nan]], [1], 1.0, "not a finite number"),
        ([[0.5, 0.0]], [1], 0.0, "fps is 0.0; expected a positive number"),
        ([[0.5, 0.0]], [1], math.nan, "fps is nan"),
    ],
    ids=["above 1", "negative", "toa beyond the end", "toa 0", "nan", "fps 0", "fps nan"],
)
def test_what_the_definition_does_not_cover_is_refused(
    scores: list[list[float]], toas: list[float], fps: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        legacy_metrics(scores, [1], toas, fps)


@given(clip_sets())
@settings(max_examples=80, deadline=None)
def test_legacy_metrics_equal_the_published_loop(clips: Clips) -> None:
    assume(clips.labels.any())
    kept = [row[:toa] if label else row for row, label, toa in zip(*clips, strict=True)]
    assume(min(row.min() for row in kept) < 1.0)
    assert legacy(clips) == pytest.approx(legacy_threshold_loop(*clips, 10.0), abs=1e-9)


@given(clip_sets(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_clips_does_not_matter(clips: Clips, random: object) -> None:
    order = np.arange(len(clips.labels))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert legacy(clips.permuted(order)) == pytest.approx(legacy(clips), abs=1e-9, nan_ok=True)


@given(clip_sets(), st.floats(1.0, 60.0))
@settings(max_examples=40, deadline=None)
def test_times_scale_with_the_frame_rate_and_rates_do_not(clips: Clips, fps: float) -> None:
    slow, fast = legacy(clips, 1.0), legacy(clips, fps)
    assert (fast[0], fast[3]) == pytest.approx((slow[0], slow[3]), nan_ok=True)
    assert (fast[1] * fps, fast[2] * fps) == pytest.approx((slow[1], slow[2]), nan_ok=True)


@given(clip_sets())
@settings(max_examples=40, deadline=None)
def test_what_happens_after_the_accident_changes_nothing(clips: Clips) -> None:
    after = (np.arange(clips.scores.shape[1]) >= clips.toas[:, None]) & (clips.labels == 1)[:, None]
    changed = clips._replace(scores=np.where(after, 1.0 - clips.scores, clips.scores))
    assert legacy(changed) == pytest.approx(legacy(clips), nan_ok=True)
