"""Exact ranking scores against hand-computed values, scikit-learn and a law."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from mmattn.metrics import ranking
from mmattn.metrics.ranking import auroc, average_precision, f1_max, pixel_curve, ranking_curve


def test_four_scores_give_the_values_computed_by_hand() -> None:
    scores, labels = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    assert auroc(scores, labels) == pytest.approx(3 / 4)
    # Descending: 0.8 (P=1, R=1/2), 0.4 (P=1/2, R=1/2), 0.35 (P=2/3, R=1).
    assert average_precision(scores, labels) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert f1_max(scores, labels) == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))


def test_tied_scores_count_half_and_enter_together() -> None:
    scores, labels = [0.5, 0.5, 0.5, 0.2], [1, 0, 1, 0]
    assert auroc(scores, labels) == pytest.approx((2 * 1 + 2 * 0.5) / 4)
    assert average_precision(scores, labels) == pytest.approx(2 / 3)
    assert f1_max(scores, labels) == pytest.approx(2 * 2 / (2 + 1 + 2))


@pytest.mark.parametrize("levels", [3, 40, 10**6], ids=["many_ties", "some_ties", "few_ties"])
def test_scores_agree_with_scikit_learn(levels: int) -> None:
    rng = np.random.default_rng(levels)
    # Outside [0, 1] on purpose: torchmetrics would squash these with a sigmoid.
    scores = (rng.integers(0, levels, 5000) / levels * 8 - 3).astype(np.float64)
    labels = rng.random(5000) < 0.2 + 0.1 * (scores > 1)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert f1_max(scores, labels) == pytest.approx(f1.max(), abs=1e-12)


@given(
    scores=st.lists(st.floats(-5, 5, width=16), min_size=4, max_size=40),
    labels=st.lists(st.booleans(), min_size=40, max_size=40),
)
@settings(max_examples=40, deadline=None)
def test_auroc_survives_a_monotone_change_of_the_scores(scores: list[float], labels: list[bool]) -> None:
    values = np.array(scores, np.float64)
    used = np.array(labels[: len(values)])
    before = ranking_curve(values, used)
    after = ranking_curve(np.exp(values) * 3 + 2, used)
    # exp keeps the order of float16 values apart in float64.
    assert after.auroc() == before.auroc() or not before.is_defined
    assert after.f1_max() == before.f1_max() or not before.is_defined


@given(scores=st.lists(st.integers(0, 6), min_size=2, max_size=30), flips=st.integers(0, 2**30 - 1))
@settings(max_examples=40, deadline=None)
def test_auroc_of_swapped_labels_is_the_complement(scores: list[int], flips: int) -> None:
    labels = np.array([(flips >> index) & 1 for index in range(len(scores))], bool)
    curve, swapped = ranking_curve(scores, labels), ranking_curve(scores, ~labels)
    assert curve.is_defined == swapped.is_defined
    if curve.is_defined:
        assert curve.auroc() + swapped.auroc() == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []], ids=["normal_only", "anomalous_only", "empty"])
def test_one_kind_of_label_gives_nan(labels: list[int]) -> None:
    scores = [0.3, 0.1, 0.2][: len(labels)]
    assert all(math.isnan(score(scores, labels)) for score in (auroc, average_precision, f1_max))


def test_maps_are_ranked_over_all_pixels_of_all_maps() -> None:
    rng = np.random.default_rng(1)
    maps, masks = rng.random((5, 16, 12), dtype=np.float32), rng.random((5, 16, 12)) < 0.3
    curve = pixel_curve(maps, masks)
    assert curve.auroc() == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert (curve.num_positives, curve.num_negatives) == (int(masks.sum()), int((~masks).sum()))


def test_blocks_of_any_size_give_the_same_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    maps, masks = rng.integers(0, 50, (6, 9, 9)) / 50, rng.random((6, 9, 9)) < 0.2
    whole = pixel_curve(maps, masks)
    monkeypatch.setattr(ranking, "_BLOCK", 100)
    blocks = pixel_curve(maps, masks)
    np.testing.assert_array_equal(blocks.false_positives, whole.false_positives)
    np.testing.assert_array_equal(blocks.false_positives_above, whole.false_positives_above)
    assert blocks.num_negatives == whole.num_negatives


def test_tensors_and_lists_of_maps_are_accepted() -> None:
    maps = [torch.tensor([[0.1, 0.9]]), torch.tensor([[0.2], [0.3]])]
    masks = [torch.tensor([[False, True]]), torch.tensor([[0], [1]])]
    assert pixel_curve(maps, masks).auroc() == 1.0


def test_half_precision_scores_are_compared_as_they_are_stored() -> None:
    scores = np.array([0.1, 0.2, 0.2, 0.7], np.float16)
    assert auroc(scores, [0, 1, 0, 1]) == pytest.approx((1.5 + 2) / 4)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="map 0 holds NaN"):
        auroc([0.1, float("nan")], [0, 1])


def test_other_shapes_are_refused_with_both_named() -> None:
    with pytest.raises(ValueError, match=r"map 1 has shape \(2, 2\), its mask \(2, 3\)"):
        pixel_curve([np.zeros((2, 2))] * 2, [np.zeros((2, 2)), np.zeros((2, 3))])
    with pytest.raises(ValueError, match="got 2 maps and 1 masks"):
        pixel_curve(np.zeros((2, 3, 3)), np.zeros((1, 3, 3)))
