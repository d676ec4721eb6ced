import random
import time

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.text.sentences import Sentence, SentenceReader, split_sentences

PAGE = """CHAPTER ONE

It was late. "Who is there?" asked Dr. J. Smith, i.e. the owner of No. 7... and nobody answered! He paid $3.50 at 5 p.m.
and left; the U.S. team stayed. Why? See Fig. 2 (it is small.) Then
he wrapped the line, etc. and so on.
1. First item
2. Second item

The end\u2026 Really. No. I said I. Yes."""


def texts(text: str, longest: int = 200) -> list[str]:
    return [sentence.text for sentence in split_sentences(text, longest)]


def test_a_page_is_cut_where_a_reader_would_stop() -> None:
    assert texts(PAGE) == [
        "CHAPTER ONE",
        "It was late.",
        '"Who is there?" asked Dr. J. Smith, i.e. the owner of No. 7... and nobody answered!',
        "He paid $3.50 at 5 p.m. and left;",
        "the U.S. team stayed.",
        "Why?",
        "See Fig. 2 (it is small.)",
        "Then he wrapped the line, etc. and so on.",
        "1. First item",
        "2. Second item",
        "The end\u2026",
        "Really.",
        "No.",
        "I said I.",
        "Yes.",
    ]


def test_what_lies_between_is_told_apart() -> None:
    assert split_sentences("One. Two;\nthree\nFour.\n \nFive") == [
        Sentence("One.", "start"),
        Sentence("Two;", "sentence"),
        Sentence("three", "part"),
        Sentence("Four.", "part"),
        Sentence("Five", "paragraph"),
    ]


@pytest.mark.parametrize(("text", "expected"), [
    ("", []),
    (" \n\t ", []),
    ("No end", ["No end"]),
    ("Version 2.5 of example.com is out.", ["Version 2.5 of example.com is out."]),
    ("Wait... what? Yes!!! Oh?! Ok.", ["Wait... what?", "Yes!!!", "Oh?!", "Ok."]),
    ("The U.S. Army came. It left.", ["The U.S. Army came.", "It left."]),
    ("He lives in the U.S. Nobody knows.", ["He lives in the U.S.", "Nobody knows."]),
    ("We love the U.S. It's big; the U.N. Council met.", ["We love the U.S.", "It's big;", "the U.N. Council met."]),
    ("Back to the U.S.A.\n\nArmy life", ["Back to the U.S.A.", "Army life"]),
    ("It was the U.S. I", ["It was the U.S.", "I"]),
    ("At the U.S. \u00c9lan 5", ["At the U.S. \u00c9lan 5"]),
    ("We met at 5 p.m. Anna left.", ["We met at 5 p.m.", "Anna left."]),
    ("He works at Acme Inc. They sell tea.", ["He works at Acme Inc.", "They sell tea."]),
    ("\u4f60\u597d\u3002\u518d\u89c1\uff01", ["\u4f60\u597d\u3002", "\u518d\u89c1\uff01"]),
    ("Windows\r\n\r\nline ends.\rMac", ["Windows", "line ends.", "Mac"]),
    ("*** --- ...", ["*** --- ..."]),
])  # fmt: skip
def test_edges(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


@pytest.mark.parametrize("longest", [20, 33, 200])
@pytest.mark.parametrize("seed", range(4))
def test_portions_do_not_matter(seed: int, longest: int) -> None:
    reader, generator, place = SentenceReader(longest), random.Random(seed), 0
    found: list[Sentence] = []
    while place < len(PAGE):
        size = generator.choice([1, 2, 7, 40])
        found += reader.push(PAGE[place : place + size])
        place += size
    assert [*found, *reader.finish()] == split_sentences(PAGE, longest)


def test_a_sentence_is_given_as_soon_as_its_end_is_certain() -> None:
    reader = SentenceReader()
    assert reader.push("Hello") == []
    assert reader.push(" there.") == []
    assert reader.waiting == "Hello there."
    assert [s.text for s in reader.push(" ")] == ["Hello there."]
    assert reader.waiting == ""
    assert reader.push("I met Dr. ") == []
    assert [s.text for s in reader.finish()] == ["I met Dr."]
    assert reader.push("Next. ") == [Sentence("Next.", "paragraph")]


def test_a_long_sentence_is_cut_at_a_comma_then_before_a_conjunction_then_between_words() -> None:
    assert texts("the cat sat down, and then it slept all day", 30) == [
        "the cat sat down,",
        "and then it slept all day",
    ]
    assert texts("the large cat sat there and it slept all day", 30) == [
        "the large cat sat there",
        "and it slept all day",
    ]
    assert texts("one two three four five six seven", 20) == ["one two three four", "five six seven"]
    assert texts("x" * 80, 20) == ["x" * 20] * 4


def test_no_single_word_is_left_of_a_sentence_that_is_a_little_too_long() -> None:
    assert texts("The small boat crossed the wide river in the early morning light.", 60) == [
        "The small boat crossed the wide river",
        "in the early morning light.",
    ]
    assert texts("Yes, the small boat crossed the wide river late, as we saw. Ah. ", 50) == [
        "Yes, the small boat crossed the",
        "wide river late, as we saw.",
        "Ah.",
    ]
    assert texts("The small boat crossed the river \n", 32) == ["The small boat crossed the river"]


@pytest.mark.parametrize("piece", ["Word and more, then some. ", "word ", "x", "Dr. ", ". ", "\n", "a.b.", "... "])
def test_a_hundred_thousand_characters_are_cut_in_no_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.perf_counter()
    pieces = texts(text)
    assert time.perf_counter() - start < 3.0
    assert all(len(part) <= 200 for part in pieces)
    assert "".join(pieces).replace(" ", "") == "".join(text.split())


def test_too_short_a_limit_is_an_error() -> None:
    with pytest.raises(InputError, match="max_characters is 3, expected at least 20"):
        split_sentences("text", 3)
