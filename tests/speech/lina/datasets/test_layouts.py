"""Finding the utterances of a dataset, and what is said when it is not as expected."""

from collections import Counter
from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.datasets.layouts import find_utterances, hash_split, scan
from tests.speech.lina.speech_folders import libritts, ljspeech, manifest, mls, plain_folder, record, say, vctk


def test_a_plain_folder_has_splits_and_speakers(tmp_path: Path) -> None:
    found = find_utterances(plain_folder(tmp_path))
    assert Counter((item.split, item.speaker) for item in found) == {
        ("train", "anna"): 4, ("train", "ben"): 4, ("val", "anna"): 1, ("val", "ben"): 1,
        ("test", "anna"): 1, ("test", "ben"): 1, ("test", "carl"): 1,
    }  # fmt: skip
    assert found[0].name == "test/anna/0"
    assert found[0].audio == tmp_path / "test" / "anna" / "0.wav"
    assert found[0].text == "hello number 0"
    assert [item.name for item in found] == sorted(item.name for item in found)


def test_a_flat_folder_has_one_speaker_and_is_split_by_name(tmp_path: Path) -> None:
    for index in range(3):
        say(tmp_path / f"{index}.flac", "one\n  two")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / ".tokens").mkdir()
    (tmp_path / ".tokens" / "x.txt").write_text("no")
    found = find_utterances(tmp_path)
    assert [(item.name, item.speaker, item.text) for item in found] == [
        (str(i), "speaker", "one two") for i in range(3)
    ]
    assert [item.split for item in found] == [hash_split(str(i)) for i in range(3)]


def test_speakers_without_splits(tmp_path: Path) -> None:
    say(tmp_path / "anna" / "chapter" / "a.wav", "hello")
    say(tmp_path / "ben" / "b.wav", "hello")
    assert [item.speaker for item in find_utterances(tmp_path)] == ["anna", "ben"]


def test_a_name_keeps_its_split_whatever_else_there_is() -> None:
    counts = Counter(hash_split(str(number)) for number in range(5000))
    assert 60 < counts["val"] < 140
    assert 60 < counts["test"] < 140


def test_ljspeech(tmp_path: Path) -> None:
    found = scan(ljspeech(tmp_path))
    assert (found.layout, found.problems) == ("ljspeech", [])
    assert [item.name for item in found.utterances] == ["LJ001-0000", "LJ001-0001", "LJ001-0002"]
    assert {(item.text, item.speaker) for item in found.utterances} == {("He paid two dollars, some times", "LJ")}


def test_ljspeech_of_two_columns_takes_the_second(tmp_path: Path) -> None:
    record(tmp_path / "wavs" / "a.wav")
    (tmp_path / "metadata.csv").write_text("a|hello\n")
    assert [item.text for item in find_utterances(tmp_path)] == ["hello"]


def test_ljspeech_names_what_is_missing(tmp_path: Path) -> None:
    ljspeech(tmp_path)
    (tmp_path / "wavs" / "LJ001-0001.wav").unlink()
    record(tmp_path / "wavs" / "extra.wav")
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("LJ001-0002|again\nbroken\n")
    assert scan(tmp_path).problems == [
        "metadata.csv, line 2: there is no recording wavs/LJ001-0001.wav.",
        "metadata.csv, line 4: LJ001-0002 is listed twice.",
        "metadata.csv, line 5: expected 'id|text' or 'id|text|normalised text'.",
        f"{tmp_path / 'wavs' / 'extra.wav'} is not listed in metadata.csv.",
    ]


def test_libritts(tmp_path: Path) -> None:
    found = find_utterances(libritts(tmp_path))
    assert Counter((item.split, item.speaker) for item in found) == {
        ("train", "103"): 2, ("val", "84"): 2, ("test", "61"): 2,
    }  # fmt: skip
    assert found[0].name == "dev-clean/84/1240/84_1240_000000_000000"
    assert found[0].text == "Sentence 0."


def test_libritts_below_its_own_folder_and_one_subset_alone(tmp_path: Path) -> None:
    libritts(tmp_path / "LibriTTS_R")
    assert len(find_utterances(tmp_path)) == 6
    alone = scan(tmp_path / "LibriTTS_R" / "train-clean-100")
    assert alone.layout == "libritts"
    assert [item.name for item in alone.utterances] == [
        f"train-clean-100/103/1240/103_1240_000000_00000{number}" for number in range(2)
    ]


def test_libritts_names_what_is_missing(tmp_path: Path) -> None:
    libritts(tmp_path)
    lost = tmp_path / "dev-clean" / "84" / "1240" / "84_1240_000000_000001.normalized.txt"
    lost.unlink()
    stray = record(tmp_path / "dev-clean" / "stray.wav")
    assert scan(tmp_path).problems == [
        f"{lost} is missing or cannot be read.",
        f"{stray} lies elsewhere than dev-clean/SPEAKER/CHAPTER.",
    ]


def test_vctk(tmp_path: Path) -> None:
    found = scan(vctk(tmp_path / "VCTK-Corpus-0.92"))
    assert (found.layout, found.problems) == ("vctk", [])
    assert [(item.name, item.speaker, item.text) for item in found.utterances] == [
        (f"wav48_silence_trimmed/{name[:-4]}/{name}_mic1", name[:-4], f"Sentence {name}.")
        for name in ("p225_001", "p225_002", "p280_001", "p362_001", "s5_001")
    ]
    assert {item.split for item in found.utterances} <= {"train", "val", "test"}
    assert [item.name for item in find_utterances(tmp_path)] == [item.name for item in found.utterances]


def test_vctk_names_what_is_missing(tmp_path: Path) -> None:
    vctk(tmp_path)
    lost = tmp_path / "txt" / "p225" / "p225_001.txt"
    lost.unlink()
    (tmp_path / "wav48_silence_trimmed" / "p225" / "p225_002_mic1.flac").unlink()
    odd = record(tmp_path / "wav48_silence_trimmed" / "p225" / "p225_003.wav")
    assert scan(tmp_path).problems == [
        f"{lost} is missing or cannot be read.",
        f"{odd} is called otherwise than SPEAKER/SPEAKER_NUMBER_mic1.flac.",
        f"{tmp_path}/txt/p225/p225_002.txt has no recording wav48_silence_trimmed/p225/p225_002_mic1.flac.",
    ]


def test_mls(tmp_path: Path) -> None:
    found = scan(mls(tmp_path / "mls_english"))
    assert (found.layout, found.problems) == ("mls", [])
    assert [(item.name, item.speaker, item.split, item.text) for item in found.utterances] == [
        (f"{part}/audio/{speaker}/2156/{speaker}_2156_00000{number}", speaker, split, f"it was number {number}")
        for part, split, speaker in (("dev", "val", "20"), ("test", "test", "30"), ("train", "train", "4800"))
        for number in range(2)
    ]
    assert [item.name for item in find_utterances(tmp_path)] == [item.name for item in found.utterances]
    alone = scan(tmp_path / "mls_english" / "dev")
    assert [item.name for item in alone.utterances] == [f"dev/audio/20/2156/20_2156_00000{number}" for number in (0, 1)]


def test_mls_names_what_is_missing(tmp_path: Path) -> None:
    mls(tmp_path)
    (tmp_path / "train" / "audio" / "4800" / "2156" / "4800_2156_000001.flac").unlink()
    extra = record(tmp_path / "train" / "audio" / "4800" / "2156" / "4800_2156_000009.flac")
    with (tmp_path / "train" / "transcripts.txt").open("a") as file:
        file.write("4800_2156_000000\tagain\n\n4800_2156_000002\t \n")
    assert scan(tmp_path).problems == [
        "train/transcripts.txt, line 2: there is no recording 4800_2156_000001.flac.",
        "train/transcripts.txt, line 3: 4800_2156_000000 is listed twice.",
        "train/transcripts.txt, line 5: expected an id, a tab and a text.",
        f"{extra} is not listed in transcripts.txt.",
    ]


def test_a_manifest(tmp_path: Path) -> None:
    record(tmp_path / "a" / "x.wav")
    record(tmp_path / "y.flac")
    file = manifest(
        tmp_path,
        [{"audio": "a/x.wav", "text": " Hi  there ", "speaker": 7, "split": "dev"}, {"audio": "y.flac", "text": "Ho"}],
    )
    for root in (tmp_path, file):
        found = find_utterances(root)
        assert [(item.name, item.text, item.speaker, item.split) for item in found] == [
            ("a/x", "Hi there", "7", "val"), ("y", "Ho", "speaker", "train"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{", "is no JSON"),
        ("[]", "expected an object with 'audio' and 'text'"),
        ({"audio": "x.wav"}, "'text' is missing or empty"),
        ({"audio": "x.wav", "text": " "}, "'text' is missing or empty"),
        ({"audio": 3, "text": "hi"}, "'audio' is missing or empty"),
        ({"audio": "gone.wav", "text": "hi"}, "there is no file"),
        ({"audio": "x.wav", "text": "hi", "split": "all"}, "'split' is 'all', expected train, val or test"),
        ({"audio": "x.wav", "text": "hi", "speaker": None}, "'speaker' is None, expected a name"),
    ],
)
def test_a_manifest_names_the_line_that_is_wrong(tmp_path: Path, entry: object, problem: str) -> None:
    record(tmp_path / "x.wav")
    manifest(tmp_path, [{"audio": "x.wav", "text": "hi"}, entry])
    (message,) = scan(tmp_path).problems
    assert message.startswith("manifest.jsonl, line 2")
    assert problem in message
    with pytest.raises(InputError, match=r"line 2.*mmattn data check lina"):
        find_utterances(tmp_path)


def test_a_recording_listed_twice(tmp_path: Path) -> None:
    record(tmp_path / "x.wav")
    manifest(tmp_path, [{"audio": "x.wav", "text": "hi"}] * 2)
    assert scan(tmp_path).problems == ["manifest.jsonl, line 2: x.wav is listed twice."]


def test_a_plain_folder_names_what_is_missing(tmp_path: Path) -> None:
    plain_folder(tmp_path)
    (tmp_path / "train" / "anna" / "0.txt").unlink()
    (tmp_path / "train" / "anna" / "1.txt").write_text(" \n")
    (tmp_path / "train" / "anna" / "2.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "train" / "anna" / "3.wav").unlink()
    record(tmp_path / "train" / "ben" / "0.flac")
    assert scan(tmp_path).problems == [
        f"It is not clear which to take of {tmp_path}/train/ben/0.flac, {tmp_path}/train/ben/0.wav.",
        f"{tmp_path}/train/anna/0.txt is missing or cannot be read.",
        f"{tmp_path}/train/anna/1.txt is empty.",
        f"{tmp_path}/train/anna/2.txt is not UTF-8 text.",
        f"{tmp_path}/train/anna/3.txt has no recording beside it.",
    ]
    with pytest.raises(InputError, match="There are 2 more"):
        find_utterances(tmp_path)


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        find_utterances(tmp_path / "gone")
    with pytest.raises(InputError, match="looks like no speech dataset"):
        find_utterances(tmp_path)
    with pytest.raises(InputError, match="There is no layout 'gigaspeech'"):
        find_utterances(tmp_path, "gigaspeech")
    with pytest.raises(InputError, match="is not in the layout ljspeech"):
        find_utterances(tmp_path, "ljspeech")
    for layout in ("vctk", "mls"):
        with pytest.raises(InputError, match=f"is not in the layout {layout}"):
            find_utterances(tmp_path, layout)
    with pytest.raises(InputError, match="There are no utterances"):
        find_utterances(tmp_path, "folder")


def test_a_folder_that_looks_like_two_layouts(tmp_path: Path) -> None:
    ljspeech(tmp_path)
    manifest(tmp_path, [{"audio": "wavs/LJ001-0000.wav", "text": "hi"}])
    with pytest.raises(InputError, match="looks like manifest and like ljspeech"):
        find_utterances(tmp_path)
    assert len(find_utterances(tmp_path, "manifest")) == 1
