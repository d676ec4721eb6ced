"""What a look at a speech dataset finds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.media.audio import write_audio
from mmattn.speech.lina.datasets.check import check_folder
from mmattn.speech.lina.datasets.layouts import LAYOUTS, find_utterances
from mmattn.speech.lina.datasets.readers import SpeechLayout
from mmattn.speech.lina.datasets.records import Scan, SpeechFile
from tests.speech.lina.speech_folders import ljspeech, mls, plain_folder, record, say, vctk


def check_dataset(root: Path, layout: str = "auto") -> tuple[bool, list[str]]:
    report = check_folder(root, layout)
    return report.ok, report.lines()


def test_a_dataset_that_is_fine(tmp_path: Path) -> None:
    is_fine, lines = check_dataset(plain_folder(tmp_path))
    assert is_fine
    assert lines == [
        f"{tmp_path} as folder",
        "  13 utterances, 3 speakers, 0.00 hours",
        "  train: 8 utterances, 0.1 min",
        "  val: 2 utterances, 0.0 min",
        "  test: 3 utterances, 0.0 min",
        "  sample rates: 1000 Hz (13)",
        "ok",
    ]


def test_every_problem_is_named_with_its_file(tmp_path: Path) -> None:
    root = plain_folder(tmp_path)
    folder = root / "train" / "anna"
    say(folder / "a.wav", "* * *")
    record(folder / "b.wav")
    say(folder / "c.wav", "hello", seconds=0.2)
    say(folder / "d.wav", "hello", seconds=31.0)
    say(folder / "e.wav", "hello", loudness=0.0)
    say(folder / "f.wav", "hello", loudness=1.3)
    say(folder / "g.wav", "hello").write_bytes(b"")
    say(folder / "h.wav", "hello 猫", rate=2000)
    say(folder / "j.wav", "a word and " * 100, seconds=2.1)
    (folder / "i.txt").write_text("hello")
    report = check_folder(root)
    assert not report.ok
    assert [problem.split(str(folder))[-1] for problem in report.problems] == [
        "/b.txt is missing or cannot be read.",
        "/i.txt has no recording beside it.",
        "/a.wav: its text '* * *' has nothing that can be spoken.",
        "/c.wav lasts 0.20 s, expected 0.3 to 30 s.",
        "/d.wav lasts 31.00 s, expected 0.3 to 30 s.",
        "/e.wav is silent: nothing is louder than -70 dB of full scale.",
        "/f.wav is clipped: 40.0% of its samples are at the limit.",
        "/g.wav is empty (0 bytes).",
        "/j.wav lasts 2.10 s without silence, which does not fit its text 'a word and a word and a word and a word '.",
    ]
    lines = report.lines()
    assert "  sample rates: 1000 Hz (18), 2000 Hz (1)" in lines
    assert "  characters that are not spoken, and the texts with them: 猫 (1)" in lines
    assert lines[-1] == "9 problems"


def test_the_layout_may_be_named(tmp_path: Path) -> None:
    ljspeech(tmp_path)
    assert check_dataset(tmp_path, "ljspeech")[1][0] == f"{tmp_path} as ljspeech"
    with pytest.raises(InputError, match="no layout 'x'"):
        check_dataset(tmp_path, "x")


def test_published_sets_are_fine_with_their_known_gaps(tmp_path: Path) -> None:
    is_fine, lines = check_dataset(vctk(tmp_path / "vctk"))
    assert is_fine
    assert lines[:2] == [f"{tmp_path}/vctk as vctk", "  5 utterances, 4 speakers, 0.00 hours"]
    is_fine, lines = check_dataset(mls(tmp_path / "mls"))
    assert is_fine
    assert lines[:4] == [
        f"{tmp_path}/mls as mls",
        "  6 utterances, 3 speakers, 0.00 hours",
        "  train: 2 utterances, 0.0 min",
        "  val: 2 utterances, 0.0 min",
    ]


def test_nothing_to_train_on_and_many_problems(tmp_path: Path) -> None:
    for index in range(45):
        write_audio(tmp_path / "test" / f"{index}.wav", np.full(500, 0.1, dtype=np.float32), 1000)
        (tmp_path / "test" / f"{index}.txt").write_text("hello")
    report = check_folder(tmp_path)
    assert report.problems[-1] == "There is no utterance to train on."
    assert len(report.problems) == 46
    assert report.lines()[-2:] == ["  and 6 more", "46 problems"]


def test_a_layout_is_one_function_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said_in_names(scan: Scan, top: Path) -> Iterator[SpeechFile]:
        for file in sorted((top / "said").glob("*.wav")):
            yield SpeechFile(file, file.stem.replace("_", " "), "anna", "train", file.stem)

    monkeypatch.setitem(LAYOUTS, "said", SpeechLayout(said_in_names, ("said/*.wav",)))
    record(tmp_path / "said" / "hello_number_one.wav")
    assert [item.text for item in find_utterances(tmp_path, "said")] == ["hello number one"]
    is_fine, lines = check_dataset(tmp_path)
    assert is_fine
    assert lines[:2] == [f"{tmp_path} as said", "  1 utterance, 1 speaker, 0.00 hours"]
    with pytest.raises(InputError, match="is not in the layout said"):
        find_utterances(tmp_path / "said", "said")
