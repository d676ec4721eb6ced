"""Runs over parts of files: lines that fail, change and resume on their own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmattn.core.batch.inputs import InferRequest, InputItem, expand_inputs
from mmattn.core.batch.journal import Stamp
from mmattn.core.batch.runner import run_batch
from tests.core.fake_runner import CountPredictor, CountResult


class LinePredictor(CountPredictor):
    """Takes text, as parts are, and remembers it."""

    seen: list[str]

    def predict_batch(self, items: list[str]) -> list[CountResult]:
        result = super().predict_batch([item.encode() for item in items])
        self.seen = [*getattr(self, "seen", []), *items]
        return result


def lines_of(file: Path) -> list[InputItem]:
    (item,) = expand_inputs([file], suffixes=[".txt"])
    return [
        replace(item, name=f"{file.stem}/{n}", part=str(n), content=line)
        for n, line in enumerate(file.read_text().split("\n"), 1)
        if line
    ]


def run(file: Path, output: Path, **changes: object) -> tuple[int, list[str]]:
    predictor = LinePredictor()
    request = InferRequest(system="count", inputs=[str(file)], output=output, **{"batch_size": 2, **changes})
    code = run_batch(request, suffixes=[".txt"], items=lines_of(file), make_predictor=lambda items: predictor)
    return code, getattr(predictor, "seen", [])


def records(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_fails_alone_and_only_what_changed_runs_again(tmp_path: Path):
    script, out = tmp_path / "script.txt", tmp_path / "out"
    script.write_text("one\n\nbad line\nthree")
    code, seen = run(script, out)
    assert (code, seen) == (1, ["one", "three"])
    assert [r["input"] for r in records(out / "results.jsonl")] == [f"{script}:1", f"{script}:4"]
    assert [r["outputs"] for r in records(out / "results.jsonl")] == [["script/1.count.txt"], ["script/4.count.txt"]]
    assert [r["input"] for r in records(out / "errors.jsonl")] == [f"{script}:3"]

    script.write_text("one\n\nmended\nthree")
    code, seen = run(script, out, batch_size=1)
    assert (code, seen) == (0, ["mended"])
    assert (out / "script/3.count.txt").read_text() == "6"
    assert records(out / "errors.jsonl") == []
    assert run(script, out) == (0, [])

    script.write_text("ones\n\nmended\nthree")
    assert run(script, out, batch_size=1) == (0, ["ones"])
    assert (out / "script/1.count.txt").read_text() == "4"


def test_the_limit_counts_parts_and_a_dry_run_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script, out = tmp_path / "script.txt", tmp_path / "out"
    script.write_text("one\ntwo\nthree")
    assert run(script, out, limit=2, dry_run=True) == (0, [])
    assert capsys.readouterr().out.splitlines() == [
        f"would process {script}:1 -> script/1",
        f"would process {script}:2 -> script/2",
        "2 to do, 0 done already; nothing was written.",
    ]
    assert not out.exists()
    assert run(script, out, limit=2) == (0, ["one", "two"])


def test_a_part_is_stamped_by_its_content_and_a_file_by_its_time(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("héllo")
    item = InputItem(file, tmp_path, "a.txt")
    assert item.key == str(file)
    assert Stamp.of(item) == Stamp(6, file.stat().st_mtime)
    part = replace(item, part="1", content="héllo")
    assert part.key == f"{file}:1"
    assert Stamp.of(part).size == 6
    assert Stamp.of(part) == Stamp.of(replace(part, part="2"))
    assert Stamp.of(part) != Stamp.of(replace(part, content="hállo"))
