"""Tokens of a text, whichever tokenizer makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.speech.lina.text.normalise import normalise

__all__ = ["END", "PAD", "SPACE", "SPECIAL", "START", "TextTokens", "Tokenizer", "assemble", "speakable"]

PAD, START, END, SPACE = 0, 1, 2, 3
SPECIAL = ("_", "^", "$", " ")
"""How padding, start, end and the space between words are written in plots."""


class TextTokens(NamedTuple):
    """A text as the model reads it.

    Attributes:
        ids: (M,) ``int64``, the start 1 first, the end 2 last.
        symbols: M strings, for plots.
        words: M numbers, the word that a token belongs to, counted from 0; -1 for start, end, spaces and pauses.
    """

    ids: Tensor
    symbols: list[str]
    words: list[int]

    def count_words(self) -> int:
        """Returns how many words there are."""
        return max(self.words, default=-1) + 1


class Tokenizer(Protocol):
    """Makes tokens of texts; ids are below ``vocab_size``."""

    @property
    def vocab_size(self) -> int:
        """Number of different ids, padding included."""

    def encode(self, text: str) -> TextTokens:
        """Returns the tokens of a text.

        Raises:
            InputError: If nothing in it can be spoken.
        """


def speakable(text: str) -> str:
    """Returns the normalised text.

    Raises:
        InputError: If nothing is left of it.
    """
    normal = normalise(text)
    if not normal:
        shown = text.strip()[:40]
        raise InputError(
            f"There is nothing to speak in '{shown}'." if shown else "The text is empty.",
            "Expected English: words, numbers, or abbreviations.",
        )
    return normal


def assemble(groups: Sequence[tuple[Sequence[str], bool]], ids: Mapping[str, int]) -> TextTokens:
    """Returns the tokens of groups of symbols, with start and end around them.

    Args:
        groups: Symbols, all of which have an id, and whether they are a word.
        ids: Symbol -> id.
    """
    symbols, words, word = [SPECIAL[START]], [-1], 0
    for group, is_word in groups:
        symbols += group
        words += [word if is_word else -1] * len(group)
        word += is_word
    symbols.append(SPECIAL[END])
    return TextTokens(torch.tensor([ids[symbol] for symbol in symbols]), symbols, [*words, -1])
