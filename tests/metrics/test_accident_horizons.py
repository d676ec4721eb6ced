"""Cuts before the event, mAP and limited AUC, against hand-computed values and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from mmattn.metrics.accident_horizons import cut_scores, far_limited_mauc, nexar_map, partial_auc
from mmattn.metrics.ranking import ranking_curve
from tests.metrics.clips import Clips, clip_sets, random_clips

FPS = 10.0


def references(clips: Clips) -> np.ndarray:
    """Accidents, and the end of the clips in which nothing happens."""
    return np.where(clips.labels == 1, clips.toas, clips.scores.shape[1])


def test_a_cut_keeps_the_frames_up_to_the_horizon_before_the_reference() -> None:
    scores = np.tile(np.arange(100) / 100, (3, 1))
    assert cut_scores(scores, [90, 45.5, 200], 20.0, 0.5).tolist() == [0.80, 0.35, 0.99]
    # 4.5 s at 20 fps is frame 90 whatever binary fractions say.
    assert cut_scores(scores, np.full(3, 4.6 * 20.0), 20.0, 0.1).tolist() == [0.90] * 3


def test_the_last_frame_or_the_largest_stands_for_the_clip() -> None:
    scores = [[0.9, 0.1, 0.2, 0.8]]
    assert cut_scores(scores, [4], 2.0, 1.0, reduce="max").tolist() == [0.9]
    assert cut_scores(scores, [4], 2.0, 1.0, reduce="last").tolist() == [0.2]


def test_a_cut_before_the_first_frame_leaves_the_clip_out_and_counts_it() -> None:
    scores, labels = [[0.9] * 20, [0.8] * 20, [0.1] * 20], [1, 1, 0]
    result = nexar_map(scores, labels, [20, 7, 20], FPS)
    assert result.left_out == {0.5: 0, 1.0: 1, 1.5: 1}
    assert result.at == {0.5: 1.0, 1.0: 1.0, 1.5: 1.0}


@pytest.mark.parametrize("reduce", ["max", "last"])
@pytest.mark.parametrize("cut", ["matched", "positives"])
def test_map_is_the_mean_of_three_average_precisions(cut: str, reduce: str) -> None:
    clips = random_clips(0, count=40, frames=60, skill=0.2)
    ends = references(clips)
    ends[clips.labels == 0] = 47
    expected = []
    for horizon in (5, 10, 15):
        picked, truth = [], []
        for row, label, end in zip(clips.scores, clips.labels, ends, strict=True):
            kept = row[: max(end - horizon + 1, 0)] if label or cut == "matched" else row
            if len(kept):
                picked.append(kept.max() if reduce == "max" else kept[-1])
                truth.append(label)
        expected.append(average_precision_score(truth, picked))
    result = nexar_map(clips.scores, clips.labels, ends, FPS, cut=cut, reduce=reduce)  # type: ignore[arg-type]
    assert list(result.at.values()) == pytest.approx(expected)
    assert result.mean == pytest.approx(np.mean(expected))


def test_cutting_only_the_accidents_punishes_what_no_one_can_know() -> None:
    # Risk rises alike in accidents and near misses, with a small difference throughout.
    rise = np.linspace(0.0, 0.8, 50)
    scores = np.stack([rise + 0.05, rise + 0.05, rise, rise])
    labels, ends = [1, 1, 0, 0], [49, 49, 49, 49]
    assert nexar_map(scores, labels, ends, FPS, cut="matched").mean == 1.0
    assert nexar_map(scores, labels, ends, FPS, cut="positives").mean == pytest.approx(0.5)


def test_trimmed_clips_have_their_event_beyond_the_end() -> None:
    # Both end 0.5 s before the event: at 0.5 s the whole clip is left.
    scores = [[0.1, 0.2, 0.9], [0.3, 0.3, 0.3]]
    result = nexar_map(scores, [1, 0], [7, 7], FPS, horizons=(0.5,), reduce="last")
    assert result.at == {0.5: 1.0}


def test_one_kind_of_clip_leaves_the_mean_undefined() -> None:
    for label in (0, 1):
        result = nexar_map([[0.5] * 30], [label], [30], FPS)
        assert math.isnan(result.mean)
        assert all(math.isnan(value) for value in result.at.values())
        assert math.isnan(far_limited_mauc([[0.5] * 30], [label], [30], FPS).mean)


def test_clips_of_one_frame_are_left_out_of_every_horizon() -> None:
    result = nexar_map([[0.5], [0.4]], [1, 0], [1, 1], FPS)
    assert math.isnan(result.mean)
    assert set(result.left_out.values()) == {2}


def test_each_clip_may_have_its_own_frame_rate() -> None:
    scores = np.tile(np.arange(40) / 40, (2, 1))
    assert cut_scores(scores, [40, 40], np.array([10.0, 20.0]), 1.0).tolist() == [30 / 40, 20 / 40]


@pytest.mark.parametrize("limit", [0.05, 0.1, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("grid", [None, 4, 20])
@pytest.mark.parametrize("seed", range(4))
def test_partial_auc_is_that_of_scikit_learn(seed: int, grid: int | None, limit: float) -> None:
    clips = random_clips(seed, count=50, grid=grid)
    values = clips.scores[:, -1]
    expected = roc_auc_score(clips.labels, values, max_fpr=limit)
    assert partial_auc(ranking_curve(values, clips.labels), limit) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, math.nan])
def test_a_false_alarm_rate_out_of_range_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="expected a rate in"):
        partial_auc(ranking_curve([0.1, 0.2], [0, 1]), limit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": "both"}, "cut is 'both'; expected 'matched' or 'positives'"),
        ({"reduce": "mean"}, "reduce is 'mean'"),
        ({"fps": 0.0}, "fps must be positive"),
        ({"references": [np.nan, 5]}, "clip 0 has no finite reference frame, which the matched cut needs"),
        ({"references": [5]}, r"references \(1,\)"),
        ({"labels": [1, 3]}, "labels 0 or 1"),
        ({"scores": [[np.nan] * 5] * 2}, "scores must be finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_named(options: dict[str, object], message: str) -> None:
    arguments = {"scores": [[0.5] * 5] * 2, "labels": [0, 1], "references": [5, 5], "fps": 10.0, **options}
    with pytest.raises(ValueError, match=message):
        nexar_map(**arguments)  # type: ignore[arg-type]


def test_the_positives_cut_needs_no_reference_of_other_clips() -> None:
    assert nexar_map([[0.5] * 30] * 2, [0, 1], [np.nan, 30], FPS, cut="positives").mean == 0.5


@given(clip_sets(both_kinds=True), st.sampled_from(["matched", "positives"]), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_clips_and_monotone_changes_of_the_scores_do_not_matter(
    clips: Clips, cut: str, random: object
) -> None:
    order = np.arange(len(clips.labels))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = clips.permuted(order)
    for metric in (nexar_map, far_limited_mauc):
        one = metric(clips.scores, clips.labels, references(clips), 4.0, cut=cut).mean  # type: ignore[arg-type]
        two = metric(3 * shuffled.scores - 1, shuffled.labels, references(shuffled), 4.0, cut=cut).mean  # type: ignore[arg-type]
        assert two == pytest.approx(one, nan_ok=True)
