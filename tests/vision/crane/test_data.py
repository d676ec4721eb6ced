"""Items, batches, sub-sampling and mosaics over datasets written in their true layout."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.errors import InputError, MediaError
from mmattn.vision.crane.data import CraneDataModule, Source
from mmattn.vision.crane.datasets.layouts import Record, read_layout
from mmattn.vision.crane.datasets.pictures import CraneDataset, Mosaic, subsample
from mmattn.vision.crane.network.preprocess import Preprocess
from tests.vision.crane.fake_datasets import write_dataset, write_image, write_mask


def dataset(root: Path, layout: str = "mvtec_style", **options: object) -> CraneDataset:
    return CraneDataset(read_layout(layout, root), root, Preprocess(28), **options)  # type: ignore[arg-type]


def records(**counts: tuple[int, int]) -> list[Record]:
    """Returns records of classes with given numbers of (normal, anomalous) pictures."""
    return [
        Record(f"{cls}/{anomaly}/{number}.png", "", cls, "", anomaly)
        for cls, pair in counts.items()
        for anomaly in (0, 1)
        for number in range(pair[anomaly])
    ]


def test_item_holds_picture_mask_and_names(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    item = dataset(tmp_path, name="demo")[0]
    assert item["img"].shape == (3, 28, 28)
    assert item["mask"].shape == (1, 28, 28)
    assert (item["label"], item["has_mask"], item["cls_id"], item["cls_name"]) == (1, True, 0, "cup")
    assert (item["dataset"], item["path"]) == ("demo", str(tmp_path / "cup/test/dent/000.png"))
    # The mask covers rows 4 to 11 of 20 and columns 6 to 13 of 24.
    assert item["mask"].mean().item() == pytest.approx(8 * 8 / (20 * 24), abs=0.02)
    # The bright square of the picture lies under the mask.
    assert item["img"][:, item["mask"][0] > 0].mean() > item["img"][:, item["mask"][0] == 0].mean() + 1


def test_annotation_is_the_item_without_its_picture(tmp_path: Path) -> None:
    write_dataset("visa", tmp_path, per_kind=1)
    items = dataset(tmp_path, "visa")
    for index in (0, 1):
        item, annotation = items[index], items.annotation(index)
        assert set(item) - set(annotation) == {"img"}
        assert torch.equal(item["mask"], annotation["mask"])
        assert all(item[key] == annotation[key] for key in annotation if key != "mask")


def test_anomalous_pictures_without_annotation_say_so(tmp_path: Path) -> None:
    write_dataset("headct", tmp_path)
    items = [dataset(tmp_path, "headct")[index] for index in range(4)]
    assert [(item["label"], item["has_mask"]) for item in items] == [(1, False)] * 2 + [(0, True)] * 2
    assert all(item["mask"].sum() == 0 for item in items)


def test_class_numbers_follow_the_published_order(tmp_path: Path) -> None:
    write_dataset("mpdd", tmp_path, per_kind=1)
    module = CraneDataModule(test_datasets=[f"mpdd:{tmp_path}"], image_size=14)
    found = {item["cls_name"]: item["cls_id"] for item in module.test_dataset()}  # type: ignore[union-attr]
    assert found == {
        "bracket_black": 0,
        "bracket_brown": 1,
        "bracket_white": 2,
        "connector": 3,
        "metal_plate": 4,
        "tubes": 5,
    }


def test_mask_of_another_aspect_is_refused_and_a_scaled_one_accepted(tmp_path: Path) -> None:
    write_image(tmp_path / "cup/test/dent/0.png", 0, size=(20, 24))
    write_mask(tmp_path / "cup/ground_truth/dent/0.png", size=(40, 48))
    assert dataset(tmp_path)[0]["mask"].sum() > 0
    write_mask(tmp_path / "cup/ground_truth/dent/0.png", size=(24, 20))
    with pytest.raises(InputError, match=r"cup/ground_truth/dent/0\.png is 20 x 24 pixels, its picture") as caught:
        dataset(tmp_path)[0]
    assert "mmattn data check crane" in caught.value.hint


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    items = CraneDataset([Record("gone.png", "", "cup", "", 0)], tmp_path, Preprocess(14))
    with pytest.raises(MediaError, match=r"gone\.png"):
        items[0]


def test_records_of_an_unlisted_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Records of class cup, expected plate"):
        CraneDataset(records(cup=(1, 0)), tmp_path, Preprocess(14), ["plate"])


# Sub-sampling.


def test_portion_keeps_its_share_of_every_class_and_label() -> None:
    kept = subsample(records(cup=(10, 5), plate=(4, 1)), portion=0.5)
    assert Counter((r.cls_name, r.anomaly) for r in kept) == {("cup", 0): 5, ("cup", 1): 2, ("plate", 0): 2}


def test_k_shot_keeps_half_normal_and_half_anomalous_where_there_are_enough() -> None:
    kept = subsample(records(cup=(10, 5), plate=(4, 1)), k_shot=6)
    assert Counter((r.cls_name, r.anomaly) for r in kept) == {
        ("cup", 0): 3,
        ("cup", 1): 3,
        ("plate", 0): 3,
        ("plate", 1): 1,
    }


def test_subsampling_follows_its_seed_and_keeps_the_order() -> None:
    everything = records(cup=(30, 30))
    first = subsample(everything, portion=0.5, seed=1)
    assert first == subsample(everything, portion=0.5, seed=1)
    assert first != subsample(everything, portion=0.5, seed=2)
    assert [everything.index(r) for r in first] == sorted(everything.index(r) for r in first)
    assert subsample(everything) == everything


# Mosaics.


def mosaics(root: Path, mosaic: Mosaic, draws: int) -> list[dict[str, object]]:
    for number in range(3):
        write_image(root / "bottle/test/good" / f"{number}.png", number)
        write_image(root / "bottle/test/dent" / f"{number}.png", number, square=True)
        write_mask(root / "bottle/ground_truth/dent" / f"{number}.png")
    items = dataset(root, mosaic=mosaic)
    assert items.is_random
    return [items[0] for _ in range(draws)]


def tile_states(item: dict[str, object]) -> list[bool]:
    mask = item["mask"]
    assert isinstance(mask, torch.Tensor)
    return [bool(tile.any()) for row in mask[0].chunk(2, dim=0) for tile in row.chunk(2, dim=1)]


def test_mosaic_tiles_draw_their_own_state_and_the_label_follows_the_mask(tmp_path: Path) -> None:
    items = mosaics(tmp_path, Mosaic(rate=1.0, normal=0.5), 30)
    states = [tile_states(item) for item in items]
    assert any(0 < sum(state) < 4 for state in states)
    assert [item["label"] for item in items] == [int(any(state)) for state in states]
    assert all(item["img"].shape == (3, 28, 28) for item in items)  # type: ignore[attr-defined]


def test_mosaic_with_one_state_is_all_normal_or_all_anomalous(tmp_path: Path) -> None:
    states = [tile_states(item) for item in mosaics(tmp_path, Mosaic(1.0, 0.5, same_state=True), 30)]
    assert {sum(state) for state in states} == {0, 4}


def test_mosaics_repeat_with_the_global_seed(tmp_path: Path) -> None:
    torch.manual_seed(5)
    first = mosaics(tmp_path, Mosaic(0.5), 6)
    torch.manual_seed(5)
    second = mosaics(tmp_path, Mosaic(0.5), 6)
    assert all(torch.equal(a["img"], b["img"]) for a, b in zip(first, second, strict=True))  # type: ignore[arg-type]


def test_mosaics_leave_other_classes_alone(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    plain, augmented = dataset(tmp_path)[0], dataset(tmp_path, mosaic=Mosaic(rate=1.0))[0]
    assert torch.equal(plain["img"], augmented["img"])


# The data module.


def test_batches_of_several_test_datasets_come_class_after_class(tmp_path: Path) -> None:
    write_dataset("headct", tmp_path / "headct")
    write_dataset("br35h", tmp_path / "br35h")
    module = CraneDataModule(
        test_datasets=[f"headct:{tmp_path / 'headct'}", f"br35h:{tmp_path / 'br35h'}"],
        image_size=14,
        batch_size=3,
        num_workers=0,
    )
    batches = list(module.test_dataloader())
    assert [name for batch in batches for name in batch["dataset"]] == ["headct"] * 4 + ["br35h"] * 4
    assert batches[0]["img"].shape == (3, 3, 14, 14)
    assert batches[0]["label"].dtype == torch.int64
    assert batches[0]["has_mask"].dtype == torch.bool
    assert module.test_sizes() == {("headct", "brain"): 4, ("br35h", "brain"): 4}


def test_training_data_is_the_auxiliary_test_split(tmp_path: Path) -> None:
    write_dataset("btad", tmp_path, per_kind=4)
    module = CraneDataModule("btad", str(tmp_path), image_size=14, k_shot=4, num_workers=0)
    items = module.train_dataset()
    assert items is not None
    assert not items.is_random
    assert Counter((r.cls_name, r.anomaly) for r in items.records) == {
        (c, a): 2 for c in ("01", "02", "03") for a in (0, 1)
    }
    labels = torch.cat([batch["label"] for batch in module.train_dataloader()])
    assert labels.tolist() != sorted(labels.tolist())
    assert len(labels) == 12


def test_general_layouts_are_named_after_their_folder() -> None:
    assert Source.parse("mvtec_style:data/my_parts").name == "my_parts"
    assert Source.parse("visa:data/anything").name == "visa"


@pytest.mark.parametrize("text", ["data/mvtec", "mvtek:data", "mvtec:"])
def test_a_dataset_that_is_not_layout_and_root_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not of the form layout:root") as caught:
        CraneDataModule(test_datasets=[text])
    assert "mvtec:data/mvtec" in caught.value.hint


@pytest.mark.parametrize("options", [{"portion": 0.0}, {"portion": 1.5}, {"k_shot": 3}, {"aug_rate": 2.0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a portion in"):
        CraneDataModule(**options)  # type: ignore[arg-type]


def test_training_without_a_root_says_what_to_set() -> None:
    with pytest.raises(InputError, match="needs training data") as caught:
        CraneDataModule(num_workers=0).train_dataloader()
    assert "train_root" in caught.value.hint


def test_command_line_builds_the_data_module_from_yaml() -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(CraneDataModule, "data")
    parsed = parser.parse_object({"data": {"train_root": "x", "test_datasets": ["visa:y"], "k_shot": 4}})
    module = parser.instantiate(parsed).data
    assert module.train_source == Source("mvtec", "x", "mvtec")
    assert module.test_sources == [Source("visa", "y", "visa")]
    assert np.isclose(module.portion, 1.0)
