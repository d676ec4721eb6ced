"""What is to be said, found in files."""

from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.generation.script import command_line_item, read_script, script_items


def test_every_line_that_is_not_blank_is_an_item_under_its_number(tmp_path: Path):
    script = tmp_path / "script.txt"
    script.write_bytes("\ufeffFirst one.\r\n\r\n  Third one. \r\nLast".encode())
    items = script_items([str(script)])
    assert [item.name for item in items] == ["script/0001", "script/0003", "script/0004"]
    assert [item.content for item in items] == ["First one.", "Third one.", "Last"]
    assert [item.key for item in items] == [f"{script}:1", f"{script}:3", f"{script}:4"]


def test_sub_folders_are_kept_and_a_whole_file_is_one_item(tmp_path: Path):
    for name in ("a/x.txt", "b/x.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("One.\n\nTwo.")
    assert [item.name for item in script_items([str(tmp_path)])] == ["a/x/0001", "a/x/0003", "b/x/0001", "b/x/0003"]
    whole = script_items([str(tmp_path)], whole=True)
    assert [(item.name, item.content) for item in whole] == [("a/x", "One.\n\nTwo."), ("b/x", "One.\n\nTwo.")]


def test_files_that_differ_in_the_ending_only_stay_apart(tmp_path: Path):
    for name in ("x.txt", "x.TXT", "y.txt"):
        (tmp_path / name).write_text("One.")
    names = [item.name for item in script_items([str(tmp_path)])]
    assert sorted(names) == ["x.TXT/0001", "x.txt/0001", "y/0001"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has no text in it"), (b" \n\t\n", "has no text in it"), (b"\xff\xfe\x00", "is not UTF-8 text")],
)
def test_a_file_that_cannot_be_read_stays_one_item_that_says_why(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "bad.txt").write_bytes(content)
    (tmp_path / "good.txt").write_text("One.")
    bad, good = script_items([str(tmp_path)])
    assert (bad.name, bad.content, good.name) == ("bad.txt", None, "good/0001")
    with pytest.raises(InputError, match=message):
        read_script(bad.path)


def test_a_file_of_many_megabytes_is_refused(tmp_path: Path):
    (tmp_path / "huge.txt").write_bytes(b"word " * 2_100_000)
    with pytest.raises(InputError, match="has 10,500,000 bytes; the limit is 10,000,000"):
        read_script(tmp_path / "huge.txt")


def test_a_text_of_the_command_line_has_no_file():
    item = command_line_item("Hello")
    assert (item.key, item.name, item.content) == ("--text", "text", "Hello")
