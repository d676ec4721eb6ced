import json
from pathlib import Path

import pytest

from mmattn.core.batch.inputs import expand_inputs
from mmattn.core.calibration import measure_items, write_calibration
from mmattn.errors import InputError


def length(file: Path) -> int:
    text = file.read_text()
    if not text:
        raise InputError("it is empty.", "Give another.")
    if text == "bug":
        raise KeyError(text)
    return len(text)


def write(folder: Path, *texts: str) -> None:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "normal", "abc", "", "a", "ab")
    items = expand_inputs([tmp_path / "normal"], suffixes=[".txt"])
    assert measure_items(items, length, unit="text") == ([3, 1, 2], 1)
    assert f"left out: {tmp_path / 'normal' / '1.txt'}: it is empty. Give another." in capsys.readouterr().err


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    write(tmp_path / "normal", "bug")
    with pytest.raises(KeyError):
        measure_items(expand_inputs([tmp_path / "normal"], suffixes=[".txt"]), length, unit="text")


def test_what_was_found_is_kept_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_calibration(tmp_path / "new" / "folder", {"threshold": 0.25, "scores": [0.1, 0.25]})
    assert file == tmp_path / "new" / "folder" / "calibration.json"
    assert json.loads(file.read_text()) == {"threshold": 0.25, "scores": [0.1, 0.25]}
    assert capsys.readouterr().out == f"Wrote {file}\n"
