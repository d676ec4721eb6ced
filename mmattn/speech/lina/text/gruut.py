"""The package gruut (MIT), with its lexicon in memory: the words of a sentence as American phones.

gruut asks its lexicon, a database without an index, for each word on its own, which takes ten times as long as all
the rest; and what it answers depends on the words it has seen before. Here the lexicon is read once, and answers the
same always.
"""

from __future__ import annotations

import importlib
import re
import sqlite3
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmattn.errors import MissingExtraError

__all__ = ["Lexicon", "Phonemizer", "phonemizer"]

_LANGUAGE = "en-us"


class Lexicon:
    """Phones of words, which may differ with the part of speech: "read" and "read".

    Args:
        file: gruut's database, with a table ``word_phonemes``.
    """

    def __init__(self, file: Path) -> None:
        connection = sqlite3.connect(file)
        try:
            rows = connection.execute("SELECT word, role, phonemes FROM word_phonemes ORDER BY pron_order").fetchall()
        finally:
            connection.close()
        self.entries: dict[str, dict[str, str]] = {}
        for word, role, phones in rows:
            self.entries.setdefault(word, {}).setdefault(role or "", phones)

    def __call__(self, word: str, role: str | None = None, do_transforms: bool = True) -> list[str] | None:
        """Returns the phones of a word, None if it is unknown; gruut calls it like its own.

        Args:
            word: As it is written.
            role: Part of speech as gruut names it; of an unknown one the usual phones are returned.
            do_transforms: Whether to look in lower case and without apostrophes, too.
        """
        forms = [word]
        if do_transforms:
            plain = re.sub(r"\W", "", word)
            forms += [word.lower(), plain, plain.lower()]
        found = next((self.entries[form] for form in forms if form in self.entries), None)
        if found is None:
            return None
        phones = found.get(role or "") or found.get("") or next(iter(found.values()))
        return phones.split()


class Phonemizer:
    """Makes phones of words; several threads may share one.

    Raises:
        MissingExtraError: If gruut is not installed.
    """

    def __init__(self) -> None:
        try:
            gruut: Any = importlib.import_module("gruut")
            folder = importlib.import_module("gruut.utils").find_lang_dir(_LANGUAGE)
        except ImportError as error:
            raise MissingExtraError("gruut", "speech", "Text as phonemes") from error
        if folder is None:
            raise MissingExtraError("gruut", "speech", "English as phonemes")
        lexicon = Lexicon(Path(folder) / "lexicon.db")
        self._processor = gruut.TextProcessor(default_lang=_LANGUAGE, lookup_phonemes=lexicon)
        self._lock = threading.Lock()

    def words(self, phrases: Sequence[str]) -> list[list[tuple[str, list[str]]]]:
        """Returns the words of every phrase of a sentence, each with its phones.

        Their parts of speech are told by the whole sentence: "He took the paper, read it and went."

        Args:
            phrases: Without punctuation, none of them blank; what stands between commas.
        """
        with self._lock:
            # Without the mark that ends the sentence: after "vitamin C" it would be taken for an abbreviation's.
            graph, root = self._processor(", ".join(phrases), lang=_LANGUAGE)
            sentences = list(self._processor.sentences(graph, root))
        found: list[list[tuple[str, list[str]]]] = [[]]
        for word in (word for sentence in sentences for word in sentence):
            if word.is_minor_break:
                found.append([])
            else:
                found[-1].append((word.text, list(word.phonemes or ())))
        return found


@cache
def phonemizer() -> Phonemizer:
    """Returns the one that all tokenizers of a process share.

    Raises:
        MissingExtraError: If gruut is not installed.
    """
    return Phonemizer()
