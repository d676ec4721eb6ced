"""Text as American phonemes: by the package gruut (MIT), or by the program espeak-ng.

Both read the normalised text. Between two words stands a space, or where there is punctuation only a pause: "|" for
``, ; :``, "." for ``. !`` and "?".

gruut asks its lexicon, a database without an index, for each word on its own, which takes ten times as long as all
the rest; and what it answers depends on the words it has seen before. Here the lexicon is read once, and answers the
same always.
"""

# ruff: noqa: RUF001 - the letters of the phonetic alphabet are meant.

from __future__ import annotations

import importlib
import logging
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmattn.errors import InputError, MissingExtraError
from mmattn.speech.lina.text.tokens import SPACE, SPECIAL, TextTokens, assemble, speakable

__all__ = [
    "ESPEAK_SYMBOLS",
    "GRUUT_SYMBOLS",
    "EspeakTokenizer",
    "GruutLexicon",
    "GruutTokenizer",
    "Phonemizer",
    "phonemizer",
]

_LANGUAGE = "en-us"


class GruutLexicon:
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
        lexicon = GruutLexicon(Path(folder) / "lexicon.db")
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


logger = logging.getLogger(__name__)

_PAUSES = ("|", ".", "?")
_PAUSE_OF = {",": "|", ";": "|", ":": "|", ".": ".", "!": ".", "?": "?"}

_CONSONANTS = (
    "b", "d", "d͡ʒ", "f", "h", "j", "k", "l", "m", "n", "p", "s", "t", "t͡ʃ", "v", "w", "z", "ð", "ŋ", "ɡ", "ɹ", "ʃ",
    "ʒ", "θ",
)  # fmt: skip
_VOWELS = ("aɪ", "aʊ", "eɪ", "i", "oʊ", "u", "æ", "ɑ", "ɔ", "ɔɪ", "ɚ", "ɛ", "ɪ", "ʊ", "ʌ")
_STRESS = ("", "ˈ", "ˌ")

GRUUT_SYMBOLS: tuple[str, ...] = (
    *SPECIAL, *_PAUSES, *_CONSONANTS, "ə", *(stress + vowel for vowel in _VOWELS for stress in _STRESS)
)  # fmt: skip
"""The symbols in the order of their ids, 77: the special ones, pauses, consonants, the schwa, and each vowel without
stress, with the primary and with the secondary. All phones of gruut's American lexicon and of its model."""

ESPEAK_SYMBOLS: tuple[str, ...] = (
    *SPECIAL, *_PAUSES, *"ˈˌːabdefhijklmnoprstuvwxzæðŋɐɑɔəɚɛɜɡɪɬɹɾʃʊʌʒʔʲθᵻ", "\u0303", "\u0329"
)  # fmt: skip
"""The symbols in the order of their ids, 57: special ones, pauses, and the IPA characters of espeak-ng's voice en-us,
with stress and length as characters of their own."""

_PROGRAM = "espeak-ng"
_SECONDS = 60.0


class GruutTokenizer:
    """Phonemes of gruut (MIT), which looks words up, tells "read" from "read" by the words around, and guesses others.

    Raises:
        MissingExtraError: If gruut is not installed.
    """

    vocab_size = len(GRUUT_SYMBOLS)

    def __init__(self) -> None:
        phonemizer()  # says at once what is missing

    def encode(self, text: str) -> TextTokens:
        """Returns the phonemes of a text.

        Raises:
            InputError: If nothing in it can be spoken.
        """
        return _with_pauses(speakable(text), self._speak, _GRUUT_IDS, text)

    def _speak(self, phrases: Sequence[str]) -> Iterator[list[list[str]]]:
        for words in phonemizer().words(phrases):
            # The letter A; the article is small after normalising.
            yield [["ˈeɪ"] if word == "A" else phones for word, phones in words]


class EspeakTokenizer:
    """IPA of the program espeak-ng, which runs as a process of its own.

    Raises:
        InputError: If it is not installed.
    """

    vocab_size = len(ESPEAK_SYMBOLS)

    def __init__(self) -> None:
        program = shutil.which(_PROGRAM)
        if program is None:
            raise InputError(
                "This model reads phonemes of the program espeak-ng, which is not installed.",
                "On Debian: apt install espeak-ng. On macOS: brew install espeak-ng.",
            )
        self._program = program

    def encode(self, text: str) -> TextTokens:
        """Returns the IPA characters of a text.

        Raises:
            InputError: If nothing in it can be spoken, or the program fails.
        """
        return _with_pauses(speakable(text), self._speak, _ESPEAK_IDS, text)

    def _speak(self, phrases: Sequence[str]) -> Iterator[list[list[str]]]:
        return map(self._phrase, phrases)

    def _phrase(self, phrase: str) -> list[list[str]]:
        # The letter A, which it takes for the article, is given in its own notation.
        prepared = re.sub(r"(?<![A-Za-z'])A(?![A-Za-z'])", "[['eI]]", phrase)
        command = [self._program, "-q", "--ipa", "-v", "en-us", "--stdin"]
        try:
            done = subprocess.run(command, input=prepared.encode(), capture_output=True, timeout=_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise InputError(
                f"{_PROGRAM} failed: {error}.", "See whether it works on its own: espeak-ng hello"
            ) from error
        return [list(word) for word in re.sub(r"[\u200c\u200d\u0361]", "", done.stdout.decode()).split()]


_GRUUT_IDS = {symbol: index for index, symbol in enumerate(GRUUT_SYMBOLS)}
_ESPEAK_IDS = {symbol: index for index, symbol in enumerate(ESPEAK_SYMBOLS)}


def _with_pauses(
    normal: str, speak: Callable[[Sequence[str]], Iterable[list[list[str]]]], ids: Mapping[str, int], text: str
) -> TextTokens:
    """Returns the tokens of a normalised text: its words' phones, and what is between the words.

    Args:
        normal: The normalised text.
        speak: Phrases that commas part -> of each phrase, the phones of every word.
        ids: Symbol -> id.
        text: As it was given, for messages.

    Raises:
        InputError: If no phone is left.
    """
    groups: list[tuple[list[str], bool]] = []
    unknown: dict[str, None] = {}
    spoken = _spoken(normal, speak)
    for mark, phrase in re.findall(r"([,.?!;:])|([^,.?!;:]+)", normal):
        if mark and groups and groups[-1][1]:
            groups.append(([_PAUSE_OF[mark]], False))
        for phones in next(spoken) if phrase.strip() else ():
            known = [_known(phone, ids) for phone in phones]
            unknown.update((phone, None) for phone, found in zip(phones, known, strict=True) if found is None)
            word = [phone for phone in known if phone is not None]
            if not word:
                continue
            if groups and groups[-1][1]:
                groups.append(([SPECIAL[SPACE]], False))
            groups.append((word, True))
    if unknown:
        logger.warning("Left out phones that are not in the table: %s", " ".join(unknown))
    if not groups:
        raise InputError(f"There is nothing to speak in '{text.strip()[:40]}'.", "Expected English words.")
    return assemble(groups, ids)


def _spoken(normal: str, speak: Callable[[Sequence[str]], Iterable[list[list[str]]]]) -> Iterator[list[list[str]]]:
    """Yields, of every phrase that is not blank, the phones of its words.

    Phrases are spoken together up to a mark that closes a clause, for how a word sounds may depend on another phrase.
    """
    for clause in re.split(r"[.?!;:]", normal):
        phrases = [phrase.strip() for phrase in clause.split(",") if phrase.strip()]
        if phrases:
            yield from speak(phrases)


def _known(phone: str, ids: Mapping[str, int]) -> str | None:
    """Returns the phone, or without its stress, whichever the table has."""
    return next((form for form in (phone, phone.lstrip("ˈˌ")) if form in ids), None)
