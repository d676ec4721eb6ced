"""Sentences, voices and the folder of the embedded Lina's data."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.media.audio import read_audio
from mmattn.speech.lina.synthetic import files
from mmattn.speech.lina.synthetic.files import Counts, plan, write_speech
from mmattn.speech.lina.synthetic.sentences import Lexicon, make_sentences, read_lexicon, split_of, words_of
from mmattn.speech.lina.synthetic.voices import (
    EASY,
    HARD,
    SAMPLE_RATE,
    TRAINING_VOICES,
    SyntheticVoice,
    random_voice,
    speak,
)

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")


def words(split: str, count: int) -> list[str]:
    """Made-up words of a split."""
    candidates = (f"w{a}{b}{c}" for a in "aeiou" for b in "bcdfghklmn" for c in "aeiou")
    return [word for word in candidates if split_of(word) == split][:count]


@pytest.fixture
def lexicon() -> Lexicon:
    train, val, test = words("train", 60), words("val", 6), words("test", 12)
    examples = [f"the {a} {b} here" for a in train[:20] for b in train[20:23]]
    examples += [f"the {a} {b} here" for a in test for b in train[:3]]
    examples += [f"the {a} {b} here" for a in val for b in train[:3]]
    examples.append(f"the {val[0]} {test[0]} here")
    every = train[30:] + val + test
    return Lexicon(
        examples=tuple(sorted(examples)),
        nouns=tuple(every),
        verbs=tuple(every),
        adjectives=tuple(every),
        common=frozenset({"the", "here"}),
    )


def test_words_of_a_split_stay_in_it(lexicon: Lexicon) -> None:
    taken: set[str] = set()
    for split in ("train", "val", "test"):
        sentences = make_sentences(lexicon, split, 30, seed=0, taken=taken)
        own = [{split_of(w) for w in words_of(s) if re.fullmatch(r"w[aeiou].[aeiou]", w)} for s in sentences]
        if split == "train":
            assert all(found <= {"train"} for found in own)
        else:
            assert all(split in found and found <= {"train", split} for found in own)
        assert all(s[0].isupper() and s.endswith(".") for s in sentences)
    assert len(taken) == 90


def test_no_sentence_comes_twice_and_the_same_ones_come_again(lexicon: Lexicon) -> None:
    taken: set[str] = set()
    first = make_sentences(lexicon, "train", 20, seed=3, taken=taken)
    second = make_sentences(lexicon, "train", 20, seed=4, taken=taken)
    assert len({*first, *second}) == 40
    assert make_sentences(lexicon, "train", 20, seed=3, taken=set()) == first


def test_too_few_examples_are_an_error() -> None:
    empty = Lexicon((), ("waba",), ("waba",), ("waba",), frozenset({"waba"}))
    with pytest.raises(InputError, match="not 200 different sentences for train"):
        make_sentences(empty, "train", 200, seed=0, taken=set())


def test_wordnet_is_read(tmp_path: Path) -> None:
    data = '  1 the licence "says that it is free"\n1 n dog | an animal; "the old dog slept well"; "a zzz dog slept"\n'
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text(data if name == "noun" else "")
    (tmp_path / "index.noun").write_text("  licence\ndog n 1\nox n 1\n")
    (tmp_path / "index.verb").write_text("bake v 1\nsleep v 1\ncarry v 1\n")
    (tmp_path / "index.adj").write_text("old a 1\n")
    (tmp_path / "index.adv").write_text("well r 1\n")
    pronounceable = "the old dog slept well bake baked carry carried sleep licence says"
    (tmp_path / "words").write_text(f"{pronounceable} zzz sleeped")
    found = read_lexicon(pronounceable.split(), tmp_path, tmp_path / "words")
    assert found.examples == ("the old dog slept well",)
    assert found.nouns == ("dog",)
    assert found.adjectives == ("old",)
    assert found.verbs == ("baked", "carried")
    assert "seven" in found.common


def test_missing_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.noun is missing"):
        read_lexicon([], tmp_path)


def test_held_out_voices_are_no_training_voices() -> None:
    names = [voice.name for voice in TRAINING_VOICES]
    assert len(set(names)) == len(names) >= 10
    assert not {EASY.name, HARD.name} & set(names)
    assert HARD.base not in {voice.base for voice in TRAINING_VOICES}
    # The easy one lies between two variants, not on one.
    sizes = [v.size for v in TRAINING_VOICES if v.base == EASY.base]
    assert min(abs(size / EASY.size - 1) for size in sizes) > 0.1


def test_random_voices_are_of_training_people() -> None:
    generator = np.random.default_rng(0)
    assert {random_voice(generator).base for _ in range(50)} == {"slt", "rms", "kal16"}


def test_plan_keeps_texts_apart(lexicon: Lexicon) -> None:
    counts = Counts(people=1, variants=1, val=1, test=1, codec=0, held_out=2)
    texts = {split: [s.text for s in plan(lexicon, counts) if f"/{split}/" in s.path] for split in ("train", "test")}
    assert len(texts["train"]) == len(TRAINING_VOICES)
    assert not set(texts["train"]) & set(texts["test"])


@needs_flite
def test_a_smaller_speaker_is_higher_and_as_fast() -> None:
    text = "A sentence of some words."
    plain, small = speak(SyntheticVoice("a", "slt"), text), speak(SyntheticVoice("b", "slt", size=1.25), text)
    assert len(small) == pytest.approx(len(plain), rel=0.05)
    assert np.abs(plain).max() == pytest.approx(10 ** (-3 / 20), rel=1e-5)
    assert _pitch(small) == pytest.approx(1.25 * _pitch(plain), rel=0.12)
    np.testing.assert_array_equal(plain, speak(SyntheticVoice("a", "slt"), text))


def _pitch(samples: np.ndarray) -> float:
    """Returns the middle pitch of the louder half of all 64 ms windows, Hz."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256]
    loud = windows[np.argsort(np.abs(windows).mean(axis=1))[len(windows) // 2 :]]
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 90)
    best = [lags[np.argmax([window[:-lag] @ window[lag:] for lag in lags])] for window in loud]
    return float(SAMPLE_RATE / np.median(best))


@needs_flite
def test_folder_is_written_once(lexicon: Lexicon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TRAINING_VOICES", TRAINING_VOICES[:1])
    monkeypatch.setattr(files, "read_lexicon", lambda words: lexicon)
    counts = Counts(people=1, variants=1, val=1, test=1, codec=2, held_out=1)
    assert write_speech(tmp_path, counts, processes=1) == 9
    spoken = tmp_path / "speech/train/slt/0000.wav"
    recording = read_audio(spoken)
    assert recording.sample_rate == SAMPLE_RATE
    assert spoken.with_suffix(".txt").read_text().endswith(".\n")
    assert len(list(tmp_path.rglob("*.wav"))) == 9
    before = spoken.stat().st_mtime_ns
    (tmp_path / "speech/val/slt/0000.txt").unlink()
    write_speech(tmp_path, counts, processes=1)
    assert spoken.stat().st_mtime_ns == before
    assert (tmp_path / "speech/val/slt/0000.txt").is_file()


def test_no_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="processes is 0"):
        write_speech(tmp_path, processes=0)
