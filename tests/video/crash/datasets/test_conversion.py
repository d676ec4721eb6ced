"""Public datasets in faster forms: the same clips, the same numbers, interrupted runs continued."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.video.crash.datasets.conversion import convert_detections, convert_features, split_dad_batches
from mmattn.video.crash.datasets.layouts import clip_reader, read_clips
from tests.video.crash.fake_datasets import WRITERS, write_a3d, write_ccd, write_dad, write_dad_batches, write_videos


def test_split_batches_are_the_same_clips_one_by_one(tmp_path: Path) -> None:
    batches = write_dad_batches(tmp_path / "dad")
    assert split_dad_batches(batches, tmp_path / "split") == 12
    one, two = read_clips("dad", batches), read_clips("dad", tmp_path / "split")
    assert sorted(clip.id for clip in one) == sorted(clip.id for clip in two)
    by_id = {clip.id: clip for clip in two}
    for clip in one:
        other = by_id[clip.id]
        assert (clip.label, clip.toa, clip.split) == (other.label, other.toa, other.split)
        first = clip_reader("dad", batches)(clip, with_boxes=True)
        second = clip_reader("dad", tmp_path / "split")(other, with_boxes=True)
        assert np.array_equal(first.features, second.features)
        assert np.array_equal(first.boxes, second.boxes)  # type: ignore[arg-type]
    with np.load(tmp_path / "split/vgg16_features/training/b001_000000_01.npz") as arrays:
        assert sorted(arrays) == ["ID", "data", "det", "labels"]
        assert str(arrays["ID"]) == "b001_000000_01"
        assert arrays["data"].dtype == np.float32


def test_an_id_in_a_batch_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    batches = write_dad_batches(tmp_path / "dad")
    file = sorted((batches / "features" / "training").glob("*.npz"))[0]
    with np.load(file) as arrays:
        changed = {name: arrays[name] for name in arrays}
    changed["ID"] = changed["ID"].astype("U60")
    changed["ID"][0] = "x/../../../../stray"
    np.savez(file, **changed)
    with pytest.raises(InputError, match="leads outside of"):
        split_dad_batches(batches, tmp_path / "deep" / "split")
    assert not list(tmp_path.rglob("*stray*"))


def test_splitting_again_writes_what_is_missing_only(tmp_path: Path) -> None:
    batches = write_dad_batches(tmp_path)
    split_dad_batches(batches, tmp_path)
    (tmp_path / "vgg16_features/testing/b002_000011.npz").unlink()
    assert split_dad_batches(batches, tmp_path) == 1


def test_a_damaged_batch_is_named(tmp_path: Path) -> None:
    batches = write_dad_batches(tmp_path)
    file = batches / "features/training/batch_002.npz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"batch_002\.npz' is damaged"):
        split_dad_batches(batches, tmp_path / "split")


def test_a_folder_without_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no batches of DAD"):
        split_dad_batches(write_dad(tmp_path), tmp_path / "split")


@pytest.mark.parametrize("layout", ["dad", "ccd", "a3d"])
def test_converted_features_are_the_same_dataset_in_half_precision(layout: str, tmp_path: Path) -> None:
    root = WRITERS[layout](tmp_path / "set")
    if layout == "a3d":
        convert_detections(root)
    result = convert_features(layout, root, tmp_path / "features")
    assert (result.made, result.kept, result.errors) == (8, 0, [])
    originals = read_clips(layout, root)
    copies = {clip.id: clip for clip in read_clips("features", tmp_path / "features")}
    assert list(copies) == [clip.id for clip in originals]
    reader, fast = clip_reader(layout, root), clip_reader("features", tmp_path / "features")
    assert fast.fps == reader.fps
    for clip in originals:
        copy = copies[clip.id]
        assert (clip.label, clip.toa, clip.split, clip.dataset) == (copy.label, copy.toa, copy.split, copy.dataset)
        before, after = reader(clip, with_boxes=True), fast(copy, with_boxes=True)
        assert np.abs(before.features - after.features).max() < 1e-3
        assert np.array_equal(before.valid, after.valid)
        assert np.array_equal(before.boxes, after.boxes)  # type: ignore[arg-type]


def test_a_clip_that_fails_is_reported_and_left_out_and_made_when_it_is_repaired(tmp_path: Path) -> None:
    root = write_ccd(tmp_path / "set")
    file = root / "vgg16_features/positive/000002.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    result = convert_features("ccd", root, tmp_path / "features")
    assert (result.made, [error["id"] for error in result.errors]) == (7, ["positive/000002"])
    assert len(read_clips("features", tmp_path / "features")) == 7
    file.write_bytes(whole)
    again = convert_features("ccd", root, tmp_path / "features")
    assert (again.made, again.kept, again.errors) == (1, 7, [])
    assert len(read_clips("features", tmp_path / "features")) == 8


def test_features_beyond_half_precision_are_reported(tmp_path: Path) -> None:
    root = write_ccd(tmp_path / "set")
    file = root / "vgg16_features/negative/000001.npz"
    with np.load(file) as arrays:
        np.savez(file, **{**arrays, "data": arrays["data"] * np.float32(1e6)})
    (error,) = convert_features("ccd", root, tmp_path / "features").errors
    assert error["error"] == "Features of frame 0 are not finite numbers that half precision holds."


def test_pickled_boxes_stay_out_until_they_are_converted(tmp_path: Path) -> None:
    root = write_a3d(tmp_path / "set")
    convert_features("a3d", root, tmp_path / "plain")
    clip = read_clips("features", tmp_path / "plain")[0]
    with pytest.raises(InputError, match="damaged or incomplete"):
        clip_reader("features", tmp_path / "plain")(clip, with_boxes=True)
    convert_detections(root)
    with pytest.raises(InputError, match="made in another way"):
        convert_features("a3d", root, tmp_path / "plain")


def test_a_dataset_of_videos_has_no_features_to_convert(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'videos' has no features to convert") as caught:
        convert_features("videos", write_videos(tmp_path / "set"), tmp_path / "out")
    assert caught.value.hint == "Layouts that have: dad, ccd, a3d."


def test_a_limit_converts_the_first_clips(tmp_path: Path) -> None:
    convert_features("ccd", write_ccd(tmp_path / "set"), tmp_path / "features", limit=3)
    assert len(read_clips("features", tmp_path / "features")) == 3


# Detections of A3D.


def test_pickled_boxes_become_npz_and_hostile_ones_are_refused_one_by_one(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, (f"open({str(tmp_path / 'victim')!r}, 'w')",)

    root = write_a3d(tmp_path / "set")
    (root / "detections/positive/uX1_000002.pkl").write_bytes(pickle.dumps([Hostile()]))
    result = convert_detections(root)
    assert result.made == 7
    (error,) = result.errors
    assert error["id"] == "detections/positive/uX1_000002"
    assert "was refused: it names builtins.eval" in error["error"]
    assert not (tmp_path / "victim").exists()
    clips = {clip.id: clip for clip in read_clips("a3d", root)}
    reader = clip_reader("a3d", root)
    boxes = reader(clips["negative/uX0_000001_0"], with_boxes=True).boxes
    stored = pickle.loads((root / "detections/negative/uX0_000001_0.pkl").read_bytes())
    assert np.array_equal(boxes, np.array(stored))  # type: ignore[arg-type]
    assert clips["positive/uX1_000002"].boxes_path == ""
    assert convert_detections(root).kept == 7


def test_boxes_can_go_to_another_folder(tmp_path: Path) -> None:
    assert convert_detections(write_a3d(tmp_path / "set"), tmp_path / "out").made == 8
    assert (tmp_path / "out/detections/positive/uX1_000000.npz").is_file()


@pytest.mark.parametrize(
    "value",
    [3, "boxes", {}, [], [[]], [[[1, 2, 3, 4, 5]]], [[[1] * 6], [[1] * 6] * 2], [[["a"] * 6]], [np.zeros(6)], [[1.0]]],
    ids=["number", "text", "dict", "no frame", "no box", "5 columns", "ragged", "text in it", "flat", "too flat"],
)
def test_pickles_of_something_else_are_reported(value: object, tmp_path: Path) -> None:
    path = tmp_path / "detections/positive/x.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(value))
    (error,) = convert_detections(tmp_path).errors
    assert "does not hold boxes" in error["error"]


def test_a_folder_without_pickles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no detections/positive/\*\.pkl"):
        convert_detections(tmp_path)
