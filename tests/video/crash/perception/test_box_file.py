"""Boxes from files: every form, every mistake named with its line, and none used before its time."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.video.crash.perception.box_file import find_box_file, read_box_file
from mmattn.video.crash.perception.box_table import BoxTable, FileDetector

STAMPS = np.arange(10) / 20


def text(tmp_path: Path, content: object, name: str = "boxes.csv") -> Path:
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def same_two_boxes(table: BoxTable) -> None:
    """Frame 0 has a car, frame 2 (0.1 s) a bus."""
    assert table.times.tolist() == [0.0, 0.1]
    assert table.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 20, 26]]
    assert table.scores.tolist() == [0.9, 0.5]
    assert table.kinds.tolist() == [0, 1]


CSV = "frame,x1,y1,x2,y2,score,class\n0,1,2,30,40,0.9,car\n2,5,6,20,26,0.5,bus\n"
SIZES = "Class , Time, x, y, width, height, score\nCAR,0.0,1,2,29,38,0.9\n1,0.1,5,6,15,20,0.5\n"
OBJECTS = [
    {"frame": 0, "x1": 1, "y1": 2, "x2": 30, "y2": 40, "score": 0.9, "class": "car"},
    {"frame": 2, "x1": 5, "y1": 6, "x2": 20, "y2": 26, "score": 0.5, "class": 1},
]
FRAMES = [
    {"frame": 0, "boxes": [[1, 2, 30, 40, 0.9, "car"]]},
    {"frame": 1, "boxes": []},
    {"frame": 2, "boxes": [[5, 6, 20, 26, 0.5, "truck"]]},
]
COCO = [
    {"image_id": 0, "bbox": [1, 2, 29, 38], "score": 0.9, "category_id": 3},
    {"image_id": 2, "bbox": [5, 6, 15, 20], "score": 0.5, "category_id": 6},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", CSV), ("a.CSV", SIZES), ("a.json", OBJECTS), ("a.json", FRAMES), ("a.json", COCO)],
    ids=["csv", "csv_sizes_times", "json_objects", "json_frames", "json_coco"],
)
def test_every_form_of_text_means_the_same_boxes(tmp_path: Path, name: str, content: object):
    same_two_boxes(read_box_file(text(tmp_path, content, name), STAMPS))


def test_an_npz_as_the_public_features_have_it_is_read(tmp_path: Path):
    det = np.zeros((3, 4, 6), np.float32)
    det[0, 1] = [1, 2, 30, 40, 0.9, 0]
    det[2, 0] = [5, 6, 20, 26, 0.5, 1]
    np.savez(tmp_path / "a.npz", det=det, data=np.zeros(3))
    table = read_box_file(tmp_path / "a.npz", STAMPS)
    np.testing.assert_allclose(table.scores, [0.9, 0.5])
    assert table.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 20, 26]]
    assert table.kinds.tolist() == [0, 1]


def test_a_flat_npz_with_times_is_read(tmp_path: Path):
    boxes = np.array([[1, 2, 30, 40], [5, 6, 20, 26]])
    np.savez(tmp_path / "a.npz", time=[0.0, 0.1], boxes=boxes, scores=[0.9, 0.5], classes=np.array(["car", "truck"]))
    same_two_boxes(read_box_file(tmp_path / "a.npz", STAMPS))
    np.savez(tmp_path / "b.npz", frame=[0, 2], boxes=boxes)
    plain = read_box_file(tmp_path / "b.npz", STAMPS)
    assert plain.scores.tolist() == [1.0, 1.0]
    assert plain.kinds.tolist() == [-1, -1]


def test_score_and_class_may_be_left_out(tmp_path: Path):
    table = read_box_file(text(tmp_path, "frame,x1,y1,x2,y2\n1,0,0,5,5\n"), STAMPS)
    assert (table.scores.tolist(), table.kinds.tolist()) == ([1.0], [-1])
    assert table.times.tolist() == [0.05]


def test_files_without_boxes_are_fine(tmp_path: Path):
    for name, content in [("a.csv", "frame,x1,y1,x2,y2\n"), ("a.json", []), ("b.json", [{"frame": 0, "boxes": []}])]:
        table = read_box_file(text(tmp_path, content, name), STAMPS)
        assert len(table.at(0.0).boxes) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", CSV.replace("30,40", "thirty,40"), r"line 2: x2 is 'thirty', expected a number"),
        ("a.csv", CSV.replace("20,26", "4,26"), r"line 3: the box 5, 6, 4, 26 has no area"),
        ("a.csv", CSV.replace("0.5", "1.5"), r"line 3: score is 1.5, expected a number in \[0, 1\]"),
        ("a.csv", CSV.replace("\n2,", "\n2.5,"), r"line 3: frame is 2.5, expected a whole number"),
        ("a.csv", CSV.replace("\n2,", "\n-2,"), r"line 3: frame is -2"),
        ("a.csv", CSV.replace("bus", "9"), r"line 3: class is 9, expected a name or a number from 0 to 3"),
        ("a.csv", CSV.replace("0.5,bus", "0.5"), r"line 3: expected 7 values"),
        ("a.csv", CSV.replace("30", "nan"), r"line 2: a number is not finite"),
        ("a.csv", "x1,y1,x2,y2\n", r"line 1: there is neither frame nor time"),
        ("a.csv", "", r"line 1: there is neither frame nor time among no names"),
        ("a.csv", "frame,left,top\n", r"line 1: expected x1, y1, x2, y2 or x, y, width, height, got frame, left, top"),
        ("a.json", '[{"frame": 0,\n "x1": }]', r"line 2: Expecting value"),
        ("a.json", {"boxes": []}, r"holds no list of objects"),
        ("a.json", [*OBJECTS, {"frame": 3}], r"entry 2: x is None, expected a number"),
        ("a.json", [*COCO, {"image_id": 3, "bbox": [1, 2]}], r"entry 2: bbox is \[1, 2\], expected 4 numbers"),
        ("a.json", [{"frame": 0, "boxes": [[1, 2]]}], r"entry 0, box 0: expected \[x1, y1, x2, y2, score, class\]"),
        ("a.json", [{"frame": True, "boxes": [[0, 0, 1, 1]]}], r"entry 0, box 0: frame is True"),
        ("a.csv", CSV.replace("\n2,", "\n12,"), r"boxes for frame 12; its video has 10 frames"),
        ("a.txt", CSV, r"is no file of boxes, expected .csv, .json, .npz"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, name: str, content: object, message: str):
    with pytest.raises(InputError, match=message):
        read_box_file(text(tmp_path, content, name), STAMPS)


def test_broken_npz_files_are_named(tmp_path: Path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"torn\.npz' is damaged"):
        read_box_file(tmp_path / "torn.npz", STAMPS)
    np.savez(tmp_path / "wrong.npz", det=np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"det is float64 \(3, 4\), expected numbers \(T, N, 6\)"):
        read_box_file(tmp_path / "wrong.npz", STAMPS)
    np.savez(tmp_path / "half.npz", frame=[0, 1], boxes=np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"has frame \(2,\), boxes \(3, 4\); expected det"):
        read_box_file(tmp_path / "half.npz", STAMPS)
    np.savez(tmp_path / "pickled.npz", det=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="det holds object, expected numbers"):
        read_box_file(tmp_path / "pickled.npz", STAMPS)
    det = np.zeros((1, 2, 6))
    det[0, 1] = [0, 0, 5, 5, 3, 0]
    np.savez(tmp_path / "score.npz", det=det)
    with pytest.raises(InputError, match=r"det\[0, 1\]: score is 3"):
        read_box_file(tmp_path / "score.npz", STAMPS)
    with pytest.raises(InputError, match="There is no file"):
        read_box_file(tmp_path / "none.npz", STAMPS)


def test_a_folder_holds_one_file_for_each_video(tmp_path: Path):
    (tmp_path / "drive.json").write_text("[]")
    assert find_box_file(tmp_path, "videos/drive.mp4") == tmp_path / "drive.json"
    assert find_box_file(tmp_path / "drive.json", "other.mp4") == tmp_path / "drive.json"
    with pytest.raises(InputError, match=r"has no boxes for the video 'walk\.mp4'") as caught:
        find_box_file(tmp_path, "walk.mp4")
    assert "walk.csv, walk.json or walk.npz" in caught.value.hint
    with pytest.raises(InputError, match="do not exist"):
        find_box_file(tmp_path / "nowhere", "walk.mp4")


def table_at(*times: float) -> BoxTable:
    count = len(times)
    boxes = np.column_stack([np.arange(count), np.zeros(count), np.arange(count) + 9, np.full(count, 9)])
    return BoxTable(np.array(times), boxes.astype(float), np.ones(count), np.zeros(count, np.int64))


def test_a_frame_the_detector_found_empty_has_no_boxes():
    table = table_at(0.0, 0.1, 0.3, 0.4)
    assert [len(one.boxes) for one in FileDetector(table)([None] * 5, [0.0, 0.1, 0.2, 0.3, 0.4])] == [1, 1, 0, 1, 1]


def test_boxes_of_every_second_frame_serve_all_frames():
    table = table_at(0.0, 0.2, 0.4)
    found = [table.at(time).boxes[:, 0].tolist() for time in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    assert found == [[0], [0], [1], [1], [2], [2], []]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=20, unique=True), st.floats(-1, 25))
def test_boxes_of_the_future_are_never_used(tenths: list[int], time: float):
    table = table_at(*(tenth / 10 for tenth in tenths))
    for left in table.at(time).boxes[:, 0]:
        assert table.times[int(left)] <= time + 1e-3 + 1e-12
