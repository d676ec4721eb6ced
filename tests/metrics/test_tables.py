"""Tables as text, JSON and CSV: columns stand under each other and NaN is nowhere."""

import csv
import json
import math
from pathlib import Path

import pytest

from mmattn.metrics.tables import aligned, markdown, plain, shown, write_csv, write_json


def test_columns_on_the_left_start_together_and_the_others_end_together() -> None:
    rows = [("set", "class", "AUROC"), ("a", "screw", "9.5"), ("long one", "nut", "100.0")]
    assert aligned(rows, left=2).splitlines() == [
        "set       class  AUROC",
        "a         screw    9.5",
        "long one  nut    100.0",
    ]


def test_lines_do_not_end_in_spaces() -> None:
    assert aligned([("a", "much longer"), ("b", "x"), ("c", "")], left=2).splitlines()[1:] == ["b  x", "c"]


def test_a_markdown_table_of_a_head_alone_has_its_rule() -> None:
    assert markdown([("", "CER")]) == "| | CER |\n| --- | --- |"


@pytest.mark.parametrize(
    ("value", "form", "text"), [(0.12345, ".3f", "0.123"), (2.0, ".4f", "2.0000"), (math.nan, ".3f", "n/a")]
)
def test_a_number_that_is_not_defined_is_named(value: float, form: str, text: str) -> None:
    assert shown(value, form) == text


def test_plain_values_reach_into_objects_and_lists() -> None:
    assert plain({"a": [{"b": math.nan}, 0.5], "c": (math.nan,), "d": "nan", "e": None}) == {
        "a": [{"b": None}, 0.5],
        "c": [None],
        "d": "nan",
        "e": None,
    }


def test_files_hold_null_and_nothing_for_nan(tmp_path: Path) -> None:
    path = write_json(tmp_path / "new" / "t.json", {"auroc": math.nan, "ap": 0.25})
    assert json.loads(path.read_text()) == {"auroc": None, "ap": 0.25}
    path = write_csv(tmp_path / "t.csv", ["name", "auroc", "ap"], iter([["a", math.nan, 0.25], ["b", None, 1]]))
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "auroc", "ap"], ["a", "", "0.25"], ["b", "", "1"]]


def test_a_row_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["name"], [["a"]])
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["name"], ([1 / n] for n in (1, 0)))
    assert path.read_text().split() == ["name", "a"]
