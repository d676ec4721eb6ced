"""The three AUPRO definitions against hand-computed values, the threshold loop and each other."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import label
from sklearn.metrics import auc

from mmattn.bench.peers.aupro import aupro_threshold_loop
from mmattn.metrics.aupro import aupro, aupro_exact, aupro_quantile, label_regions
from mmattn.metrics.ranking import pixel_curve

Maps = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


def blobs(seed: int, *, count: int = 4, size: int = 48, levels: int | None = None) -> tuple[Maps, Masks]:
    """Returns maps with noise and brighter squares, and the masks of the squares."""
    rng = np.random.default_rng(seed)
    maps, masks = rng.random((count, size, size)), np.zeros((count, size, size), bool)
    for index in range(1, count):
        for _ in range(2):
            y, x, side = *rng.integers(0, size - 12, 2), rng.integers(2, 12)
            masks[index, y : y + side, x : x + side] = True
    maps = maps + 0.4 * masks
    if levels is not None:
        maps = np.floor(maps / maps.max() * levels) / levels
    return maps.astype(np.float32), masks


def test_four_steps_give_the_value_computed_by_hand() -> None:
    # Thresholds 0, 1, 2, 3. Normal scores 0, 1, 2, 3; one region with scores 2 and 4.
    maps, masks = np.array([[[0, 1, 2, 3, 2, 4]]], np.float32), np.array([[[0, 0, 0, 0, 1, 1]]], bool)
    # FPR 3/4, 2/4, 1/4, 0; PRO 1, 1, 1/2, 1/2. Kept below 0.6: FPR 2/4, 1/4, 0, stretched to 1, 1/2, 0.
    assert aupro(maps, masks, steps=4, fpr_limit=0.6) == pytest.approx(0.5 * (1 + 0.5) / 2 + 0.5 * 0.5)


def test_regions_count_alike_whatever_their_size() -> None:
    maps = np.zeros((1, 4, 8), np.float32)
    masks = np.zeros((1, 4, 8), bool)
    masks[0, 0, 0] = masks[0, 2:, 2:] = True
    maps[0, 0, 0] = 1.0
    # The single pixel is found, the region of 12 pixels is not: PRO is 1/2 before any normal pixel is called.
    assert aupro_exact(maps, masks, fpr_limit=1.0) == pytest.approx(0.5 * (0.5 + 1.0))


def test_diagonal_neighbours_are_one_region() -> None:
    mask = np.eye(5, dtype=bool)
    assert label_regions(mask)[1] == 1
    assert label_regions(mask & (np.arange(5) != 2))[1] == 2


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_of_scikit_image(seed: int) -> None:
    mask = np.random.default_rng(seed).random((30, 41)) < 0.3
    labels, count = label_regions(mask)
    expected = label(mask, connectivity=2)
    assert count == expected.max()
    assert len(np.unique(np.stack([labels[mask], expected[mask]]), axis=1)) == 2
    assert np.unique(np.stack([labels[mask], expected[mask]]), axis=1).shape[1] == count


@pytest.mark.parametrize("steps", [2, 7, 50, 200, 300, 1000])
@pytest.mark.parametrize("levels", [None, 10, 200, 255], ids=["continuous", "levels10", "levels200", "levels255"])
def test_aupro_equals_the_threshold_loop(steps: int, levels: int | None) -> None:
    maps, masks = blobs(steps, levels=levels)
    # Below 1.0 two thresholds may keep one point only, where the area is not defined.
    limit = 1.0 if steps == 2 else 0.3
    expected = aupro_threshold_loop(maps, masks, steps=steps, fpr_limit=limit)
    assert aupro(maps, masks, steps=steps, fpr_limit=limit) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("scale", "shift"), [(1e-4, 0.0), (7.0, -3.0), (1.0, 1e6), (0.01, 1.0)])
def test_aupro_equals_the_threshold_loop_in_any_range(scale: float, shift: float) -> None:
    maps, masks = blobs(3)
    maps = (maps * scale + shift).astype(np.float32)
    assert aupro(maps, masks) == pytest.approx(aupro_threshold_loop(maps, masks), abs=1e-9)


def test_double_precision_maps_are_compared_in_double_precision() -> None:
    maps, masks = blobs(4)
    fine = 1.0 + maps.astype(np.float64) * 1e-9
    assert aupro(fine, masks) == pytest.approx(aupro_threshold_loop(fine, masks), abs=1e-9)  # type: ignore[arg-type]
    assert aupro_exact(fine, masks) == pytest.approx(aupro_exact(maps, masks), abs=1e-3)


def test_exact_aupro_is_the_area_over_every_distinct_threshold() -> None:
    maps, masks = blobs(5, levels=64)
    curve = []
    for threshold in [np.inf, *np.unique(maps)[::-1]]:
        called = maps >= threshold
        overlaps = [
            called[i][label(mask, connectivity=2) == region].mean()
            for i, mask in enumerate(masks)
            for region in range(1, label(mask, connectivity=2).max() + 1)
        ]
        curve.append((called[~masks].mean(), np.mean(overlaps)))
    fpr, pro = np.array(curve).T
    at_limit = np.interp(0.3, fpr, pro)
    expected = auc(np.append(fpr[fpr < 0.3], 0.3), np.append(pro[fpr < 0.3], at_limit)) / 0.3
    assert aupro_exact(maps, masks) == pytest.approx(expected, abs=1e-9)


def test_exact_aupro_with_the_curve_at_hand_is_the_same() -> None:
    maps, masks = blobs(6)
    assert aupro_exact(maps, masks, curve=pixel_curve(maps, masks)) == aupro_exact(maps, masks)


def test_many_steps_and_many_quantiles_approach_the_exact_area() -> None:
    maps, masks = blobs(7)
    exact = aupro_exact(maps, masks)
    assert aupro_quantile(maps, masks, steps=5000) == pytest.approx(exact, abs=1e-3)
    assert aupro(maps, masks, steps=5000) == pytest.approx(exact, abs=5e-3)


def test_quantile_aupro_takes_its_rates_from_ranks() -> None:
    # Normal scores 0, 1, 2, 3: ranks 0, 1, 3 of three thresholds give FPR 3/4, 2/4, 0.
    maps, masks = np.array([[[0, 1, 2, 3, 2, 4]]], np.float32), np.array([[[0, 0, 0, 0, 1, 1]]], bool)
    # PRO above 0, 1, 3 is 1, 1, 1/2; up to FPR 1/2 the area is 1/2 * (1/2 + 1) / 2, divided by the limit.
    assert aupro_quantile(maps, masks, steps=3, fpr_limit=0.5) == pytest.approx(0.75)


def test_perfect_maps_score_one_and_inverted_maps_zero() -> None:
    _, masks = blobs(8)
    noise = np.random.default_rng(0).random(masks.shape) * 0.1
    maps = (masks * 0.5 + noise).astype(np.float32)
    assert aupro(maps, masks) == pytest.approx(1.0)
    assert aupro_exact(maps, masks) == pytest.approx(1.0)
    assert aupro_exact(-maps, masks) == pytest.approx(0.0)


@pytest.mark.parametrize("area", [aupro, aupro_exact, aupro_quantile])
def test_sets_without_regions_or_without_normal_pixels_give_nan(area: object) -> None:
    maps = np.random.default_rng(0).random((2, 6, 6), dtype=np.float32)
    assert math.isnan(area(maps, np.zeros((2, 6, 6), bool)))  # type: ignore[operator]
    assert math.isnan(area(maps, np.ones((2, 6, 6), bool)))  # type: ignore[operator]
    assert math.isnan(area([], []))  # type: ignore[operator]


def test_a_single_kept_threshold_gives_nan() -> None:
    maps, masks = blobs(9)
    assert math.isnan(aupro(maps, masks, steps=1, fpr_limit=1.0))


def test_constant_maps_have_no_stepwise_aupro() -> None:
    _, masks = blobs(9)
    assert math.isnan(aupro(np.full(masks.shape, 0.25, np.float32), masks))


def test_maps_on_disk_are_read_one_at_a_time(tmp_path: Path) -> None:
    maps, masks = blobs(10, count=6)
    stored = np.memmap(tmp_path / "maps", np.float16, "w+", shape=maps.shape)
    stored[:] = maps
    rounded = maps.astype(np.float16).astype(np.float32)
    assert aupro(stored, masks) == pytest.approx(aupro_threshold_loop(rounded, masks), abs=1e-9)


def test_options_out_of_range_are_refused() -> None:
    maps, masks = blobs(0)
    with pytest.raises(ValueError, match="steps is 0"):
        aupro(maps, masks, steps=0)
    with pytest.raises(ValueError, match=r"fpr_limit is 1.5; expected a rate in \(0, 1\]"):
        aupro_exact(maps, masks, fpr_limit=1.5)


def test_infinite_scores_have_no_equidistant_thresholds() -> None:
    maps, masks = blobs(0)
    maps[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="need finite scores"):
        aupro(maps, masks)


@pytest.mark.parametrize("score", [0.1, 1.0, 250.0])
def test_a_perfect_map_has_the_area_one(score: float) -> None:
    _, masks = blobs(9)
    perfect = np.asarray(masks, np.float32) * score
    for area in (aupro, aupro_exact, aupro_quantile):
        assert area(perfect, masks) == pytest.approx(1.0)
    half = perfect.copy()
    half[np.nonzero(masks)[0][0]] = 0.0
    assert aupro(half, masks) != 1.0
