"""Photographs and collages of the training, and the photographs that choices are made on."""

from pathlib import Path

import numpy as np
import pytest

from mmattn.drawing import photographs
from mmattn.drawing.fields import SIZE
from mmattn.drawing.photographs import TRAINING, VALIDATION, WALLPAPERS, crop, load_source
from mmattn.errors import InputError
from mmattn.vision.crane.synthetic.collages import SURFACES, draw_collage
from mmattn.vision.crane.synthetic.defects import SEEN, UNSEEN
from mmattn.vision.crane.synthetic.photographs import PHOTOGRAPHS
from mmattn.vision.crane.synthetic.twins import (
    collage_pair,
    draw_validation_photograph,
    photograph_pair,
    validation_photographs,
)

wallpapers = pytest.mark.skipif(
    not all((WALLPAPERS / s.file).is_file() for s in (TRAINING["fig"], VALIDATION["bark"], VALIDATION["leaf"])),
    reason="no Debian wallpapers here",
)


def test_training_validation_and_test_share_no_photograph():
    files = [source.file for source in (*TRAINING.values(), *VALIDATION.values())]
    assert len(set(files)) == len(files)
    test_files = {"brick", "grass", "gravel", "coins", "page", "moon", "coffee", "chelsea", "flower"}
    assert test_files == set(PHOTOGRAPHS)
    assert not test_files & {Path(file).stem for file in files}


def test_nothing_is_learned_from_share_alike_or_copyleft_photographs():
    assert all(source.licence.startswith(("public domain", "CC0", "CC BY ")) for source in TRAINING.values())


def test_a_missing_wallpaper_says_which_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(photographs, "WALLPAPERS", tmp_path)
    load_source.cache_clear()
    with pytest.raises(InputError, match=r"photograph 'fig' is missing.*apt-get install lomiri-wallpapers-16.04"):
        load_source("fig")


@pytest.mark.parametrize("name", ["astronaut", "china", "hopper"])
def test_crops_are_squares_of_the_photograph(name: str):
    pytest.importorskip("skimage", reason="scikit-image is a development dependency")
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    square = crop(np.random.default_rng(0), name, 150)
    assert square.shape == (SIZE, SIZE, 3)
    assert square.dtype == np.float32
    assert 0 <= square.min() < square.max() <= 1


@wallpapers
@pytest.mark.parametrize("name", list(SURFACES))
def test_every_surface_is_drawn_and_the_same_seed_draws_it_again(name: str):
    surface, again, other = (SURFACES[name][0](np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert surface.shape == (400, 400, 3)
    np.testing.assert_array_equal(surface, again)
    assert np.abs(surface - other).mean() > 0.01


def test_surfaces_are_drawn_in_shares_that_add_up():
    assert sum(share for _, share in SURFACES.values()) == pytest.approx(1.0)


@wallpapers
def test_a_collage_has_the_pictures_size_and_range():
    pictures = [draw_collage(np.random.default_rng(seed)) for seed in range(12)]
    assert {picture.shape for picture in pictures} == {(SIZE, SIZE, 3)}
    assert all(picture.min() >= -1e-3 and picture.max() <= 1 + 1e-3 for picture in pictures)


@wallpapers
@pytest.mark.parametrize("draw", [lambda d, s: photograph_pair(s, d, s), collage_pair], ids=["photograph", "collage"])
def test_twins_differ_in_the_defect_and_hardly_elsewhere(draw):
    for seed, defect in enumerate(SEEN):
        flawless, damaged = draw(defect, seed)
        assert (flawless.category, flawless.defect, damaged.defect) == ("object", "", defect)
        assert not flawless.mask.any()
        assert 0.0008 * SIZE**2 <= damaged.mask.sum() <= 0.06 * SIZE**2
        change = np.abs(flawless.picture.astype(int) - damaged.picture.astype(int)).max(-1)
        assert change[damaged.mask].mean() > 1.5 * np.median(change[~damaged.mask])


@wallpapers
def test_validation_photographs_show_seen_defects_alone():
    items = validation_photographs(4)
    assert len(items) == 4 * len(VALIDATION)
    defects = {defect for _, _, defect in items} - {""}
    assert defects <= set(SEEN)
    assert not defects & set(UNSEEN)
    sample = draw_validation_photograph("bark", 1, "stain")
    assert sample.mask.any()
    np.testing.assert_array_equal(sample.picture, draw_validation_photograph("bark", 1, "stain").picture)
