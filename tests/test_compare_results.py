"""The comparison of two runs sees what changed, and nothing else."""

import json
from pathlib import Path

from tests.compare_results import main

RECORD = {
    "input": "/a/x.png",
    "outputs": ["x.map.png"],
    "seconds": 1.0,
    "score": 0.5,
    "alarms": [{"t": 1.0}],
    "ok": True,
}


def run(folder: Path, **changes: object) -> str:
    (folder / "crane").mkdir(parents=True)
    (folder / "crane/results.jsonl").write_text(json.dumps({**RECORD, **changes}) + "\n")
    return str(folder)


def test_other_times_and_folders_are_no_difference(tmp_path: Path) -> None:
    before = run(tmp_path / "before")
    after = run(tmp_path / "after", input="/b/x.png", seconds=9.0, score=0.5 + 1e-8)
    assert main(before, after) == 0


def test_other_numbers_words_and_items_are(tmp_path: Path, capsys) -> None:
    before = run(tmp_path / "before")
    for number, changes in enumerate([{"score": 0.5001}, {"alarms": []}, {"alarms": [{"t": 2}]}, {"outputs": ["y"]}]):
        assert main(before, run(tmp_path / str(number), **changes)) == 1
    assert "crane/x.map.png/score: 0.5 became 0.5001" in capsys.readouterr().out
    assert main(str(tmp_path / "nothing"), str(tmp_path / "nothing")) == 1
