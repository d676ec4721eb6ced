"""Every layout read from its true form on disk, and every way a folder can be wrong named in the message."""

import json
import shutil
from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.vision.crane.data import Source
from mmattn.vision.crane.datasets.layouts import LAYOUTS, check, read_layout, write_meta
from mmattn.vision.crane.datasets.readers import PictureLayout
from mmattn.vision.crane.datasets.records import Record, Scan
from tests.vision.crane.fake_datasets import PUBLISHED, write_dataset, write_image, write_mask

_ALL_ANOMALOUS = {"isic", "cvc-colondb", "cvc-clinicdb", "tn3k", "endo"}
_MASKLESS = {"headct", "brainmri", "br35h"}


def check_dataset(root: Path, layout: str | None = None) -> tuple[bool, list[str]]:
    return LAYOUTS.check(root, layout, lambda name: check(name, root))


def test_fourteen_published_datasets_and_endo_are_known() -> None:
    assert len(PUBLISHED) == 15
    assert "endo" in PUBLISHED


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    write_dataset(name, tmp_path, per_kind=3)
    records = read_layout(name, tmp_path)
    classes = LAYOUTS[name].classes or ("cup", "plate")
    kinds = 1 if name in _ALL_ANOMALOUS else 2
    assert list(dict.fromkeys(r.cls_name for r in records)) == list(classes)
    assert len(records) == 3 * kinds * len(classes)
    assert sum(r.anomaly for r in records) == 3 * len(classes)
    masked = [r for r in records if r.mask_path]
    assert masked == ([] if name in _MASKLESS else [r for r in records if r.anomaly])
    assert all((tmp_path / path).is_file() for r in records for path in (r.img_path, r.mask_path) if path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sound_dataset_passes_the_check_and_is_recognised(name: str, tmp_path: Path) -> None:
    write_dataset(name, tmp_path)
    report = check(name, tmp_path)
    assert report.ok, report.lines()
    assert name in LAYOUTS.guess(tmp_path)
    assert report.lines()[-1] == "ok"


def test_training_split_is_read_where_there_is_one(tmp_path: Path) -> None:
    write_dataset("mvtec", tmp_path / "a")
    write_dataset("headct", tmp_path / "b")
    train = read_layout("mvtec", tmp_path / "a", "train")
    assert {(r.specie_name, r.anomaly) for r in train} == {("good", 0)}
    assert read_layout("headct", tmp_path / "b", "train") == []


def test_masks_are_paired_by_name_where_sorted_positions_would_slip(tmp_path: Path) -> None:
    # Sorted, "10_mask" comes before "1_mask" but "1" before "10".
    for number in (1, 10, 2):
        write_image(tmp_path / "cup/test/dent" / f"{number}.png", number)
        write_mask(tmp_path / "cup/ground_truth/dent" / f"{number}_mask.png")
    records = read_layout("mvtec_style", tmp_path)
    assert [(Path(r.img_path).stem, Path(r.mask_path).stem) for r in records] == [
        ("1", "1_mask"),
        ("10", "10_mask"),
        ("2", "2_mask"),
    ]


def test_a_folder_without_masks_is_read_for_image_scores_only(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    for truth in tmp_path.glob("*/ground_truth"):
        shutil.rmtree(truth)
    records = read_layout("mvtec_style", tmp_path)
    assert [r.mask_path for r in records if r.anomaly] == [""] * 4


def test_chosen_classes_come_in_the_chosen_order(tmp_path: Path) -> None:
    write_dataset("mvtec", tmp_path)
    shutil.rmtree(tmp_path / "screw")
    records = read_layout("mvtec", tmp_path, classes=["wood", "bottle"])
    assert list(dict.fromkeys(r.cls_name for r in records)) == ["wood", "bottle"]


def test_unknown_class_is_named_with_the_known_ones(tmp_path: Path) -> None:
    write_dataset("btad", tmp_path)
    with pytest.raises(InputError, match="no class 04; its classes are 01, 02, 03"):
        read_layout("btad", tmp_path, classes=["04"])


def test_meta_keeps_its_order_and_accepts_absolute_paths(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    records = read_layout("mvtec_style", tmp_path)[::-1]
    write_meta(tmp_path, {"test": records})
    assert read_layout("meta", tmp_path) == records
    content = json.loads((tmp_path / "meta.json").read_text())
    assert list(content["test"]) == ["plate", "cup"]
    assert content["train"] == {}
    assert set(content["test"]["cup"][0]) == {"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}
    content["test"]["cup"][0]["img_path"] = str(tmp_path / content["test"]["cup"][0]["img_path"])
    (tmp_path / "meta.json").write_text(json.dumps(content))
    assert check("meta", tmp_path).ok


# What can be wrong.


def test_missing_class_folder_is_named(tmp_path: Path) -> None:
    write_dataset("mpdd", tmp_path)
    shutil.rmtree(tmp_path / "tubes")
    with pytest.raises(InputError, match="folder tubes/test is missing") as caught:
        read_layout("mpdd", tmp_path)
    assert "mmattn data check crane" in caught.value.hint
    assert check("mpdd", tmp_path).problems == ["The folder tubes/test is missing."]


def test_unpaired_pictures_and_masks_are_named(tmp_path: Path) -> None:
    write_dataset("mvtec", tmp_path)
    (tmp_path / "pill/ground_truth/broken/001_mask.png").rename(tmp_path / "pill/ground_truth/broken/007_mask.png")
    problems = check("mvtec", tmp_path).problems
    assert problems == [
        "1 of 2 anomalous pictures have no mask in pill/ground_truth/broken (2 masks there): pill/test/broken/001.png.",
        "1 masks in pill/ground_truth/broken belong to no picture or to several: "
        "pill/ground_truth/broken/007_mask.png.",
    ]
    with pytest.raises(InputError, match=r"pill/test/broken/001\.png"):
        read_layout("mvtec", tmp_path)


def test_two_masks_of_one_picture_are_a_problem(tmp_path: Path) -> None:
    write_dataset("custom", tmp_path)
    write_mask(tmp_path / "test/cup/masks/f0_mask.png")
    assert "belong to no picture or to several: test/cup/masks/f0_mask.png" in check("custom", tmp_path).problems[0]


def test_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    write_mask(tmp_path / "cup/ground_truth/dent/000_mask.png", size=(30, 40))
    assert check("mvtec_style", tmp_path).problems == [
        "The mask cup/ground_truth/dent/000_mask.png is 40 x 30 pixels, its picture cup/test/dent/000.png 24 x 20."
    ]


def test_empty_and_truncated_files_are_named(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    (tmp_path / "cup/test/good/000.png").write_bytes(b"")
    whole = (tmp_path / "cup/test/good/001.png").read_bytes()
    (tmp_path / "cup/test/good/001.png").write_bytes(whole[: len(whole) // 2])
    first, second = check("mvtec_style", tmp_path).problems
    assert "000.png is empty (0 bytes)" in first
    assert "001.png is damaged or truncated" in second


def test_empty_folder_is_named(tmp_path: Path) -> None:
    write_dataset("mvtec_style", tmp_path)
    for file in (tmp_path / "plate/test/good").iterdir():
        file.unlink()
    assert check("mvtec_style", tmp_path).problems == ["The folder plate/test/good holds no pictures."]


def test_a_class_without_records_is_named(tmp_path: Path) -> None:
    write_dataset("visa", tmp_path)
    table = tmp_path / "split_csv/1cls.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "pcb3" not in line))
    assert check("visa", tmp_path).problems == ["The class pcb3 has no test pictures."]


def test_wrong_layout_says_what_the_folder_looks_like(tmp_path: Path) -> None:
    write_dataset("visa", tmp_path)
    assert check("mvtec", tmp_path).problems[0] == "No picture was found as mvtec; this looks like visa."
    with pytest.raises(InputError, match="It looks like visa"):
        read_layout("mvtec", tmp_path)


def test_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    write_dataset("visa", tmp_path)
    (tmp_path / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has the columns a, b; expected object, split, label, image, mask"):
        read_layout("visa", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a dataset: JSONDecodeError"),
        ('{"train": {}}', "KeyError: 'test'"),
        ('{"test": [1]}', "'test' is a list, expected class names"),
        ('{"test": {"cup": [{"img_path": "a.png"}]}}', "record 0 of test/cup lacks mask_path, anomaly"),
    ],
    ids=["no_json", "no_test", "no_classes", "no_keys"],
)
def test_broken_meta_is_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_layout("meta", tmp_path)


def test_unknown_layout_and_missing_folder_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset layout 'mvtek'"):
        read_layout("mvtek", tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_layout("mvtec", tmp_path / "nowhere")
    write_image(tmp_path / "a.png", 0)
    with pytest.raises(InputError, match=r"a\.png is a file"):
        check("mvtec", tmp_path / "a.png")


def test_check_without_a_layout_guesses_it_and_says_so(tmp_path: Path) -> None:
    write_dataset("btad", tmp_path)
    ok, lines = check_dataset(tmp_path)
    assert ok
    assert lines[0] == "Layout guessed; mvtec_style would fit as well."
    assert lines[1] == f"{tmp_path} as btad"
    assert lines[2] == "  01  2 normal, 2 anomalous, 2 masks"


def test_check_reports_failure_with_the_number_of_problems(tmp_path: Path) -> None:
    write_dataset("btad", tmp_path)
    shutil.rmtree(tmp_path / "03")
    ok, lines = check_dataset(tmp_path, "btad")
    assert not ok
    assert lines[-2:] == ["  problem: The folder 03/test is missing.", "1 problem"]


def test_a_folder_of_no_known_layout_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    with pytest.raises(InputError, match="none of the known layouts: mvtec, visa"):
        check_dataset(tmp_path)


def test_a_layout_is_one_function_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shelves(scan: Scan, cls: str, split: str) -> list[Record]:
        return [Record(path, "", cls, "", int("bad" in path)) for path in scan.images("shelf")]

    monkeypatch.setitem(LAYOUTS, "shelves", PictureLayout(shelves, ("shelf",), ("cup",), splits=("test",)))
    write_image(tmp_path / "shelf/bad.png", 0)
    assert [record.anomaly for record in read_layout("shelves", tmp_path)] == [1]
    assert Source.parse(f"shelves:{tmp_path}").name == "shelves"
    assert check_dataset(tmp_path) == (
        True, ["Layout guessed.", f"{tmp_path} as shelves", "  cup  0 normal, 1 anomalous, 0 masks", "ok"]
    )  # fmt: skip
    with pytest.raises(InputError, match="It looks like shelves"):
        read_layout("btad", tmp_path)
