from pathlib import Path

import pytest

from mmattn.core.datasets.scan import DatasetScan, named, print_findings


@pytest.fixture
def scan(tmp_path: Path) -> DatasetScan:
    for place in ("train/b", "train/a", "train/.cache"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "train/notes.txt").write_bytes(b"\xef\xbb\xbf one \n\n two\n")
    (tmp_path / "table.csv").write_text("id, label\n1, yes\n2,\n")
    return DatasetScan(tmp_path)


def test_listings_are_sorted_and_hidden_folders_are_none(scan: DatasetScan) -> None:
    assert [entry.name for entry in scan.entries("train")] == [".cache", "a", "b", "notes.txt"]
    assert scan.folders("train") == ["a", "b"]
    assert scan.has("train/a")
    assert not scan.has("train/notes.txt")
    assert scan.problems == []


def test_what_is_missing_is_a_problem_and_does_not_stop_the_look(scan: DatasetScan) -> None:
    assert scan.folders("test") == []
    assert scan.lines("list.txt") == []
    assert scan.rows("labels.csv", ["id"]) == []
    assert scan.problems == [
        "The folder test is missing.",
        "The file list.txt is missing.",
        "The file labels.csv is missing.",
    ]


def test_lines_come_without_byte_order_mark_spaces_and_empty_ones(scan: DatasetScan) -> None:
    assert scan.lines("train/notes.txt") == ["one", "two"]


def test_a_file_that_is_no_text_is_a_problem(scan: DatasetScan) -> None:
    (scan.root / "list.txt").write_bytes(b"\xff\xfe\xfa")
    assert scan.lines("list.txt") == []
    assert scan.lines("train") == []
    assert [problem.partition(" cannot be read: ")[0] for problem in scan.problems] == [
        "The file list.txt",
        "The file train",
    ]


def test_rows_are_read_by_their_columns_and_a_missing_one_is_named(scan: DatasetScan) -> None:
    assert scan.rows("table.csv", ["id", "label"]) == [{"id": "1", "label": "yes"}, {"id": "2", "label": ""}]
    assert scan.rows("table.csv", ["id", "time", "split"]) == []
    assert scan.problems == ["table.csv has no column time, split; it has id, label."]


def test_paths_below_the_root_are_written_without_it(scan: DatasetScan) -> None:
    assert scan.below(scan.root / "train" / "a") == "train/a"
    assert scan.below("/elsewhere/a.mp4") == "/elsewhere/a.mp4"


def test_long_lists_are_cut() -> None:
    assert named(str(number) for number in range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert named([]) == ""


@pytest.mark.parametrize(("is_fine", "code"), [(True, 0), (False, 1)])
def test_findings_are_printed_and_decide_the_exit_code(
    is_fine: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_findings(is_fine, ["data as mvtec", "ok"]) == code
    assert capsys.readouterr().out == "data as mvtec\nok\n"


def test_a_listed_file_lies_in_the_folder_or_is_a_problem(scan: DatasetScan, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to("/usr")
    assert scan.listed("a/x.png", "list.txt, line 1") == tmp_path / "a/x.png"
    assert scan.listed("x.png", "list.txt, line 2", "train/b") == tmp_path / "train/b/x.png"
    assert scan.listed("disk/x.png", "list.txt, line 3") == tmp_path / "disk/x.png"
    assert scan.listed(f"{tmp_path}/a/x.png", "list.txt, line 4", "train") == tmp_path / "a/x.png"
    assert scan.problems == []
    for path in ("../x.png", f"{tmp_path}/../x.png", "/etc/passwd", "a/../../x.png", "a\0"):
        assert scan.listed(path, "list.txt, line 5") is None
    assert scan.listed("../../../x.png", "list.txt, line 6", "train/b") is None
    assert scan.problems[0].startswith("list.txt, line 5: The path '../x.png' leads outside of '")
    assert len(scan.problems) == 6
