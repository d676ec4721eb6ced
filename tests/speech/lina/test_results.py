import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError, MediaError
from mmattn.media.audio import SYNTHETIC_SPEECH, audio_seconds, read_audio, read_comment
from mmattn.speech.lina import results
from mmattn.speech.lina.judges.watchdog import alignment_report
from mmattn.speech.lina.results import LinaItem, LinaResult, LinaSentence, as_items, checked_seed

RATE, FRAMES = 8000, 50.0


def sentence(start: float = 0.0, **changes: Any) -> LinaSentence:
    """One second of "hi you", the second word skipped."""
    alignment = np.zeros((6, 50), np.float32)
    alignment[0, :10] = alignment[1, 10:30] = alignment[2, 30:] = 1
    words = [-1, 0, 0, 1, 1, -1]
    fields: dict[str, Any] = {
        "text": "Hi you", "symbols": list("^hiju$"), "words": words, "alignment": alignment, "start": start,
        "seconds": 1.0, "finished": True, "retries": 1, "problems": ("skipped words",),
        "report": alignment_report(alignment.T, words),
    }  # fmt: skip
    return LinaSentence(**{**fields, **changes})


def result(*sentences: LinaSentence, **changes: Any) -> LinaResult:
    sentences = sentences or (sentence(), sentence(1.25, finished=False, problems=("did not stop",), retries=2))
    stop = sentences[-1].start + sentences[-1].seconds
    fields: dict[str, Any] = {
        "samples": (0.1 * np.sin(np.arange(round(stop * RATE)))).astype(np.float32), "sample_rate": RATE,
        "text": "Hi you. Hi you", "sentences": sentences, "seed": 7, "voice": "slt", "model": "abc",
        "work_seconds": 0.9, "frame_rate": FRAMES, "skipped": ("***",),
    }  # fmt: skip
    return LinaResult(**{**fields, **changes})


def test_the_json_tells_everything_in_plain_types() -> None:
    facts = json.loads(json.dumps(result().to_json()))
    sentences = facts.pop("sentences")
    assert facts == {
        "text": "Hi you. Hi you", "audio_seconds": 2.25, "rtf": 0.4, "work_seconds": 0.9, "seed": 7, "voice": "slt",
        "model": "abc", "sample_rate": RATE, "finished": False, "retries": 3,
        "problems": ["did not stop", "skipped words"], "skipped_text": ["***"], "note": SYNTHETIC_SPEECH,
    }  # fmt: skip
    assert sentences[0] == {
        "text": "Hi you", "start": 0.0, "seconds": 1.0, "tokens": "^ h i j u $", "finished": True, "retries": 1,
        "problems": ["skipped words"],
        "alignment": {
            "monotonic": 1.0, "coverage": 0.5, "skipped": ["ju"], "repeated": [], "reached_end": False,
        },
    }  # fmt: skip


def test_what_cannot_hold_its_words_is_nothing() -> None:
    # Four words, which need 0.4 s.
    assert result(sentence(seconds=0.1), sentence(0.2, seconds=0.29)).is_nothing
    assert not result(sentence(seconds=0.1), sentence(0.2, seconds=0.31)).is_nothing
    # That it was cut is told otherwise.
    assert not result(sentence(seconds=0.1, finished=False)).is_nothing


def test_words_are_spelled_by_their_symbols() -> None:
    assert sentence().spelled_words() == ["", "hi", "hi", "ju", "ju", ""]


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_sound_json_and_picture_are_written(tmp_path: Path, kind: Any) -> None:
    spoken = result(format=kind)
    paths = spoken.save(tmp_path, "line.txt")
    assert [path.name for path in paths] == [f"line.txt.{kind}", "line.txt.json", "line.txt.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert audio_seconds(paths[0]) == pytest.approx(spoken.seconds)
    assert read_comment(paths[0]) == SYNTHETIC_SPEECH
    np.testing.assert_allclose(read_audio(paths[0]).samples, spoken.samples, atol=1 / 32768)
    assert json.loads(paths[1].read_text(encoding="utf-8")) == spoken.to_json()
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_if_the_picture_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ImportError("no matplotlib")

    monkeypatch.setattr("mmattn.viz.speech.plot_speech", fails)
    with pytest.raises(ImportError):
        result().save(tmp_path, "line")
    assert list(tmp_path.iterdir()) == []


def test_an_older_result_is_whole_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result().save(tmp_path, "line")
    before = (tmp_path / "line.wav").read_bytes()
    damaged = result(samples=np.full(18_000, np.nan, np.float32))
    with pytest.raises(ValueError, match="must be finite"):
        damaged.save(tmp_path, "line")
    monkeypatch.setattr(LinaResult, "plot", lambda self: np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(MediaError, match="NaN or infinite"):
        damaged.save(tmp_path, "line")
    assert (tmp_path / "line.wav").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_the_picture_shows_the_sentences_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def look(samples: Any, rate: int, alignment: Any, symbols: Any, **options: Any) -> np.ndarray:
        seen.update(options, samples=len(samples), alignment=alignment, symbols=symbols)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr("mmattn.viz.speech.plot_speech", look)
    result().plot()
    assert seen["alignment"].shape == (12, 112)
    assert "".join(seen["symbols"]) == "^hiju$^hiju$"
    np.testing.assert_array_equal(seen["alignment"][:6, :50], sentence().alignment)
    np.testing.assert_array_equal(seen["alignment"][6:, 62:112], sentence().alignment[:, :50])
    assert not seen["alignment"][6:, :62].any()
    assert seen["title"] == "Hi you. Hi you"
    many = tuple(sentence(1.5 * i) for i in range(40))
    result(*many).plot()
    assert seen["samples"] / RATE <= results._SHOWN_SECONDS
    assert len(seen["symbols"]) == 6 * 7
    result(sentence(seconds=20.0)).plot()
    assert seen["samples"] == 20 * RATE


def test_texts_and_items_go_together():
    given = as_items(["Hello.", LinaItem("Bye.", "anna", np.int64(3), "last")])
    assert given == [LinaItem("Hello."), LinaItem("Bye.", "anna", 3, "last")]
    assert type(given[1].seed) is int


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("Hi", "expected a list of texts"),
        (5, "expected a list of texts"),
        (["Hi", None], "The item is None"),
        ([LinaItem(7, name="x")], "The text of 'x' is 7"),  # type: ignore[arg-type]
        ([LinaItem("Hi", seed=-1)], "The seed is -1, expected 0 or more"),
    ],
)
def test_what_is_no_text_is_named(items: Any, message: str):
    with pytest.raises(InputError, match=message):
        as_items(items)


@pytest.mark.parametrize("seed", [True, 1.5, "a", None])
def test_a_seed_is_a_whole_number(seed: Any):
    with pytest.raises(InputError, match="expected a whole number"):
        checked_seed(seed)
