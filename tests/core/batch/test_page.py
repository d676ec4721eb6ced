from pathlib import Path

from mmattn.core.batch.page import failed_items


def test_each_line_of_the_errors_becomes_an_item(tmp_path: Path) -> None:
    lines = [
        '{"input": "/data/a/x.png", "error": "It is damaged.", "hint": "Copy it again."}',
        '{"input": "/data/script.txt:3", "error": "It is empty.", "hint": ""}',
    ]
    (tmp_path / "errors.jsonl").write_text("\n".join(lines) + '\n{"input": "/data/cut')
    items = failed_items(tmp_path)
    assert [item.title for item in items] == ["x.png", "script.txt:3"]
    assert [item.error for item in items] == ["It is damaged. Copy it again.", "It is empty."]
    assert [item.score for item in items] == [None, None]


def test_a_run_without_errors_has_none(tmp_path: Path) -> None:
    assert failed_items(tmp_path) == []
    (tmp_path / "errors.jsonl").write_text("")
    assert failed_items(tmp_path) == []
