"""Items, windows, splits and batches over datasets written in their true layout."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.errors import InputError
from mmattn.video.crash.data import CrashDataModule, WholeBatches
from mmattn.video.crash.datasets.augmentation import MissingData
from mmattn.video.crash.datasets.clip_reading import FolderReader
from mmattn.video.crash.datasets.clips import CrashDataset, window_start
from mmattn.video.crash.datasets.layouts import clip_reader, read_clips
from mmattn.video.crash.datasets.records import ListedClip
from tests.video.crash.fake_datasets import (
    BOXES,
    WIDTH,
    clip_features,
    feature_folder,
    features_for,
    write_a3d,
    write_ccd,
    write_dad,
    write_features,
    write_nexar,
    write_nexar_kaggle,
    write_videos,
)


def dataset(layout: str, root: Path, **options: object) -> CrashDataset:
    return CrashDataset(read_clips(layout, root), clip_reader(layout, root), **options)  # type: ignore[arg-type]


def item_of(items: CrashDataset, name: str) -> dict[str, object]:
    return items[[clip.id for clip in items.clips].index(name)]


def test_an_item_holds_what_a_model_and_its_metrics_need(tmp_path: Path) -> None:
    item = item_of(dataset("ccd", write_ccd(tmp_path), with_boxes=True), "positive/000002")
    assert item["features"].shape == (50, BOXES + 1, WIDTH)  # type: ignore[attr-defined]
    assert item["features"].dtype == torch.float32  # type: ignore[attr-defined]
    assert item["valid"].dtype == torch.bool  # type: ignore[attr-defined]
    assert item["boxes"].shape == (50, BOXES, 6)  # type: ignore[attr-defined]
    assert (item["label"], item["toa"], item["reference"], item["fps"]) == (1, 21.0, 21.0, 10.0)
    assert (item["id"], item["dataset"]) == ("positive/000002", "ccd")
    assert item["path"] == str(tmp_path / "vgg16_features/positive/000002.npz")


@pytest.mark.parametrize(
    ("layout", "write", "name", "toa", "reference"),
    [
        ("dad", write_dad, "training/b001_000001", 90.0, 90.0),
        ("dad", write_dad, "training/b001_000000", 101.0, 100.0),
        ("ccd", write_ccd, "negative/000001", 51.0, 50.0),
        ("a3d", write_a3d, "positive/uX1_000001_0", 81.0, 81.0),
        ("a3d", write_a3d, "negative/uX0_000001_0", 101.0, 100.0),
        ("features", write_features, "train/002", 31.0, 15.0),
    ],
)
def test_times_are_those_of_each_dataset(
    layout: str, write: Callable[[Path], Path], name: str, toa: float, reference: float, tmp_path: Path
) -> None:
    item = item_of(dataset(layout, write(tmp_path)), name)
    assert (item["toa"], item["reference"]) == (toa, reference)


def test_slots_that_hold_nothing_are_not_valid(tmp_path: Path) -> None:
    item = dataset("dad", write_dad(tmp_path))[0]
    assert item["valid"][:3].tolist() == [[True, True, True, False]] * 2 + [[True] * 4]
    assert not item["features"][~item["valid"]].any()


@pytest.mark.parametrize("mode", ["box", "frame", "segment"])
def test_missing_data_is_zero_and_not_valid(mode: str, tmp_path: Path) -> None:
    root = write_dad(tmp_path)
    missing = MissingData(mode, 0.4, seed=1)  # type: ignore[arg-type]
    plain, broken = dataset("dad", root)[1], dataset("dad", root, missing=missing)[1]
    gone = torch.from_numpy(missing.mask(plain["id"], 100, BOXES))
    assert 0.2 < gone.float().mean() < 0.6
    assert not broken["features"][gone].any()
    assert torch.equal(broken["features"][~gone], plain["features"][~gone])
    assert torch.equal(broken["valid"], plain["valid"] & ~gone)


# Windows.


def clip(label: int, reference: float | None = None, name: str = "x") -> ListedClip:
    return ListedClip(name, "", "toy", "train", label, reference, reference)


@pytest.mark.parametrize(
    ("length", "reference", "start"),
    [(400, 300.0, 255), (400, 399.0, 350), (400, 20.0, 0), (50, 45.0, 0), (30, 20.0, 0), (400, 430.0, 350)],
)
def test_a_window_keeps_a_tenth_after_the_accident(length: int, reference: float, start: int) -> None:
    assert window_start(clip(1, reference), length, 50, reference, seed=0) == start


def test_the_window_of_a_clip_in_which_nothing_happens_is_drawn_by_its_id() -> None:
    starts = {window_start(clip(0, name=name), 400, 50, 400.0, seed=0) for name in "abcdefgh"}
    assert len(starts) > 5
    assert all(0 <= start <= 350 for start in starts)
    assert window_start(clip(0), 400, 50, 400.0, 0) == window_start(clip(0), 400, 50, 400.0, 0)


def test_a_near_miss_keeps_its_closest_moment_where_an_accident_would_be() -> None:
    assert window_start(clip(0, 300.0), 400, 50, 300.0, seed=0) == window_start(clip(1, 300.0), 400, 50, 300.0, seed=0)


def test_long_clips_are_cut_and_times_move_along(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path)
    folder.store("a", clip_features(0, 200, 150.0))
    folder.store("b", clip_features(1, 200, None))
    clips = [clip(1, 150.0, "a"), ListedClip("b", "", "toy", "train", 0)]
    items = CrashDataset(clips, FolderReader(folder), num_frames=40, with_boxes=True)
    whole = folder.load("a", with_boxes=True)
    accident, quiet = items[0], items[1]
    assert (accident["toa"], accident["reference"]) == (36.0, 36.0)
    assert np.array_equal(accident["features"].numpy(), whole.features[114:154].astype(np.float32))
    assert np.array_equal(accident["boxes"].numpy(), whole.boxes[114:154])  # type: ignore[index]
    assert quiet["toa"] == 41.0


def test_short_clips_repeat_their_last_frame(tmp_path: Path) -> None:
    item = dataset("features", write_features(tmp_path), num_frames=45)[1]
    assert item["features"].shape[0] == item["valid"].shape[0] == 45
    assert (item["features"][30:] == item["features"][29]).all()
    assert item["toa"] == 21.0
    assert dataset("features", tmp_path, num_frames=45)[0]["toa"] == 46.0


def test_a_trimmed_clip_stays_before_its_accident(tmp_path: Path) -> None:
    root = write_nexar(tmp_path / "nexar")
    clips = read_clips("nexar", root)
    folder = features_for(clips, tmp_path / "features")
    items = CrashDataset(clips, FolderReader(folder), num_frames=10)
    trimmed, whole = item_of(items, "test-public/positive/00001"), item_of(items, "train/positive/00001")
    # The 20 frames end 5 frames before the accident; the window is the last ten of them.
    assert (trimmed["toa"], trimmed["reference"]) == (15.0, 15.0)
    # 1.2 s is frame 12; a tenth of the window lies after it.
    assert whole["toa"] == 9.0


# The data module.


def module(layout: str, root: Path, **options: object) -> CrashDataModule:
    return CrashDataModule(layout, str(root), num_workers=0, **options)  # type: ignore[arg-type]


def ids(clips: list[ListedClip]) -> list[str]:
    return [clip.id for clip in clips]


def test_validation_is_carved_from_training_and_test_stays_whole(tmp_path: Path) -> None:
    root = write_features(tmp_path, per_kind=10)
    splits = module("features", root, val_split=0.2).splits()
    counts = {name: Counter(clip.label for clip in clips) for name, clips in splits.items()}
    assert counts == {"train": {0: 8, 1: 8}, "val": {0: 2, 1: 2}, "test": {0: 10, 1: 10}}
    everything = ids(splits["train"]) + ids(splits["val"])
    assert sorted(everything) == sorted(clip.id for clip in read_clips("features", root) if clip.split == "train")
    assert ids(module("features", root, val_split=0.2).splits()["val"]) == ids(splits["val"])
    assert ids(module("features", root, val_split=0.2, seed=7).splits()["val"]) != ids(splits["val"])


def test_selecting_on_test_validates_on_test_and_trains_on_everything(tmp_path: Path) -> None:
    splits = module("features", write_features(tmp_path, per_kind=5), select_on_test=True).splits()
    assert splits["val"] == splits["test"]
    assert len(splits["train"]) == 10


def test_validation_clips_of_the_dataset_come_first(tmp_path: Path) -> None:
    splits = module("features", write_features(tmp_path, splits=("train", "val", "test"))).splits()
    assert {name: len(clips) for name, clips in splits.items()} == {"train": 4, "val": 4, "test": 4}


def test_without_validation_share_there_is_no_validation(tmp_path: Path) -> None:
    data = module("features", write_features(tmp_path), val_split=0.0)
    assert data.val_dataset() is None
    with pytest.raises(InputError, match="needs validation data") as caught:
        data.val_dataloader()
    assert "val_split above 0" in caught.value.hint


def test_a_dataset_without_test_clips_can_hold_some_back(tmp_path: Path) -> None:
    root = write_nexar_kaggle(tmp_path / "nexar", per_kind=5)
    features = features_for(read_clips("nexar", root), tmp_path / "features").root
    plain = module("nexar", root, features_root=str(features))
    assert plain.test_dataset() is None
    with pytest.raises(InputError, match="needs test data") as caught:
        plain.test_dataloader()
    assert "test_split" in caught.value.hint
    held = module("nexar", root, features_root=str(features), test_split=0.2, val_split=0.25)
    assert {name: len(clips) for name, clips in held.splits().items()} == {"train": 6, "val": 2, "test": 2}


def test_less_training_data_leaves_validation_and_test_alone(tmp_path: Path) -> None:
    root = write_features(tmp_path, per_kind=10)
    all_of_it, half = (module("features", root, val_split=0.2, train_fraction=share) for share in (1.0, 0.5))
    assert len(half.splits()["train"]) == len(all_of_it.splits()["train"]) / 2
    assert half.splits()["val"] == all_of_it.splits()["val"]
    assert half.splits()["test"] == all_of_it.splits()["test"]


def test_data_may_be_missing_in_training_only_or_in_evaluation_only(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    for train, evaluation in ((True, False), (False, True)):
        data = module("features", root, missing_rate=1.0, missing_train=train, missing_eval=evaluation)
        assert data.train_dataset()[0]["features"][:, 1:].any().item() is not train  # type: ignore[index]
        assert data.test_dataset()[0]["features"][:, 1:].any().item() is not evaluation  # type: ignore[index]


def test_batches_hold_float32_times_and_int64_labels(tmp_path: Path) -> None:
    (batch,) = module("ccd", write_ccd(tmp_path), eval_batch_size=4, with_boxes=True).test_dataloader()
    assert batch["features"].shape == (4, 50, BOXES + 1, WIDTH)
    assert batch["boxes"].shape == (4, 50, BOXES, 6)
    assert (batch["toa"].dtype, batch["reference"].dtype, batch["fps"].dtype) == (torch.float32,) * 3
    assert batch["label"].tolist() == [1, 0, 1, 0]
    assert batch["label"].dtype == torch.int64
    assert batch["toa"].tolist() == [22.0, 51.0, 23.0, 51.0]
    assert batch["id"] == ["positive/000003", "negative/000003", "positive/000004", "negative/000004"]


def test_training_leaves_out_an_incomplete_batch_and_shuffles_by_epoch(tmp_path: Path) -> None:
    root = write_features(tmp_path, per_kind=8)
    loader = module("features", root, batch_size=5, val_split=0.0).train_dataloader()
    first = [name for batch in loader for name in batch["id"]]
    assert len(first) == 15
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    second = [name for batch in loader for name in batch["id"]]
    assert first != second
    assert first != sorted(first)
    whole = module("features", root, batch_size=5, val_split=0.0, drop_last=False).train_dataloader()
    assert sum(len(batch["id"]) for batch in whole) == 16


def test_fewer_clips_than_a_batch_are_an_error_not_an_empty_epoch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There are 4 training clips, fewer than a batch of 10"):
        module("features", write_features(tmp_path), val_split=0.0).train_dataloader()
    assert list(WholeBatches([0] * 6, seed=0, batch_size=3)) != list(range(6))


@pytest.mark.slow
def test_workers_give_the_batches_of_the_main_process(tmp_path: Path) -> None:
    root = write_dad(tmp_path)
    options = {"batch_size": 2, "val_split": 0.0, "missing_rate": 0.3, "missing_mode": "segment"}
    alone = list(module("dad", root, **options).train_dataloader())
    helped = list(CrashDataModule("dad", str(root), num_workers=1, **options).train_dataloader())  # type: ignore[arg-type]
    assert [batch["id"] for batch in alone] == [batch["id"] for batch in helped]
    assert all(torch.equal(a["features"], b["features"]) for a, b in zip(alone, helped, strict=True))


def test_clips_of_different_lengths_need_a_common_one(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path)
    items = []
    for name, frames in (("a", 20), ("b", 30)):
        folder.store(name, clip_features(0, frames, None))
        items.append(CrashDataset([clip(0, name=name)], FolderReader(folder))[0])
    with pytest.raises(InputError, match="Clips of 20 to 30 frames cannot be one batch") as caught:
        CrashDataModule().collate(items)
    assert "num_frames" in caught.value.hint


def test_videos_without_features_are_an_error_unless_told_to_leave_them_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_videos(tmp_path / "set", per_kind=3)
    clips = read_clips("videos", root)
    features = str(features_for(clips[2:], tmp_path / "features").root)
    with pytest.raises(InputError, match=r"2 of 12 clips have no features in '.*': train/crash_0, train/drive_0"):
        module("videos", root, features_root=features).splits()
    with caplog.at_level(logging.WARNING):
        splits = module("videos", root, features_root=features, skip_missing=True).splits()
    assert sum(map(len, splits.values())) == 10
    assert "2 of 12 clips have no features and are left out" in caplog.text


def test_an_accident_outside_its_clip_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    table = tmp_path / "clips.csv"
    table.write_text(table.read_text().replace(",1,21,", ",1,31,"))
    items = dataset("features", root)
    with pytest.raises(InputError, match="clip 'train/001' is at frame 31, expected 1 to 30"):
        items[1]


def test_without_a_dataset_every_run_says_what_to_set() -> None:
    data = CrashDataModule()
    for loader in (data.train_dataloader, data.test_dataloader, data.predict_dataloader):
        with pytest.raises(InputError, match="CrashDataModule has none configured") as caught:
            loader()
        assert "data.init_args.layout and root" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [{"val_split": 1.0}, {"val_split": -0.1}, {"test_split": 1.0}, {"train_fraction": 0.0}, {"train_fraction": 1.1},
     {"missing_rate": 2.0}, {"missing_mode": "pixel"}, {"batch_size": 0}, {"num_workers": -1}],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()),
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        CrashDataModule(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [0, -3])
def test_items_need_a_frame(frames: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"num_frames is {frames}"):
        dataset("features", write_features(tmp_path), num_frames=frames)
