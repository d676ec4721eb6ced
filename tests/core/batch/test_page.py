import json
from pathlib import Path
from typing import Any

import pytest

from mmattn.core.batch import page
from mmattn.core.batch.page import by_ending, write_page
from mmattn.viz.gallery import GalleryItem


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page was asked to show."""
    found: dict[str, Any] = {}

    def write_gallery(path: Path, items: list[GalleryItem], **settings: Any) -> None:
        found.update(path=path, items=items, **settings)

    monkeypatch.setattr(page, "write_gallery", write_gallery)
    return found


def card(record: dict[str, Any]) -> GalleryItem:
    return GalleryItem(title=record["input"], score=record["score"])


def test_each_line_of_the_errors_becomes_an_item_after_the_results(tmp_path: Path, written: dict[str, Any]) -> None:
    lines = [
        '{"input": "/data/a/x.png", "error": "It is damaged.", "hint": "Copy it again."}',
        '{"input": "/data/script.txt:3", "error": "It is empty.", "hint": ""}',
    ]
    (tmp_path / "errors.jsonl").write_text("\n".join(lines) + '\n{"input": "/data/cut')
    write_page(tmp_path, [{"input": "fine.png", "score": 0.25}], card, title="Set", note="Read it so.", threshold=0.5)
    items = written["items"]
    assert [item.title for item in items] == ["fine.png", "x.png", "script.txt:3"]
    assert [item.error for item in items] == [None, "It is damaged. Copy it again.", "It is empty."]
    assert [item.score for item in items] == [0.25, None, None]
    assert written["path"] == tmp_path / "index.html"
    assert (written["title"], written["note"], written["threshold"]) == ("Set", "Read it so.", 0.5)


def test_a_run_without_errors_has_none(tmp_path: Path, written: dict[str, Any]) -> None:
    write_page(tmp_path, [], card, title="Set", note="")
    assert written["items"] == []
    (tmp_path / "errors.jsonl").write_text("")
    write_page(tmp_path, [], card, title="Set", note="")
    assert written["items"] == []


def test_a_page_is_written_with_the_words_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "errors.jsonl").write_text(json.dumps({"input": "b.mp4", "error": "No frames.", "hint": ""}) + "\n")
    write_page(
        tmp_path,
        [{"input": "a.mp4", "score": 0.7}],
        card,
        title="Drives",
        note="",
        threshold=0.5,
        labels=("calm", "alert"),
    )
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<h1>Drives</h1>" in text
    assert 'data-title="a.mp4"' in text
    assert "No frames." in text
    assert 'data-below="calm" data-above="alert"' in text


def test_outputs_of_other_kinds_are_not_shown() -> None:
    assert by_ending(["x.map.npz"], {"picture": ".picture.jpg"}) == {}
