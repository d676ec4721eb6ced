"""The frame of layouts: a row is guessed by its markers, refused with a hint, and checked with a report."""

from pathlib import Path

import pytest

from mmattn.core.datasets.layouts import Layout, LayoutTable, Report, each_problem
from mmattn.core.datasets.scan import DatasetScan
from mmattn.errors import InputError


def names(scan: DatasetScan) -> list[str]:
    return [entry.name for entry in scan.entries("things")]


@pytest.fixture
def table() -> LayoutTable[Layout]:
    return LayoutTable("toys", {"things": Layout(names, ("things/*.txt",)), "all": Layout(names, ("*/*", "*.txt"))})


def test_a_folder_is_guessed_by_any_marker_in_the_order_of_the_table(tmp_path: Path, table: LayoutTable) -> None:
    assert table.guess(tmp_path) == []
    (tmp_path / "a.txt").touch()
    assert table.guess(tmp_path) == ["all"]
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "b.txt").touch()
    assert table.guess(str(tmp_path)) == ["things", "all"]


def test_an_unknown_name_is_answered_with_the_known_ones(table: LayoutTable) -> None:
    with pytest.raises(InputError, match="no dataset layout 'thing'") as caught:
        table.named("thing")
    assert caught.value.hint == "Known are: things, all."


def test_a_scan_without_problems_passes_and_others_are_refused(tmp_path: Path, table: LayoutTable) -> None:
    scan = DatasetScan.of(tmp_path)
    table.refuse("things", scan, nothing=True)
    scan.problems += ["One.", "Two.", "Three.", "Four.", "Five."]
    with pytest.raises(InputError) as caught:
        table.refuse("things", scan, nothing=True)
    assert caught.value.message == f"{tmp_path} cannot be read as things: One. Two. Three. There are 2 more."
    assert caught.value.hint == f"All problems: mmattn data check toys {tmp_path} --layout things"
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"It looks like all\.$"):
        table.refuse("things", scan, nothing=True)
    with pytest.raises(InputError, match="All problems"):
        table.refuse("things", scan, nothing=False)


def test_nothing_found_names_what_it_looks_like_or_what_was_expected(tmp_path: Path, table: LayoutTable) -> None:
    assert table.nothing_found("things", tmp_path, "toy") == "No toy was found as things; expected things/*.txt in it."
    (tmp_path / "a.txt").touch()
    assert table.nothing_found("things", tmp_path, "toy") == "No toy was found as things; this looks like all."


def test_a_check_guesses_the_layout_unless_it_is_named(tmp_path: Path, table: LayoutTable) -> None:
    def look(name: str) -> Report:
        return Report(name, tmp_path, [], ["1 toy"])

    with pytest.raises(InputError, match="looks like none of the known layouts: things, all"):
        table.check(tmp_path, None, look)
    assert table.check(tmp_path, "things", look) == (True, [f"{tmp_path} as things", "  1 toy", "ok"])
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "b.txt").touch()
    lines = ["Layout guessed; all would fit as well.", f"{tmp_path} as things", "  1 toy", "ok"]
    assert table.check(tmp_path, None, look) == (True, lines)


def test_a_report_shows_facts_notes_and_so_many_problems(tmp_path: Path) -> None:
    report = Report("toys", tmp_path, [f"p{number}" for number in range(3)], ["fact"], ["note"], shown=2)
    assert report.lines() == [
        f"{tmp_path} as toys", "  fact", "  note", "  problem: p0", "  problem: p1", "  and 1 more", "3 problems",
    ]  # fmt: skip
    assert len(Report("toys", tmp_path, ["p"] * 50).lines()) == 43
    assert len(Report("toys", tmp_path, ["p"] * 50, shown=None).lines()) == 52
    assert Report("toys", tmp_path, ["p"]).lines()[-1] == "1 problem"


def test_problems_come_in_the_order_of_the_items() -> None:
    assert list(each_problem(range(20), lambda n: f"{n} is odd" if n % 2 else "", "Toys", "toy")) == [
        f"{n} is odd" for n in range(1, 20, 2)
    ]


def test_a_scan_begins_at_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file"):
        DatasetScan.of(tmp_path / "file")
    with pytest.raises(InputError, match="gone does not exist"):
        DatasetScan.of(tmp_path / "gone")
