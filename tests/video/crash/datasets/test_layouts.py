"""Every dataset in its true layout: which clips are listed, with which times, and what is said of what is wrong."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.video.crash.datasets.clip_reading import FolderReader, NpzReader, frames_before, reference_frame
from mmattn.video.crash.datasets.layouts import LAYOUTS, clip_reader, read_clips, scan_clips
from mmattn.video.crash.datasets.records import ListedClip, read_label
from tests.video.crash.fake_datasets import (
    BOXES,
    WIDTH,
    WRITERS,
    clip_arrays,
    features_for,
    write_a3d,
    write_ccd,
    write_dad,
    write_dad_batches,
    write_nexar,
    write_nexar_kaggle,
    write_table,
    write_video,
    write_videos,
)

HAVE_FEATURES = ["dad", "ccd", "a3d", "features"]


def by_id(clips: list[ListedClip]) -> dict[str, ListedClip]:
    return {clip.id: clip for clip in clips}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_lists_both_labels_of_both_splits(layout: str, tmp_path: Path) -> None:
    clips = read_clips(layout, WRITERS[layout](tmp_path / "set"))
    assert Counter((clip.split, clip.label) for clip in clips) == {
        ("train", 0): 2, ("train", 1): 2, ("test", 0): 2, ("test", 1): 2,
    }  # fmt: skip
    assert len(by_id(clips)) == len(clips)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_folder_is_recognised_as_its_layout(layout: str, tmp_path: Path) -> None:
    assert LAYOUTS.guess(WRITERS[layout](tmp_path / "set"))[0] == layout


@pytest.mark.parametrize("layout", HAVE_FEATURES)
def test_features_boxes_and_valid_slots_come_as_they_were_written(layout: str, tmp_path: Path) -> None:
    root = write_a3d(tmp_path / "set", pickles=False) if layout == "a3d" else WRITERS[layout](tmp_path / "set")
    clip, reader = read_clips(layout, root)[0], clip_reader(layout, root)
    loaded = reader(clip, with_boxes=layout != "a3d")
    frames = len(loaded.times)
    assert loaded.features.shape == (frames, BOXES + 1, WIDTH)
    assert loaded.features.dtype == np.float32
    assert loaded.valid.all(axis=1).tolist() == [False, False] + [True] * (frames - 2)
    assert np.diff(loaded.times) == pytest.approx(np.full(frames - 1, 1 / reader.fps))
    if layout != "a3d":
        assert loaded.boxes is not None
        assert loaded.boxes.shape == (frames, BOXES, 6)


# DAD.


def test_dad_accidents_are_at_frame_90_and_labels_are_column_1(tmp_path: Path) -> None:
    clips = by_id(read_clips("dad", write_dad(tmp_path)))
    assert [(clip.label, clip.toa) for clip in clips.values()] == [(0, None), (1, 90.0)] * 4
    assert list(clips)[3:5] == ["training/b001_000003", "testing/b001_000000"]


def test_dad_batches_hold_the_same_clips_under_the_names_of_the_split(tmp_path: Path) -> None:
    root = write_dad_batches(tmp_path)
    clips = [clip for clip in read_clips("dad", root) if clip.split == "train"]
    assert [clip.id for clip in clips] == [
        f"training/{name}"
        for name in ("b001_000000", "b001_000001", "b001_000000_01", "b002_000010", "b002_000011", "b002_000010_01")
    ]
    data, boxes = clip_arrays(11, 100, 90)
    loaded = clip_reader("dad", root)(clips[4], with_boxes=True)
    assert np.array_equal(loaded.features, data)
    assert np.array_equal(loaded.boxes, boxes)  # type: ignore[arg-type]


def test_dad_labels_that_are_not_one_hot_are_named(tmp_path: Path) -> None:
    root = write_dad(tmp_path)
    file = root / "vgg16_features/training/b001_000000.npz"
    np.savez(file, data=np.zeros(1), labels=np.array([1.0, 1.0]), det=np.zeros(1), ID="x")
    with pytest.raises(InputError, match=r"b001_000000\.npz': labels are \[1\.0, 1\.0\], expected one 1"):
        read_clips("dad", root)


def test_several_kinds_of_features_must_be_named(tmp_path: Path) -> None:
    write_dad(tmp_path)
    write_dad(tmp_path, feature="res101")
    with pytest.raises(InputError, match="several kinds of features, res101_features, vgg16_features: name one"):
        read_clips("dad", tmp_path)
    assert len(read_clips("dad", tmp_path, "res101")) == 8
    with pytest.raises(InputError, match="The folder i3d_features is missing; there is res101_features"):
        read_clips("dad", tmp_path, "i3d")


# CCD.


def test_ccd_accidents_start_at_the_first_1_within_the_clip(tmp_path: Path) -> None:
    root = write_ccd(tmp_path)
    table = root / "videos/Crash-1500.txt"
    lines = table.read_text().splitlines()
    lines[0] = "000001,[" + ", ".join(["1"] * 50) + "],7,yt,Night,Rainy,True"
    lines[1] = "000002,[" + ",".join(["0"] * 49 + ["1"]) + "],7,yt,Day,Snowy,no"
    table.write_text("\n".join(lines))
    toas = {clip.id: clip.toa for clip in read_clips("ccd", root)}
    assert toas["positive/000001"] == 1.0
    assert toas["positive/000002"] == 49.0
    assert toas["positive/000003"] == 22.0
    assert toas["negative/000001"] is None


def test_ccd_names_what_is_missing(tmp_path: Path) -> None:
    root = write_ccd(tmp_path)
    (root / "vgg16_features/negative/000003.npz").unlink()
    table = root / "videos/Crash-1500.txt"
    table.write_text("\n".join([*table.read_text().splitlines()[1:], "000009,[0, 0],1,y,Day,Normal,Yes"]))
    with (root / "vgg16_features/train.txt").open("a") as file:
        file.write("positive/000077\n")
    clips, scan = scan_clips("ccd", root)
    assert len(clips) == 6
    assert scan.problems == [
        "Line 4 of videos/Crash-1500.txt marks no accident: '000009,[0, 0],1,y,Day,Normal,Yes'.",
        "Line 5 of vgg16_features/train.txt is 'positive/000077', expected 'positive/ID.npz 1'.",
        "videos/Crash-1500.txt has no line for positive/000001.",
        "1 of 7 listed npz files are missing: vgg16_features/negative/000003.npz.",
    ]


def test_clips_that_are_listed_twice_are_named(tmp_path: Path) -> None:
    root = write_ccd(tmp_path)
    with (root / "vgg16_features/test.txt").open("a") as file:
        file.write("positive/000001.npz 1\n")
    with pytest.raises(InputError, match="1 clips are listed more than once: positive/000001"):
        read_clips("ccd", root)


# A3D.


def test_a3d_labels_belong_to_the_name_without_its_last_letter(tmp_path: Path) -> None:
    clips = by_id(read_clips("a3d", write_a3d(tmp_path)))
    assert clips["positive/uX1_000001_0"].toa == 81.0
    assert clips["positive/uX1_000002"].toa == 82.0
    assert clips["negative/uX0_000001_0"].toa is None


def test_a3d_accidents_of_frame_0_are_at_frame_1_and_unmarked_ones_are_named(tmp_path: Path) -> None:
    root = write_a3d(tmp_path)
    (root / "frame_labels/uX1_000000.txt").write_text("0 1\n1 1\n")
    assert by_id(read_clips("a3d", root))["positive/uX1_000000"].toa == 1.0
    (root / "frame_labels/uX1_000000.txt").write_text("0 0\n1 0\n")
    (root / "frame_labels/uX1_000002.txt").unlink()
    with pytest.raises(InputError) as caught:
        read_clips("a3d", root)
    assert "2 accidents have no file that marks an accident: frame_labels/uX1_000000.txt" in caught.value.message


def test_a3d_boxes_that_are_pickles_are_not_opened(tmp_path: Path) -> None:
    root = write_a3d(tmp_path)
    clip, reader = read_clips("a3d", root)[0], clip_reader("a3d", root)
    assert reader(clip).boxes is None
    with pytest.raises(InputError, match="has no boxes that can be read") as caught:
        reader(clip, with_boxes=True)
    assert "mmattn convert crash" in caught.value.hint


# Videos.


def test_nexar_has_whole_training_clips_and_trimmed_test_clips(tmp_path: Path) -> None:
    clips = by_id(read_clips("nexar", write_nexar(tmp_path)))
    whole, trimmed = clips["train/positive/00001"], clips["test-public/positive/00001"]
    assert (whole.toa, whole.in_seconds, whole.time_to_event, whole.split) == (1.2, True, None, "train")
    assert (trimmed.toa, trimmed.time_to_event, trimmed.split) == (None, 0.5, "test")
    assert (clips["train/negative/00002"].label, clips["train/negative/00002"].toa) == (0, None)
    assert whole.path == str(tmp_path / "train/positive/00001.mp4")


def test_nexar_of_kaggle_has_no_labelled_test_clips(tmp_path: Path) -> None:
    clips = by_id(read_clips("nexar", write_nexar_kaggle(tmp_path)))
    assert list(clips) == [f"train/{number:05d}" for number in range(1, 5)]
    assert [clip.label for clip in clips.values()] == [1, 0, 1, 0]


def test_a_users_videos_need_three_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "annotations.csv", ["video", "label"], [["a.mp4", 1]])
    with pytest.raises(InputError, match=r"annotations\.csv has no column file, time_of_event; it has video, label"):
        read_clips("videos", tmp_path)


def test_rows_of_a_users_table_that_make_no_sense_are_named_by_line(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    rows = [["a.mp4", 1, "", ""], ["a.mp4", "maybe", 1, ""], ["a.mp4", 1, "soon", ""], ["a.mp4", 1, -2, ""],
            ["a.mp4", 0, "", "later"], ["gone.mp4", 0, "", "test"]]  # fmt: skip
    write_table(tmp_path / "annotations.csv", ["file", "label", "time_of_event", "split"], rows)
    clips, scan = scan_clips("videos", tmp_path)
    assert clips == []
    assert scan.problems == [
        "annotations.csv, line 2: an accident needs time_of_event (or time_to_accident for a trimmed clip).",
        "annotations.csv, line 3: label is 'maybe', expected 0 or 1.",
        "annotations.csv, line 4: time_of_event is 'soon', expected seconds.",
        "annotations.csv, line 5: time_of_event is -2 s, expected a time after the start.",
        "annotations.csv, line 6: split is 'later', expected train, val or test.",
        "1 of 1 listed videos are missing: gone.mp4.",
    ]


def test_tables_with_a_byte_order_mark_spaces_and_empty_lines_are_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    text = "file, label ,time_of_event\n\na.mp4, 1 , 0.5 \n"
    (tmp_path / "annotations.csv").write_text("\ufeff" + text, encoding="utf-8")
    (clip,) = read_clips("videos", tmp_path)
    assert (clip.id, clip.label, clip.toa, clip.split, clip.dataset) == ("a", 1, 0.5, "train", tmp_path.name)


@pytest.mark.parametrize(("text", "label"), [("1", 1), ("0.0", 0), ("True", 1), ("negative", 0), ("Yes", 1)])
def test_labels_are_read_as_people_write_them(text: str, label: int) -> None:
    assert read_label({"label": text}, "label") == label


def test_videos_need_a_feature_folder_and_other_layouts_refuse_one(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "set")
    with pytest.raises(InputError, match="features_root does not say where their features are"):
        clip_reader("videos", root)
    folder = features_for(read_clips("videos", root), tmp_path / "features")
    reader = clip_reader("videos", root, folder.root)
    assert isinstance(reader, FolderReader)
    assert reader(read_clips("videos", root)[0]).features.shape == (20, BOXES + 1, WIDTH)
    with pytest.raises(InputError, match="features_root is for videos"):
        clip_reader("dad", root, folder.root)


# Times.

TIMES = np.arange(50) / 10


def clip(label: int = 1, **options: object) -> ListedClip:
    return ListedClip("x", "x.npz", "toy", "train", label, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "frames"), [(3.3, 33.0), (5.7, 50 + 7.0), (4.95, 50.0), (0.05, 1.0), (2.9001, 29.0), (2.95, 30.0)]
)
def test_seconds_become_the_number_of_frames_before(seconds: float, frames: float) -> None:
    assert frames_before(clip(toa=seconds, in_seconds=True), TIMES, 10.0) == pytest.approx(frames)


def test_times_of_a_variable_frame_rate_count_real_frames() -> None:
    uneven = np.array([0.0, 0.1, 0.5, 0.6, 2.0])
    assert frames_before(clip(toa=1.0, in_seconds=True), uneven, 10.0) == 4.0


def test_a_trimmed_clip_has_its_accident_beyond_the_end() -> None:
    assert frames_before(clip(time_to_event=1.5), TIMES, 10.0) == 65.0


def test_without_an_accident_toa_is_one_more_than_the_frames() -> None:
    assert frames_before(clip(0), TIMES, 10.0) == 51.0


@pytest.mark.parametrize("toa", [0.0, 50.5, 51.0])
def test_an_accident_outside_its_clip_is_refused(toa: float) -> None:
    with pytest.raises(InputError, match=rf"clip 'x' is at frame {toa:g}, expected 1 to 50 \('x\.npz'\)"):
        frames_before(clip(toa=toa), TIMES, 10.0)


def test_the_reference_is_the_closest_moment_the_accident_or_the_end() -> None:
    assert reference_frame(clip(0, reference=15.0), 51.0, TIMES, 10.0) == 15.0
    assert reference_frame(clip(0, reference=1.5, in_seconds=True), 51.0, TIMES, 10.0) == 15.0
    assert reference_frame(clip(toa=33.0), 33.0, TIMES, 10.0) == 33.0
    assert reference_frame(clip(0), 51.0, TIMES, 10.0) == 50.0


# What is wrong with files.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "has no array 'data'; it has labels, det, ID"),
        ({"data": np.zeros((99, 4, 6), np.float32)}, r"data has shape \(99, 4, 6\), expected \(100, any, any\)"),
        ({"data": np.zeros((100, 24), np.float32)}, r"data has shape \(100, 24\)"),
        ({"data": np.full((100, 4, 6), "x")}, "data holds <U1, expected numbers"),
        ({"data": np.where(np.arange(100)[:, None, None] == 7, np.nan, np.ones((100, 4, 6)))}, "features of frame 7"),
        ({"data": np.where(np.arange(100)[:, None, None] == 3, np.inf, np.ones((100, 4, 6)))}, "features of frame 3"),
        ({"det": None}, "has no array 'det'"),
        ({"det": np.zeros((100, 5, 6), np.float32)}, r"det has shape \(100, 5, 6\), expected \(100, 3, 6\)"),
    ],
    ids=["no data", "99 frames", "flat", "text", "nan", "infinite", "no boxes", "5 boxes"],
)  # fmt: skip
def test_a_wrong_npz_is_named_with_what_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    root = write_dad(tmp_path)
    file = root / "vgg16_features/training/b001_000000.npz"
    with np.load(file) as arrays:
        content = {**arrays, **change}
    np.savez(file, **{name: value for name, value in content.items() if value is not None})
    clips = read_clips("dad", root)
    with pytest.raises(InputError, match=message) as caught:
        clip_reader("dad", root)(clips[0], with_boxes=True)
    assert "b001_000000.npz" in caught.value.message


def test_features_so_large_that_their_sum_overflows_are_still_finite(tmp_path: Path) -> None:
    root = write_dad(tmp_path)
    file = root / "vgg16_features/training/b001_000000.npz"
    huge = np.full((100, 4, 6), 3e38, np.float32)
    np.savez(file, data=huge, labels=np.array([1, 0]), det=np.zeros((100, 3, 6)), ID="x")
    assert clip_reader("dad", root)(read_clips("dad", root)[0]).features.max() == pytest.approx(3e38)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_is_refused_by_every_layout(layout: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_clips(layout, tmp_path)


def test_a_folder_of_another_layout_is_recognised_in_the_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_clips("ccd", write_dad(tmp_path))
    assert caught.value.hint == "It looks like dad."


def test_unknown_layouts_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset layout 'dada'") as caught:
        read_clips("dada", tmp_path)
    assert caught.value.hint == f"Known are: {', '.join(LAYOUTS)}."
    with pytest.raises(InputError, match="does not exist"):
        read_clips("dad", tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        read_clips("dad", tmp_path / "file")


def test_public_layouts_have_the_published_rates_and_lengths() -> None:
    readers = {name: layout.reader for name, layout in LAYOUTS.items()}
    assert readers["dad"] == NpzReader(20.0, 100, "data")
    assert readers["ccd"] == NpzReader(10.0, 50, "data")
    assert readers["a3d"] == NpzReader(20.0, 100, "features")


def test_the_table_of_a_feature_folder_is_checked_line_by_line(tmp_path: Path) -> None:
    root = WRITERS["features"](tmp_path / "set")
    with (root / "clips.csv").open("a", newline="") as file:
        rows = [["a", "", "train", 1, "", ""], ["b", "", "later", 0, "", ""], ["../x", "", "train", 0, "", ""],
                ["gone", "", "test", 0, "", ""]]  # fmt: skip
        csv.writer(file).writerows(rows)
    _, scan = scan_clips("features", root)
    assert scan.problems == [
        "clips.csv, line 10: an accident needs its toa.",
        "clips.csv, line 11: split is 'later', expected train, val or test.",
        "clips.csv, line 12: The clip id '../x' cannot be a file name.",
        "1 of 9 listed clips are missing: clips/gone.safetensors.",
    ]
