"""Text as the token model reads it: normalised, then as characters, phonemes or pieces of words.

| name | tokens | needs |
| --- | --- | --- |
| characters | letters and punctuation, :data:`CHARACTERS` | nothing; num2words for digits |
| gruut | American phonemes, :data:`.phonemes.GRUUT_SYMBOLS` | the package gruut |
| espeak | IPA characters, :data:`.phonemes.ESPEAK_SYMBOLS` | the program espeak-ng |
| bpe | pieces of a file of the tokenizers library, as published | the package tokenizers |

The tables are part of the code and never change with the data: a model's weights rely on them. In each of them 0 is
padding, 1 the start, 2 the end and 3 the space between words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmattn.errors import InputError
from mmattn.speech.lina.text.bpe import BpeTokenizer
from mmattn.speech.lina.text.normalise import normalise
from mmattn.speech.lina.text.phonemes import EspeakTokenizer, GruutTokenizer
from mmattn.speech.lina.text.tokens import SPECIAL, TextTokens, Tokenizer, assemble, speakable

__all__ = ["CHARACTERS", "CharacterTokenizer", "TextTokens", "Tokenizer", "build_tokenizer", "normalise"]

CHARACTERS: tuple[str, ...] = (*SPECIAL, *"',.?!;:-", *"abcdefghijklmnopqrstuvwxyz")
"""The characters in the order of their ids, 38 of them."""


def build_tokenizer(name: str, options: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """Returns a tokenizer.

    Args:
        name: One of the module's table.
        options: For "bpe", ``file``: the tokenizer's file; for the others nothing.
        folder: What ``file`` is relative to, the checkpoint's folder; None means the working directory.

    Raises:
        InputError: If the name or an option is unknown, or a file or program is missing.
        MissingExtraError: If a package is missing.

    >>> build_tokenizer("characters", {}).encode("Hi!").symbols
    ['^', 'h', 'i', '!', '$']
    """
    known: dict[str, tuple[Callable[..., Tokenizer], set[str]]] = {
        "characters": (CharacterTokenizer, set()),
        "gruut": (GruutTokenizer, set()),
        "espeak": (EspeakTokenizer, set()),
        "bpe": (lambda file: BpeTokenizer((folder or Path()) / file), {"file"}),
    }
    if name not in known:
        raise InputError(f"There is no tokenizer '{name}'.", f"Expected one of {', '.join(known)}.")
    build, expected = known[name]
    if set(options) != expected:
        wanted = ", ".join(sorted(expected)) or "none"
        raise InputError(
            f"The tokenizer '{name}' was given the options {', '.join(sorted(options)) or 'none'}, expected {wanted}."
        )
    return build(**options)


class CharacterTokenizer:
    """Lower-case letters and punctuation.

    >>> tokens = CharacterTokenizer().encode("It's 2.")
    >>> "".join(tokens.symbols), tokens.words
    ("^it's two.$", [-1, 0, 0, 0, 0, -1, 1, 1, 1, -1, -1])
    """

    vocab_size = len(CHARACTERS)

    def encode(self, text: str) -> TextTokens:
        """Returns the tokens of a text.

        Raises:
            InputError: If nothing in it can be spoken.
        """
        groups: list[tuple[list[str], bool]] = []
        for word, mark in re.findall(r"([a-z']+)|([^a-z'])", speakable(text).lower()):
            groups.append((list(word or mark), bool(word)))
        return assemble(groups, _CHARACTER_IDS)


_CHARACTER_IDS = {symbol: index for index, symbol in enumerate(CHARACTERS)}
