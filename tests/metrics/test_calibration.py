"""Calibration error, bins and temperature against hand-computed values and scikit-learn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from mmattn.metrics.calibration import apply_temperature, expected_calibration_error, fit_temperature, reliability


def overconfident(seed: int, count: int = 4000, temperature: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits that are ``temperature`` times too large for their labels."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 1.5, count)
    return margin * temperature, (rng.random(count) < 1 / (1 + np.exp(-margin))).astype(int)


def test_two_bins_give_the_error_computed_by_hand() -> None:
    found = reliability([0.1, 0.3, 0.3, 0.9], [0, 1, 0, 1], bins=2)
    assert found.counts.tolist() == [3, 1]
    assert found.confidence.tolist() == pytest.approx([0.7 / 3, 0.9])
    assert found.frequency.tolist() == pytest.approx([1 / 3, 1.0])
    assert found.ece == pytest.approx(0.75 * (0.1) + 0.25 * 0.1)
    assert found.mce == pytest.approx(0.1)


def test_borders_belong_to_the_bin_above_and_one_to_the_last() -> None:
    assert reliability([0.0, 0.5, 1.0], [0, 0, 1], bins=2).counts.tolist() == [1, 2]


@pytest.mark.parametrize(("spacing", "strategy"), [("uniform", "uniform"), ("quantile", "quantile")])
def test_bins_are_those_of_scikit_learn(spacing: str, strategy: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(500)
    labels = (rng.random(500) < values**2).astype(int)
    found = reliability(values, labels, bins=10, spacing=spacing)  # type: ignore[arg-type]
    frequency, confidence = calibration_curve(labels, values, n_bins=10, strategy=strategy)
    assert found.frequency.tolist() == pytest.approx(frequency.tolist())
    assert found.confidence.tolist() == pytest.approx(confidence.tolist())


def test_empty_bins_are_not_a_number_and_do_not_count() -> None:
    found = reliability([0.05, 0.06], [0, 0], bins=10)
    assert np.isnan(found.confidence).sum() == 9
    assert found.ece == pytest.approx(0.055)
    empty = reliability([], [])
    assert math.isnan(empty.ece)
    assert math.isnan(empty.mce)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_errors_are_bounded_and_every_probability_is_in_a_bin(items: list[tuple[float, bool]], bins: int) -> None:
    values, labels = zip(*items, strict=True)
    for spacing in ("uniform", "quantile"):
        found = reliability(values, labels, bins=bins, spacing=spacing)
        assert found.counts.sum() == len(values)
        assert 0 <= found.ece <= found.mce + 1e-12 <= 1 + 1e-9


def test_temperature_undoes_overconfidence() -> None:
    logits, labels = overconfident(0)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.08)
    before = expected_calibration_error(apply_temperature(logits, 1.0), labels)
    after = expected_calibration_error(apply_temperature(logits, temperature), labels)
    assert before > 0.08
    assert after < 0.03


def test_temperature_minimises_the_likelihood() -> None:
    logits, labels = overconfident(1, count=300)
    best = fit_temperature(logits, labels)
    grid = np.linspace(0.5, 8, 400)
    losses = [log_loss(labels, apply_temperature(logits, value)) for value in grid]
    assert best == pytest.approx(grid[int(np.argmin(losses))], abs=grid[1] - grid[0])


def test_logits_of_two_classes_enter_by_their_difference() -> None:
    logits, labels = overconfident(2, count=200)
    both = np.stack([np.full(200, 0.7), logits + 0.7], axis=1)
    assert fit_temperature(both, labels) == pytest.approx(fit_temperature(logits, labels))
    assert apply_temperature(both, 2.0) == pytest.approx(apply_temperature(logits, 2.0))
    assert apply_temperature(both.reshape(20, 10, 2), 2.0).shape == (20, 10)


def test_separable_and_inverted_logits_end_at_the_limits() -> None:
    logits = np.array([-2.0, -1.0, 1.0, 2.0])
    assert fit_temperature(logits, [0, 0, 1, 1], limits=(0.1, 10.0)) == 0.1
    assert fit_temperature(logits, [1, 1, 0, 0], limits=(0.1, 10.0)) == 10.0


def test_huge_logits_do_not_overflow() -> None:
    assert apply_temperature(np.array([-1e300, 1e300]), 1e-3).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([0.5, 1.2], [0, 1]), "must lie in"),
        (lambda: reliability([0.5, np.nan], [0, 1]), "must lie in"),
        (lambda: reliability([0.5], [0, 1]), r"labels \(2,\)"),
        (lambda: reliability([0.5], [2]), "labels be 0 or 1"),
        (lambda: reliability([0.5], [1], bins=0), "bins is 0"),
        (lambda: reliability([0.5], [1], spacing="log"), "spacing 'log'"),  # type: ignore[arg-type]
        (lambda: fit_temperature([], []), "got 0 logits"),
        (lambda: fit_temperature([0.1, np.inf], [0, 1]), "finite"),
        (lambda: fit_temperature([[0.1, 0.2, 0.3]], [1]), r"shape \(1, 3\)"),
        (lambda: fit_temperature([0.1], [1], limits=(2.0, 1.0)), "ascending"),
        (lambda: apply_temperature([0.1], 0.0), "temperature is 0.0"),
    ],
    ids=["above 1", "nan", "lengths", "label 2", "no bins", "spacing", "none", "inf", "3 classes", "limits", "zero"],
)  # fmt: skip
def test_what_does_not_fit_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
