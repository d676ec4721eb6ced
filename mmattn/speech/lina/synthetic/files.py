"""The embedded Lina's data on disk: recordings with their texts, made once by ``mmattn data make lina FOLDER``.

``speech/{train,val,test}/VOICE`` teach and test the text model, ``codec/{train,val,test}`` the codec, and
``held_out/VOICE/{clone,test}`` are voices that neither of them ever hears: one to clone from, one to compare with.
Every recording lies beside a text of the same name. The same folder comes out every time; what is there is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmattn.errors import InputError
from mmattn.media.audio import write_audio
from mmattn.media.files import write_text
from mmattn.speech.lina.judges.recogniser import read_pronunciations
from mmattn.speech.lina.synthetic.sentences import Lexicon, Split, make_sentences, read_lexicon
from mmattn.speech.lina.synthetic.voices import (
    EASY,
    HARD,
    SAMPLE_RATE,
    TRAINING_VOICES,
    SyntheticVoice,
    random_voice,
    speak,
)

__all__ = ["Counts", "plan", "write_speech"]

_SEED = 4


@dataclass(frozen=True)
class Counts:
    """How many sentences.

    Attributes:
        people: Training sentences of each voice that is no variant.
        variants: Of each that is.
        val: Of each training voice.
        test: Of each training voice.
        codec: For the codec's training, half of them by random variants; a fortieth as many to validate and test.
        held_out: Of each voice that is kept out, to clone and as many to test.
    """

    people: int = 900
    variants: int = 420
    val: int = 6
    test: int = 14
    codec: int = 2400
    held_out: int = 30


@dataclass(frozen=True)
class _Spoken:
    """One recording to make: where (without suffix), by whom, what."""

    path: str
    voice: SyntheticVoice
    text: str


def plan(lexicon: Lexicon, counts: Counts) -> list[_Spoken]:
    """Returns all recordings; no sentence of validation, test or held-out voices is said in training."""
    taken: set[str] = set()
    spoken: list[_Spoken] = []

    def add(folder: str, voices: Sequence[SyntheticVoice], each: Sequence[int], split: Split, seed: int) -> None:
        texts = iter(make_sentences(lexicon, split, sum(each), seed=seed, taken=taken))
        for voice, count in zip(voices, each, strict=True):
            place = folder.format(voice=voice.name)
            spoken.extend(_Spoken(f"{place}/{number:04d}", voice, next(texts)) for number in range(count))

    training = TRAINING_VOICES
    own = [counts.people if voice.name == voice.base else counts.variants for voice in training]
    add("speech/test/{voice}", training, [counts.test] * len(training), "test", _SEED)
    add("held_out/{voice}/test", (EASY, HARD), [counts.held_out] * 2, "test", _SEED + 1)
    add("speech/val/{voice}", training, [counts.val] * len(training), "val", _SEED + 2)
    add("held_out/{voice}/clone", (EASY, HARD), [counts.held_out] * 2, "train", _SEED + 3)
    add("speech/train/{voice}", training, own, "train", _SEED + 4)
    spoken += _for_codec(lexicon, counts.codec)
    return spoken


def _for_codec(lexicon: Lexicon, count: int) -> Iterator[_Spoken]:
    splits: tuple[tuple[Split, int], ...] = (("train", count), ("val", count // 40), ("test", count // 40))
    for split, size in splits:
        generator = np.random.default_rng([_SEED, len(split), size])
        for number, text in enumerate(make_sentences(lexicon, split, size, seed=_SEED + 5, taken=set())):
            voice = random_voice(generator) if number % 2 else TRAINING_VOICES[number // 2 % len(TRAINING_VOICES)]
            yield _Spoken(f"codec/{split}/{number:05d}", voice, text)


def write_speech(folder: Path, counts: Counts | None = None, *, processes: int = 2) -> int:
    """Makes the recordings that are not there yet and returns how many there are.

    Args:
        folder: Made if it does not exist; about 1 GB with the usual counts.
        counts: How many of each kind.
        processes: How many speak at once.

    Raises:
        InputError: If a program or list is missing, or a sentence could not be said.
        MissingExtraError: If pocketsphinx, whose dictionary says which words are known, is not installed.
    """
    if processes < 1:
        raise InputError(f"processes is {processes}, expected at least 1.")
    everything = plan(read_lexicon(read_pronunciations()), counts or Counts())
    # The text is written last: where it is, the recording is whole.
    missing = [item for item in everything if not (folder / f"{item.path}.txt").is_file()]
    for parent in sorted({(folder / item.path).parent for item in missing}):
        parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        tqdm(total=len(missing), desc="Speaking", unit="sentence", mininterval=5, disable=not missing) as bar,
    ):
        for _ in pool.map(_write, [os.fspath(folder)] * len(missing), missing, chunksize=16):
            bar.update()
    return len(everything)


def _write(folder: str, item: _Spoken) -> None:
    path = Path(folder) / item.path
    write_audio(path.with_name(f"{path.name}.wav"), speak(item.voice, item.text), SAMPLE_RATE)
    write_text(path.with_name(f"{path.name}.txt"), item.text + "\n")
