"""The generator: reproducible, within its promised limits, splits that never mix."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmattn.drawing.fields import SIZE, cells, fractal, palette
from mmattn.drawing.materials import MATERIALS
from mmattn.drawing.objects import BACKGROUNDS, OBJECTS, SCENE_PARTS
from mmattn.vision.crane.synthetic.captions import caption, where
from mmattn.vision.crane.synthetic.defects import SEEN, UNSEEN
from mmattn.vision.crane.synthetic.scenes import AREA, SPLITS, Item, draw, draw_pair, evaluation_items, make


def test_the_same_seed_draws_the_same_pair_and_another_seed_another():
    first, again, other = (draw_pair("wood", "scratch", seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[1].picture, again[1].picture)
    np.testing.assert_array_equal(first[1].mask, again[1].mask)
    assert (first[0].picture != other[0].picture).mean() > 0.5


@pytest.mark.parametrize("category", [*MATERIALS, *OBJECTS])
def test_every_category_draws_full_size_pictures_with_contrast(category):
    sample = draw(Item(category, "", 11))
    assert sample.picture.shape == (SIZE, SIZE, 3)
    assert sample.picture.dtype == np.uint8
    assert sample.picture.std() > 2
    assert not sample.mask.any()


@pytest.mark.parametrize("defect", [*SEEN, *UNSEEN])
def test_every_defect_changes_its_mask_and_hardly_anything_else(defect):
    flawless, damaged = draw_pair("concrete", defect, 21)
    share = damaged.mask.mean()
    assert 0.8 * AREA[0] <= share <= 1.2 * AREA[1]
    change = np.abs(flawless.picture.astype(int) - damaged.picture.astype(int)).mean(-1)
    near = cv2.dilate(damaged.mask.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    assert change[damaged.mask].mean() > 2 * change[~near].mean()


def test_a_flawless_picture_is_the_flawless_half_of_a_pair_up_to_noise():
    alone, paired = draw(Item("gear", "", 5)), draw_pair("gear", "hole", 5)[0]
    difference = np.abs(alone.picture.astype(int) - paired.picture.astype(int)).mean()
    assert difference < 12


def test_test_categories_and_defects_occur_in_no_training_stage():
    test = SPLITS["test"]
    for name in ("clip", "prompts", "val"):
        assert not set(test.categories) & set(SPLITS[name].categories)
        assert not set(test.defects) & set(SPLITS[name].defects)
    assert not set(SPLITS["clip"].categories) & set(SPLITS["prompts"].categories)
    assert len(test.categories) == 8
    assert len(test.defects) == 5


def test_backgrounds_and_scene_parts_are_of_the_first_stage_only():
    assert set(BACKGROUNDS) | set(SCENE_PARTS) <= set(SPLITS["clip"].categories)


def test_seed_ranges_of_the_splits_do_not_meet():
    spans = sorted((split.first_seed, split.first_seed + 10_000 * len(split.categories)) for split in SPLITS.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_an_evaluation_set_is_half_damaged_and_uses_every_defect():
    items = evaluation_items("test", 40)
    leather = [item for item in items if item.category == "leather"]
    assert len(items) == 8 * 40
    assert sum(bool(item.defect) for item in leather) == 20
    assert {item.defect for item in leather} == {"", *UNSEEN}
    assert len({item.seed for item in items}) == len(items)


def test_make_writes_mvtec_layout_with_masks(tmp_path: Path):
    count = make(tmp_path, split="val", per_category=2, train_per_category=1)
    assert count == 6 * 3
    picture = cv2.imread(str(tmp_path / "nut/test/scratch/001.png"))
    mask = cv2.imread(str(tmp_path / "nut/ground_truth/scratch/001_mask.png"), cv2.IMREAD_GRAYSCALE)
    sample = draw(evaluation_items("val", 2)[-1])
    np.testing.assert_array_equal(picture[..., ::-1], sample.picture)
    assert (mask > 0).sum() == sample.mask.sum()
    assert (tmp_path / "nut/train/good/000.png").is_file()


def test_make_refuses_an_unknown_split(tmp_path: Path):
    with pytest.raises(ValueError, match="split is 'tset', expected one of clip"):
        make(tmp_path, split="tset")


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [((0, 9), (0, 9), "on the top left"), ((40, 50), (40, 50), "in the centre"), ((40, 50), (80, 90), "on the right")],
)
def test_captions_say_where_the_defect_is(rows, columns, words):
    mask = np.zeros((90, 90), bool)
    mask[slice(*rows), slice(*columns)] = True
    assert where(mask) == words


def test_captions_name_seen_defects_and_never_call_a_damaged_thing_intact():
    rng, mask = np.random.default_rng(0), np.ones((9, 9), bool)
    damaged = {caption(rng, "wood", "crack", mask) for _ in range(60)}
    assert any("a crack" in text for text in damaged)
    assert all("wood" in text for text in damaged)
    assert not any(word in text for text in damaged for word in ("intact", "flawless", "normal", "no damage"))


def test_noise_cells_and_colours_stay_in_range():
    rng = np.random.default_rng(1)
    noise, parts, colours = fractal(rng, 30), cells(rng, 20), palette(rng, 5)
    assert noise.min() == 0
    assert 0.99 < noise.max() <= 1
    assert parts.edge.min() == 0
    assert len(np.unique(parts.label)) > 50
    assert colours.shape == (5, 3)
    assert 0 <= colours.min() <= colours.max() <= 1
