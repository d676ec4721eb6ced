"""``mmattn data check crash``: complete datasets pass, and each fault is named."""

from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.video.crash.datasets.check import check
from mmattn.video.crash.datasets.layouts import LAYOUTS, read_clips
from mmattn.video.crash.datasets.readers import ClipLayout
from mmattn.video.crash.datasets.records import ListedClip, Scan
from tests.video.crash.fake_datasets import (
    WRITERS,
    features_for,
    write_a3d,
    write_ccd,
    write_dad,
    write_dad_batches,
    write_features,
    write_nexar_kaggle,
    write_table,
    write_video,
    write_videos,
)


def check_dataset(root: Path, layout: str | None = None) -> tuple[bool, list[str]]:
    return LAYOUTS.check(root, layout, lambda name: check(name, root))


def change_npz(file: Path, **arrays: object) -> None:
    with np.load(file) as stored:
        content = {**stored, **arrays}
    np.savez(file, **{name: value for name, value in content.items() if value is not None})


@pytest.mark.parametrize("layout", WRITERS)
def test_a_complete_dataset_passes_whether_its_layout_is_named_or_guessed(layout: str, tmp_path: Path) -> None:
    root = WRITERS[layout](tmp_path / "set")
    ok, lines = check_dataset(root, layout)
    assert (ok, lines[-1]) == (True, "ok"), lines
    assert lines[0] == f"{root} as {layout}"
    assert "  train: 2 accidents, 2 other clips" in lines
    assert check_dataset(root) == (True, ["Layout guessed.", *lines])


def test_batches_of_dad_pass(tmp_path: Path) -> None:
    assert check("dad", write_dad_batches(tmp_path)).problems == []


def test_pickled_boxes_are_a_note_with_the_command_that_converts_them(tmp_path: Path) -> None:
    root = write_a3d(tmp_path)
    (note,) = check("a3d", root).notes
    assert note.startswith("8 files of boxes are pickles, which are never opened here.")
    assert f"mmattn convert crash {root} --to boxes --output {root}" in note
    assert check("a3d", write_a3d(tmp_path / "plain", pickles=False)).notes == []


def test_every_fault_of_a_dataset_is_named_in_one_look(tmp_path: Path) -> None:
    root = write_ccd(tmp_path)
    folder = root / "vgg16_features"
    nan = np.full((50, 4, 6), np.nan, np.float32)
    change_npz(folder / "positive/000001.npz", data=nan)
    change_npz(folder / "positive/000002.npz", data=np.zeros((49, 4, 6), np.float32))
    change_npz(folder / "positive/000003.npz", det=None)
    change_npz(folder / "negative/000001.npz", data=np.zeros((50, 4, 7), np.float32))
    (folder / "negative/000002.npz").write_bytes(b"PK")
    (folder / "negative/000003.npz").unlink()
    change_npz(folder / "negative/000004.npz", labels=np.array([0.0, 1.0]))
    problems = [text.replace(str(folder), "F") for text in check("ccd", root).problems]
    assert problems == [
        "1 of 8 listed npz files are missing: vgg16_features/negative/000003.npz.",
        "'F/positive/000001.npz': features of frame 0 are not finite numbers.",
        "'F/positive/000002.npz': data has shape (49, 4, 6), expected (50, any, any).",
        "'F/negative/000002.npz' is damaged or no npz file: File is not a zip file.",
        "'F/positive/000003.npz' has no array 'det'; it has data, labels, ID.",
        "'F/negative/000004.npz': labels are [0.0, 1.0], and the dataset lists it as 0.",
        "Clips have features of different sizes: 1 of 3 boxes x 6, 1 of 3 boxes x 7.",
    ]


def test_accidents_outside_their_clip_are_named(tmp_path: Path) -> None:
    root = write_features(tmp_path / "features")
    table = root / "clips.csv"
    text = table.read_text()
    table.write_text(text.replace("train,1,21,", "train,1,0,").replace("test,1,23,", "test,1,31,"))
    path = root / "clips"
    assert check("features", root).problems == [
        f"The accident of clip 'train/001' is at frame 0, expected 1 to 30 ('{path}/train/001.safetensors').",
        f"The accident of clip 'test/003' is at frame 31, expected 1 to 30 ('{path}/test/003.safetensors').",
    ]
    a3d = write_a3d(tmp_path / "a3d")
    marks = "".join(f"{frame} {int(frame >= 105)}\n" for frame in range(120))
    (a3d / "frame_labels/uX1_000000.txt").write_text(marks)
    (problem,) = check("a3d", a3d).problems
    assert "is at frame 105, expected 1 to 100" in problem


def test_references_outside_their_clip_are_named(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    table = root / "clips.csv"
    table.write_text(table.read_text().replace("train/000,toy,train,0,,15", "train/000,toy,train,0,,45"))
    assert check("features", root).problems == ["The reference of clip 'train/000' is frame 45, expected 1 to 30."]


def test_a_split_of_one_kind_is_named(tmp_path: Path) -> None:
    root = write_ccd(tmp_path)
    file = root / "vgg16_features/test.txt"
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines() if line.endswith(" 0")))
    assert check("ccd", root).problems == [
        "The test split has no clip with an accident; metrics that need one are n/a."
    ]


def test_videos_are_decoded_and_their_times_compared_with_their_length(tmp_path: Path) -> None:
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [["a.mp4", 1, 1.0, ""], ["b.mp4", 1, 7.5, ""], ["c.mp4", 0, "", 3.0], ["broken.mp4", 0, "", ""]]
    write_table(tmp_path / "annotations.csv", ["file", "label", "time_of_event", "time_of_reference"], rows)
    problems = check("videos", tmp_path).problems
    assert len(problems) == 3
    assert problems[0].startswith("The accident of clip 'b' is at 7.5 s of a video of 2.00 s")
    assert problems[1].startswith("The reference of clip 'c' is at 3 s of a video of 2.00 s")
    assert "broken.mp4" in problems[2]


def test_features_of_videos_are_checked_when_their_folder_is_given(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "set")
    folder = features_for(read_clips("videos", root)[1:], tmp_path / "features")
    assert check("videos", root).ok
    problems = check("videos", root, features_root=folder.root).problems
    assert problems == [
        f"The features of the clip 'train/crash_0' are missing ('{folder.root}/clips/train/crash_0.safetensors')."
    ]


def test_many_problems_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    root = write_nexar_kaggle(tmp_path, per_kind=2)
    rows = [[number, "soon", "", 1] for number in range(60)]
    write_table(root / "train.csv", ["id", "time_of_event", "time_of_alert", "target"], rows)
    ok, lines = check_dataset(root, "nexar")
    assert not ok
    assert lines[-2:] == ["  and 21 more", "61 problems"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_says_what_was_expected(layout: str, tmp_path: Path) -> None:
    if layout == "features":
        with pytest.raises(InputError, match=r"has no manifest\.json"):
            check(layout, tmp_path)
        return
    report = check(layout, tmp_path)
    assert report.problems[0].startswith(f"No clip was found as {layout}; expected ")
    with pytest.raises(InputError, match="looks like none of the known layouts"):
        check_dataset(tmp_path)


def test_a_folder_of_another_layout_is_recognised(tmp_path: Path) -> None:
    report = check("ccd", write_dad(tmp_path))
    assert report.problems[0] == "No clip was found as ccd; this looks like dad."


def test_a_layout_is_one_function_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def labels_in_names(scan: Scan, feature: str | None) -> list[ListedClip]:
        files = sorted((scan.root / "drives").glob("*.mp4"))
        return [
            ListedClip(file.stem, str(file), "drives", "test", int(file.stem == "crash"), 1.0, in_seconds=True)
            for file in files
        ]

    monkeypatch.setitem(LAYOUTS, "drives", ClipLayout(labels_in_names, ("drives/*.mp4",)))
    for name in ("crash", "quiet"):
        write_video(tmp_path / "drives" / f"{name}.mp4")
    assert [clip.id for clip in read_clips("drives", tmp_path)] == ["crash", "quiet"]
    assert check_dataset(tmp_path) == (
        True, ["Layout guessed.", f"{tmp_path} as drives", "  test: 1 accidents, 1 other clips", "ok"]
    )  # fmt: skip
