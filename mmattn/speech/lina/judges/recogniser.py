"""What was understood: the recogniser pocketsphinx (BSD) with its English acoustic model and no idea of the language.

Every word of a vocabulary is as likely as every other at every place, so bad sound is not repaired by what usually
follows what. The vocabulary is the test's words and as many others as make it hard.

Two words that sound alike cannot be told apart by ear (``two``, ``too``); the ones that are added sound like none of
the test's, and :meth:`Recogniser.spell_like` does not mind which of the test's own it is.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.errors import InputError, MissingExtraError
from mmattn.metrics.error_rate import align
from mmattn.speech.lina.judges.judge import SAMPLE_RATE, Wave, heard_wave

__all__ = ["Recogniser", "choose_distractors", "read_pronunciations"]

Pronunciations = Mapping[str, tuple[str, ...]]

_SHORTEST, _LONGEST = 3, 9
"""Letters of the words that are added."""
_WORD_WEIGHT = 5.0
"""Power of a word's probability, which is one and the same for all: a price per word. Chosen on validation sentences of
five voices of the synthesiser, where as many words were heard as said; 1 hears a fifth too many."""
_PAUSE = 0.2
"""Seconds of silence put before and after."""
_GAIN, _NOISE = 0.5, 1e-4
"""The recogniser looks at how spectra differ from their mean, which digital silence would spoil."""
_SHOWN = 8
"""Unknown words that an error lists."""


class Recogniser:
    """Writes down what it hears, in words of its vocabulary.

    Args:
        words: Of the test; more than once makes no difference.
        num_distractors: Words that are added.
        seed: Of their choice, and of the faint noise.

    Attributes:
        words: Those of the test.
        vocabulary: They and the added ones, in alphabetical order.

    Raises:
        MissingExtraError: If pocketsphinx is not installed.
        InputError: If words are not in its dictionary, or it has not as many others.

    Example:
        ```
        recogniser = Recogniser("the cat sat".split())
        recogniser.transcribe(recording.samples, recording.sample_rate)  # ['the', 'cat', 'sat']
        ```
    """

    def __init__(self, words: Iterable[str], num_distractors: int = 2000, seed: int = 0) -> None:
        known = read_pronunciations()
        self.words = frozenset(words)
        _check(sorted(self.words), known)
        self.vocabulary = sorted({*self.words, *choose_distractors(self.words, known, num_distractors, seed)})
        self._said = {word: frozenset(known[word]) for word in self.vocabulary}
        self._seed = seed
        self._decoder = _decoder({word: known[word] for word in self.vocabulary})

    def transcribe(self, wave: Wave, sample_rate: int) -> list[str]:
        """Returns the words heard; what was heard before does not matter.

        Args:
            wave: (N,) ``float32`` in [-1, 1].
            sample_rate: Hz.

        Raises:
            InputError: If the wave is empty, not one-dimensional or not finite.
        """
        samples = np.pad(_GAIN * heard_wave(wave, sample_rate), round(_PAUSE * SAMPLE_RATE))
        samples = samples + np.random.default_rng(self._seed).normal(0.0, _NOISE, samples.shape)
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return heard.hypstr.split() if heard else []

    def sounds_alike(self, first: str, second: str) -> bool:
        """Returns whether two words of the vocabulary are the same or share a pronunciation."""
        return first == second or bool(self._said[first] & self._said[second])

    def spell_like(self, text: Sequence[str], heard: Sequence[str]) -> list[str]:
        """Returns the words heard; one that sounds like the word of the text it is aligned with is spelled as there."""
        pairs = align(text, heard, self.sounds_alike)
        return [
            said if said is not None and self.sounds_alike(said, word) else word
            for said, word in pairs
            if word is not None
        ]


@lru_cache(maxsize=1)
def read_pronunciations() -> Pronunciations:
    """Returns the CMU dictionary that comes with pocketsphinx: of each word its pronunciations, the usual one first.

    Raises:
        MissingExtraError: If pocketsphinx is not installed.
    """
    try:
        from pocketsphinx import get_model_path
    except ImportError as error:
        raise MissingExtraError("pocketsphinx", "dev", "The recogniser") from error
    said: dict[str, list[str]] = {}
    with Path(get_model_path("en-us"), "cmudict-en-us.dict").open(encoding="utf-8") as lines:
        for line in lines:
            entry, _, phones = line.strip().partition(" ")
            # Further pronunciations of "word" are entered as "word(2)", "word(3)".
            said.setdefault(entry.partition("(")[0], []).append(phones)
    return {word: tuple(phones) for word, phones in said.items()}


def choose_distractors(words: Iterable[str], known: Pronunciations, count: int, seed: int) -> list[str]:
    """Returns words of 3 to 9 letters, none of which is or sounds like one of ``words``; the same for the same seed.

    Raises:
        InputError: If there are not as many.
    """
    taken = set(words)
    sounds = {phones for word in taken for phones in known[word]}
    others = [
        word
        for word in sorted(known)
        if _SHORTEST <= len(word) <= _LONGEST
        and word.isalpha()
        and word not in taken
        and sounds.isdisjoint(known[word])
    ]
    if not 0 <= count <= len(others):
        raise InputError(f"{count} words were to be added to the vocabulary, expected 0 to {len(others)}.")
    return random.Random(seed).sample(others, count)


def _check(words: Sequence[str], known: Pronunciations) -> None:
    if not words:
        raise InputError("The recogniser was given no words to listen for.")
    unknown = [word for word in words if word not in known]
    if unknown:
        listed = ", ".join(repr(word) for word in unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        raise InputError(
            f"The recogniser's dictionary lacks {len(unknown)} of the words: {listed}.",
            "Judge sentences of dictionary words in lower case, with numbers written out.",
        )


def _decoder(said: Pronunciations) -> Any:
    from pocketsphinx import Decoder, get_model_path

    with tempfile.TemporaryDirectory() as folder:
        dictionary, model = Path(folder, "words.dict"), Path(folder, "words.lm")
        dictionary.write_text(_dictionary(said), encoding="utf-8")
        model.write_text(_even_language_model(said), encoding="utf-8")
        return Decoder(
            hmm=get_model_path("en-us/en-us"),
            dict=str(dictionary),
            lm=str(model),
            lw=_WORD_WEIGHT,
            # Two further passes weigh language models that know something; here they change nothing but the time.
            fwdflat=False,
            bestpath=False,
            loglevel="FATAL",
        )


def _dictionary(said: Pronunciations) -> str:
    entries = [
        f"{word if number == 1 else f'{word}({number})'} {phones}\n"
        for word, variants in said.items()
        for number, phones in enumerate(variants, start=1)
    ]
    return "".join(entries)


def _even_language_model(words: Iterable[str]) -> str:
    """Returns a unigram model in ARPA's format in which all words and the end of the sentence are equally likely."""
    entries = ["</s>", *words]
    even = f"{-math.log10(len(entries)):.4f}"
    lines = "".join(f"{even} {word}\n" for word in entries)
    return f"\\data\\\nngram 1={len(entries) + 1}\n\n\\1-grams:\n-99 <s>\n{lines}\n\\end\\\n"
