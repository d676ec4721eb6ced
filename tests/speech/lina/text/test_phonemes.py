"""Text as phonemes: fixed tables, pauses, words, and what the two sources make of hard cases."""

# ruff: noqa: RUF001 - the letters of the phonetic alphabet are meant.

import base64
import importlib
import logging
import pickle
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.text import phonemes
from mmattn.speech.lina.text.phonemes import (
    ESPEAK_SYMBOLS,
    GRUUT_SYMBOLS,
    EspeakTokenizer,
    GruutLexicon,
    GruutTokenizer,
)

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def gruut() -> GruutTokenizer:
    pytest.importorskip("gruut", reason="gruut is not installed")
    return GruutTokenizer()


def test_the_tables_are_numbered_for_ever() -> None:
    assert " ".join(GRUUT_SYMBOLS[:3] + GRUUT_SYMBOLS[4:33]) == (
        "_ ^ $ | . ? b d d͡ʒ f h j k l m n p s t t͡ʃ v w z ð ŋ ɡ ɹ ʃ ʒ θ ə aɪ"
    )
    assert GRUUT_SYMBOLS[3] == " "
    assert GRUUT_SYMBOLS[32:38] == ("aɪ", "ˈaɪ", "ˌaɪ", "aʊ", "ˈaʊ", "ˌaʊ")
    assert GRUUT_SYMBOLS[-3:] == ("ʌ", "ˈʌ", "ˌʌ")
    assert (len(GRUUT_SYMBOLS), len(set(GRUUT_SYMBOLS))) == (77, 77)
    assert "".join(ESPEAK_SYMBOLS[:7]) == "_^$ |.?"
    assert (len(ESPEAK_SYMBOLS), len(set(ESPEAK_SYMBOLS))) == (57, 57)


def test_every_phone_of_the_lexicon_is_in_the_table(gruut: GruutTokenizer) -> None:
    lexicon = GruutLexicon(_english() / "lexicon.db")
    phones = {phone for roles in lexicon.entries.values() for phones in roles.values() for phone in phones.split()}
    assert phones == set(GRUUT_SYMBOLS[7:])


def test_every_phone_that_it_guesses_is_in_the_table(gruut: GruutTokenizer) -> None:
    tagger = importlib.import_module("pycrfsuite").Tagger()
    tagger.open(str(_english() / "g2p" / "model.crf"))
    guessed = {phone for label in tagger.labels() for phone in base64.b64decode(label).decode().split("|")}
    assert guessed - {"_"} == set(GRUUT_SYMBOLS[7:])  # "_" is no phone at all


def _english() -> Path:
    return Path(str(importlib.import_module("gruut.utils").find_lang_dir("en-us")))


def test_words_spaces_and_pauses(gruut: GruutTokenizer) -> None:
    tokens = gruut.encode("Hello, world! Is it?")
    assert "".join(f"[{symbol}]" for symbol in tokens.symbols) == (
        "[^][h][ɛ][l][ˈoʊ][|][w][ˈɚ][l][d][.][ˈɪ][z][ ][ˈɪ][t][?][$]"
    )
    assert tokens.words == [-1, 0, 0, 0, 0, -1, 1, 1, 1, 1, -1, 2, 2, -1, 3, 3, -1, -1]
    assert [GRUUT_SYMBOLS[i] for i in tokens.ids.tolist()] == tokens.symbols
    assert len(gruut.encode("well-known").words) == len(gruut.encode("well known").words)


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("He read the book.", "hˈi ɹˈɛd ðə bˈʊk."),
        ("I will read it", "ˈaɪ wˈɪl ɹˈid ˈɪt"),
        ("vitamin A", "vˈaɪtəmən ˈeɪ"),
        ("A dog", "ə dˈɔɡ"),
        ("He took it, read it, and left", "hˈi tˈʊk ˈɪt|ɹˈɛd ˈɪt|ˈænd lˈɛft"),
        ("He smiled: read it", "hˈi smˈaɪld|ɹˈid ˈɪt"),
        ("Plan A, vitamin C.", "plˈæn ˈeɪ|vˈaɪtəmən sˈi."),
        ("BBC", "bˈi bˈi sˈi"),
        ("don't", "dˈoʊnt"),
        ("hmmm", "m"),
    ],
)
def test_how_words_are_read(gruut: GruutTokenizer, text: str, phones: str) -> None:
    assert "".join(gruut.encode(text).symbols[1:-1]) == phones


def test_no_pause_is_lost_and_none_is_added(gruut: GruutTokenizer) -> None:
    text = "I, A, no, B, well-known, don't, Zyzzyva; May: p, m"
    tokens = gruut.encode(f"{text}. {text}?")
    assert "".join(symbol for symbol in tokens.symbols if symbol in "|.?") == "|||||||||.|||||||||?"
    assert max(tokens.words) == 21


def test_an_answer_does_not_depend_on_what_was_asked_before(gruut: GruutTokenizer) -> None:
    texts = [
        "Reading is what READ does",
        "us or US",
        "Zyzzyva quuxly frobnicates",
        "Polish the Polish shoes",
        "use a use",
    ]
    before = [gruut.encode(text).symbols for text in texts]
    assert [gruut.encode(text).symbols for text in reversed(texts)] == before[::-1]


def test_it_goes_to_other_processes_and_threads(gruut: GruutTokenizer) -> None:
    expected = gruut.encode("Where is it?").symbols
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: gruut.encode("Where is it?").symbols, range(8)))
    assert found == [expected] * 8
    assert pickle.loads(pickle.dumps(gruut)).encode("Where is it?").symbols == expected


def test_words_of_other_scripts_are_dropped(gruut: GruutTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert gruut.encode("你好 word").symbols == gruut.encode("word").symbols
    assert len(caplog.records) == 1
    with pytest.raises(InputError, match="nothing to speak in '你好'"):
        gruut.encode("你好")


def test_phones_outside_the_table_lose_their_stress_or_are_dropped(
    gruut: GruutTokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        def words(self, phrases: Sequence[str]) -> list[list[tuple[str, list[str]]]]:
            return [[("x", ["ˈə", "ǂ", "t", "ǂ"]), ("y", ["ǂ"]), ("z", ["d"])] for _ in phrases]

    monkeypatch.setattr(phonemes, "phonemizer", Odd)
    with caplog.at_level(logging.WARNING):
        tokens = gruut.encode("whatever")
    assert tokens.symbols == ["^", "ə", "t", " ", "d", "$"]
    assert tokens.words == [-1, 0, 0, -1, 1, -1]
    assert [record.message for record in caplog.records] == ["Left out phones that are not in the table: ǂ"]


@needs_espeak
def test_espeak(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokens = EspeakTokenizer().encode("Hello, church! Plan A?")
    assert "".join(tokens.symbols) == "^həlˈoʊ|tʃˈɜːtʃ.plˈæn ˈeɪ?$"
    assert tokens.words[:8] == [-1, 0, 0, 0, 0, 0, 0, -1]
    assert [ESPEAK_SYMBOLS[i] for i in tokens.ids.tolist()] == tokens.symbols
    assert not caplog.records


def test_espeak_that_is_missing_or_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="apt install espeak-ng"):
        EspeakTokenizer()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise subprocess.CalledProcessError(1, "espeak-ng")

    monkeypatch.setattr(shutil, "which", lambda name: "/bin/espeak-ng")
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(InputError, match="espeak-ng failed"):
        EspeakTokenizer().encode("hello")
