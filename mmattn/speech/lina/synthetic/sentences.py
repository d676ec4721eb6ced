"""What the embedded Lina is taught to say: open English sentences, split by words.

The usage examples of WordNet (Princeton University) are short natural phrases and sentences with 17,000 different
words. Some of the words are kept out of training: a word's split is drawn by its spelling, common words excepted. A
training sentence has training words only; validation and test sentences have words of their own split. Where examples
have too few of these, sentences of a plain pattern are made, so that at least half of the different words of a split
were never heard in training.

Needs Debian's ``wordnet-base`` and ``wamerican`` to make the data, not to train on it or to speak.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmattn.errors import InputError

__all__ = ["Lexicon", "Split", "make_sentences", "read_lexicon", "split_of", "words_of"]

Split = Literal["train", "val", "test"]

WORDNET = Path("/usr/share/wordnet")
WORDS = Path("/usr/share/dict/american-english")

_CLASSES = ("noun", "verb", "adj", "adv")
_SHARES = {"test": 0.10, "val": 0.05}
_COMMON = 60
"""A word with as many uses in the examples is known to every split."""
_SENTENCE = re.compile(r"[A-Za-z ,']+[.?!]?")
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty",
    "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand",
)  # fmt: skip
_LISTED, _COUNTED = 0.15, 0.04
"""Shares of training sentences that are rows of any words, and of number words."""


@dataclass(frozen=True)
class Lexicon:
    """Where sentences are made from.

    Attributes:
        examples: Sentences, in alphabetical order, all of whose words are English and pronounceable.
        nouns: Words by class, in alphabetical order.
        verbs: Past forms.
        adjectives: Words by class.
        common: Words that every split knows.
    """

    examples: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]
    common: frozenset[str]


def words_of(sentence: str) -> list[str]:
    """Returns the words of a sentence in lower case.

    >>> words_of("Don't stop, Anna!")
    ["don't", 'stop', 'anna']
    """
    return re.findall(r"[a-z']+", sentence.lower())


def split_of(word: str) -> Split:
    """Returns which split a word that is not common belongs to, by its spelling alone.

    >>> [split_of(word) for word in ("letter", "walnut", "candle")]
    ['train', 'train', 'train']
    """
    place = int.from_bytes(hashlib.sha256(f"lina {word}".encode()).digest()[:8], "big") / 2**64
    if place < _SHARES["test"]:
        return "test"
    return "val" if place < _SHARES["test"] + _SHARES["val"] else "train"


def read_lexicon(pronounceable: Iterable[str], wordnet: Path = WORDNET, words: Path = WORDS) -> Lexicon:
    """Reads WordNet and the word list.

    Args:
        pronounceable: Words whose pronunciation is known; others are not used.
        wordnet: Folder of ``data.noun`` and so on.
        words: One word per line.

    Raises:
        InputError: If a file is missing.
    """
    for file in (*(wordnet / f"data.{name}" for name in _CLASSES), words):
        if not file.is_file():
            raise InputError(
                f"{file} is missing, which the sentences are made from.", "On Debian: make system-deps, as root."
            )
    known = set(words.read_text(encoding="utf-8").split()) & set(pronounceable)
    examples: set[str] = set()
    for name in _CLASSES:
        examples.update(_examples((wordnet / f"data.{name}").read_text(encoding="utf-8"), known))
    counts = Counter(word for example in examples for word in words_of(example))
    common = frozenset(word for word, count in counts.items() if count >= _COMMON) | set(_NUMBERS)
    noun, verb, adjective, adverb = (
        _listed((wordnet / f"index.{name}").read_text(encoding="utf-8"), known) for name in _CLASSES
    )
    return Lexicon(
        examples=tuple(sorted(examples)),
        nouns=tuple(sorted(w for w in noun - verb - adjective - adverb if not w.endswith("s"))),
        verbs=tuple(sorted(past for past in map(_past, verb) if past in known and past not in adjective)),
        adjectives=tuple(sorted(adjective - noun - verb)),
        common=common,
    )


def make_sentences(lexicon: Lexicon, split: Split, count: int, *, seed: int, taken: set[str]) -> list[str]:
    """Returns sentences of a split.

    Training: examples, rows of words, rows of numbers. Validation and test: half examples with at least one word of
    the split's own, half sentences of a plain pattern with all open words of the split's own.

    Args:
        lexicon: From :func:`read_lexicon`.
        split: Whose words may occur.
        count: How many.
        seed: Of the draws.
        taken: Sentences that must not come again; the new ones are added.

    Raises:
        InputError: If there are not as many different ones.
    """
    generator = random.Random(f"{seed} {split}")
    examples = [e for e in lexicon.examples if e not in taken and _fits(e, split, lexicon.common)]
    generator.shuffle(examples)
    made: list[str] = []
    if split != "train":
        pools = [[w for w in pool if split_of(w) == split] for pool in _pools(lexicon)]
    while len(made) < count:
        draw = generator.random()
        if split == "train" and draw < _COUNTED:
            sentence = " ".join(generator.choices(_NUMBERS, k=generator.randint(3, 7)))
        elif split == "train" and draw < _COUNTED + _LISTED:
            sentence = _row_of_words(lexicon, generator)
        elif split != "train" and draw < 0.5:
            sentence = _pattern(pools, generator)
        elif examples:
            sentence = examples.pop()
        else:
            raise InputError(f"There are not {count} different sentences for {split}; {len(made)} were made.")
        if sentence not in taken:
            taken.add(sentence)
            made.append(_written(sentence))
    return made


def _examples(data: str, known: set[str]) -> set[str]:
    found: set[str] = set()
    for line in data.splitlines():
        if line.startswith(" "):  # the licence
            continue
        for example in re.findall(r'"([^"]+)"', line.partition("|")[2]):
            words = words_of(example)
            if _SENTENCE.fullmatch(example) and 4 <= len(words) <= 12 and known.issuperset(words):
                found.add(example.strip())
    return found


def _listed(index: str, known: set[str]) -> set[str]:
    words = {line.partition(" ")[0] for line in index.splitlines() if not line.startswith(" ")}
    return {word for word in words & known if 3 <= len(word) <= 11}


def _past(verb: str) -> str:
    """Returns the regular past form; where it is wrong, the word list does not know it."""
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "ed"


def _fits(example: str, split: Split, common: frozenset[str]) -> bool:
    splits = {split_of(word) for word in words_of(example) if word not in common}
    return splits <= {"train"} if split == "train" else split in splits and splits <= {"train", split}


def _pools(lexicon: Lexicon) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    return lexicon.nouns, lexicon.verbs, lexicon.adjectives


def _row_of_words(lexicon: Lexicon, generator: random.Random) -> str:
    words: list[str] = []
    length = generator.randint(3, 7)
    while len(words) < length:
        word = generator.choice(generator.choice(_pools(lexicon)))
        if word in lexicon.common or split_of(word) == "train":
            words.append(word)
    return " ".join(words)


def _pattern(pools: Sequence[Sequence[str]], generator: random.Random) -> str:
    nouns, verbs, adjectives = pools

    def phrase(likely: float) -> str:
        described = f"{generator.choice(adjectives)} " if generator.random() < likely else ""
        return f"{generator.choice(('the', 'this', 'every', 'no', 'his', 'her'))} {described}{generator.choice(nouns)}"

    sentence = f"{phrase(0.8)} {generator.choice(verbs)} {phrase(0.5)}"
    if generator.random() < 0.4:
        sentence += f" {generator.choice(('near', 'with', 'before', 'under', 'after'))} {phrase(0.3)}"
    return sentence


def _written(sentence: str) -> str:
    """Returns it with a capital and a full stop."""
    text = sentence[0].upper() + sentence[1:]
    return text if text[-1] in ".?!" else text + "."
