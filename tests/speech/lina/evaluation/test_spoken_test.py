"""The test of a model that speaks, with a tiny model that cannot."""

import json
from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.datasets.layouts import find_utterances
from mmattn.speech.lina.evaluation.spoken_test import find_held_out, run_spoken_test
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices import cloning
from mmattn.speech.lina.voices.tuning import TuningOptions
from tests.speech.lina.tiny_folder import write_model, write_recording

pytest.importorskip("pocketsphinx")


def test_every_row_is_judged_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloning, "usual_tuning", lambda count: TuningOptions(passes=1))
    for number in range(5):
        write_recording(tmp_path / f"speech/test/slt/{number}.wav", "hello there.")
    write_recording(tmp_path / "speech/train/slt/0.wav", "hello")
    for part in ("clone", "test"):
        write_recording(tmp_path / f"strangers/anna/{part}/0.wav", "good morning")
    predictor = LinaPredictor.from_pretrained(write_model(tmp_path / "model"), max_seconds=1.0, retries=0)
    files = [file for file in find_utterances(tmp_path / "speech") if file.split == "test"]
    done = run_spoken_test(
        predictor,
        files,
        seen_words=frozenset({"hello"}),
        held_out=find_held_out(tmp_path / "strangers"),
        examples=tmp_path / "examples",
    )
    kinds = ("recordings", "codec", "speech")
    assert list(done.rows) == [*kinds, "page start", "page end", *(f"{kind} of anna" for kind in kinds)]
    assert [done.rows[kind].total.sentences for kind in ("speech", "page start", "speech of anna")] == [5, 2, 1]
    total = done.rows["speech"].total
    assert (total.seen_words, total.unseen_words) == (5, 5)
    assert total.duration_ratio is not None
    assert done.rows["recordings"].total.monotonic is None
    assert len(list((tmp_path / "examples").rglob("*.wav"))) == 22
    done.save(tmp_path / "test")
    written = json.loads((tmp_path / "test/scores.json").read_text())
    assert set(written["rows"]) == set(done.rows)
    assert "| speech of anna |" in (tmp_path / "test/table.md").read_text()


def test_no_held_out_voice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no held-out voices"):
        find_held_out(tmp_path)
