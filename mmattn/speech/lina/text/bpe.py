"""Text as pieces of words, byte-pair encoded: a file of the tokenizers library, as the published models use it.

Source: theodorblackbird/lina-speech. Its own file is not free to ship; :func:`train_bpe` makes
one of the same settings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import torch

from mmattn.errors import InputError, MissingExtraError
from mmattn.media.files import atomic_path
from mmattn.speech.lina.text.normalise import normalise
from mmattn.speech.lina.text.tokens import TextTokens, speakable

__all__ = ["BpeTokenizer", "train_bpe"]

logger = logging.getLogger(__name__)

_PAD, _START, _END = "[PAD]", "[BOS]", "[EOS]"
_SIZE = 256
# The trainer gives ids in this order; letters and merges follow by themselves.
_FIRST = (_PAD, _START, _END, " ")
_ALPHABET = "!\"'(),-.:;?abcdefghijklmnopqrstuvwxyz"


class BpeTokenizer:
    """Pieces of words.

    Args:
        file: What the tokenizers library wrote.

    Raises:
        InputError: If there is no such file, or it lacks "[PAD]" 0, "[BOS]" 1 and "[EOS]" 2.
        MissingExtraError: If tokenizers is not installed.
    """

    def __init__(self, file: Path) -> None:
        library = _library()
        if not file.is_file():
            raise InputError(
                f"The tokenizer's file {file} is missing.",
                "The published models come with one, bpe256.json; name it by tokenizer_options.file.",
            )
        try:
            self._tokenizer = library.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{file} is no file of the tokenizers library: {error}.") from error
        found = [self._tokenizer.token_to_id(token) for token in (_PAD, _START, _END)]
        if found != [0, 1, 2]:
            raise InputError(f"{file} numbers {_PAD}, {_START} and {_END} as {found}, expected 0, 1 and 2.")
        self._characters = {c for token in self._tokenizer.get_vocab() for c in token}

    @property
    def vocab_size(self) -> int:
        """Number of different ids, padding included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> TextTokens:
        """Returns the pieces of a text.

        Raises:
            InputError: If nothing in it can be spoken, or the file knows none of its characters.
        """
        normal = speakable(text).lower()
        known = "".join(c for c in normal if c in self._characters)
        if known != normal:
            missing = sorted({c for c in normal if c not in self._characters})
            logger.warning("Left out characters that the tokenizer's file does not know: %s", " ".join(missing))
        if not any(c.isalpha() for c in known):
            raise InputError(f"The tokenizer's file knows no letter of '{text.strip()[:40]}'.")
        encoding = self._tokenizer.encode(f"{_START}{known}{_END}")
        words, word, inside = [], -1, False
        for piece in encoding.tokens:
            is_word = piece not in _FIRST and any(c.isalpha() for c in piece)
            word += is_word and not inside
            # An apostrophe is a piece of its own inside a word.
            inside = is_word or (inside and piece == "'")
            words.append(word if inside else -1)
        return TextTokens(torch.tensor(encoding.ids), list(encoding.tokens), words)


def train_bpe(texts: Iterable[str], file: str | Path) -> Path:
    """Learns pieces from texts and writes the file: 256 entries, lower case, spaces and punctuation apart.

    Args:
        texts: Normalised here; those with nothing to speak are left out.
        file: Where to.

    Raises:
        InputError: If there is nothing to learn from.
        MissingExtraError: If tokenizers is not installed.
    """
    library = _library()
    normal = [text for text in map(normalise, texts) if text]
    if not normal:
        raise InputError("There is no text to learn a tokenizer from.")
    tokenizer = library.Tokenizer(library.models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = library.normalizers.Lowercase()
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Punctuation("isolated"),
            library.pre_tokenizers.Split(" ", "isolated"),
        ]
    )
    trainer = library.trainers.BpeTrainer(
        vocab_size=_SIZE, special_tokens=list(_FIRST), initial_alphabet=list(_ALPHABET), show_progress=False
    )
    tokenizer.train_from_iterator(normal, trainer)
    with atomic_path(file) as temporary:
        temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return Path(file)


def _library() -> ModuleType:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "vlm", "A tokenizer of the published models") from error
    return tokenizers
