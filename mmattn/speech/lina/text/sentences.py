"""A text cut into sentences, whole or while it arrives.

A sentence ends at ``. ! ? ;`` or an ellipsis followed by white space, at full stops of other scripts, at a blank line,
and at a line break unless the next line goes on in lower case. The points of ``Dr.``, ``e.g.``, initials and numbers
end nothing. What is longer than allowed is cut at its last comma, else before a conjunction, else between words; what
is only a little longer, near its middle, so that no single word is left.

Every decision rests on what stands before it and on at most the next visible character, after "U.S." the next word, or
for a sentence that is too long the next 24 characters, so that :class:`SentenceReader` gives the same sentences however
the text is cut into portions. Time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mmattn.errors import InputError
from mmattn.speech.lina.text.abbreviations import SHORT_FORMS

__all__ = ["LEAST_CHARACTERS", "OPENERS", "Break", "Sentence", "SentenceReader", "split_sentences"]

Break = Literal["start", "part", "sentence", "paragraph"]

LEAST_CHARACTERS = 20
"""Below this a sentence cannot be limited."""

_LITTLE = 24
_CLOSING = "\"'\u2019\u201d\u00bb)]"
_MARK = re.compile(rf"[.!?;\u2026]+[{re.escape(_CLOSING)}]*|[\u3002\uff01\uff1f\u0964\u061f\u06d4]+|\n")
_SPACE = re.compile(r"\s*")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_COMMA = re.compile(r"[,:)\u2013\u2014](?=\s)|[\uff0c\u3001]")
_CONJUNCTION = re.compile(r"\s(?=(?:and|or|but|because|which|that|while|when|where|who|if|so|as|although|though)\s)")
_OPENING = "([\"'\u2018\u201c\u00ab"

# A name may follow these: "the U.S. Army". Only a word that begins many sentences and few names ends one here.
_INITIALS = re.compile(r"(?:[A-Z]\.)+[A-Z]")
OPENERS = frozenset(
    re.findall(
        r"\w+",
        """
    a after all although an and are as at because before both but by can did do does each even every everybody everyone
    few for from had has have he her here his how however i if in is it its later many meanwhile most my no nobody not
    nothing now on once one or our she since so some soon that the their then there these they this those though today
    under was we were what when where which while who why will with yes yet you your
        """,
    )
)
_WORD = re.compile(r"[A-Za-z]{0,10}")
# Only a capital after these begins a sentence: "p.m.", "Ph.D.", "B.Sc."
# "&amp;", of a page.
_ENTITY = re.compile(r"&#?\w{2,31}\Z")
_DOTTED = re.compile(r"(?:\w{1,2}\.)+\w{1,4}")


class Sentence(NamedTuple):
    """One piece of a text that is spoken at one go.

    Attributes:
        text: On one line, single spaces.
        after: What lies between the piece before and this one: "part" the middle of a long sentence, a semicolon or a
            line break; "start" nothing at all.
    """

    text: str
    after: Break


def split_sentences(text: str, max_characters: int = 200) -> list[Sentence]:
    """Returns the sentences of a text; none if it has no visible character.

    Args:
        text: Of any length.
        max_characters: Longest piece, at least 20.

    Raises:
        InputError: If ``max_characters`` is too small.

    >>> [sentence.text for sentence in split_sentences("Dr. Watson paid 3.50. Why? Nobody knows; e.g. me.")]
    ['Dr. Watson paid 3.50.', 'Why?', 'Nobody knows;', 'e.g. me.']
    """
    reader = SentenceReader(max_characters)
    return [*reader.push(text), *reader.finish()]


class SentenceReader:
    """Gives sentences as soon as it is certain where they end.

    Args:
        max_characters: Longest piece, at least 20.

    Raises:
        InputError: If that is too small.
    """

    def __init__(self, max_characters: int = 200) -> None:
        if max_characters < LEAST_CHARACTERS:
            raise InputError(f"max_characters is {max_characters}, expected at least {LEAST_CHARACTERS}.")
        self._longest = max_characters
        self._text = ""  # from the end of the last sentence on
        self._after: Break = "start"

    @property
    def waiting(self) -> str:
        """The beginning of a sentence whose end has not come."""
        return self._text.strip()

    def push(self, text: str) -> list[Sentence]:
        """Takes the next portion and returns the sentences that are complete."""
        self._text += text.replace("\r\n", "\n").replace("\r", "\n")
        return list(self._read(is_all=False))

    def finish(self) -> list[Sentence]:
        """Returns the rest: the text ends here. Another one may follow, as a new paragraph."""
        sentences = list(self._read(is_all=True))
        self._text = ""
        if self._after != "start":
            self._after = "paragraph"
        return sentences

    def _read(self, *, is_all: bool) -> Iterator[Sentence]:
        start = 0
        while True:
            first = _end_of_space(self._text, start)
            if first == len(self._text):
                break
            end = self._end(first, is_all=is_all)
            if end is None:
                break
            is_new = self._after != "start" and _PARAGRAPH.search(self._text, start, first)
            yield Sentence(" ".join(self._text[first : end[0]].split()), "paragraph" if is_new else self._after)
            start, self._after = end
        self._text = self._text[start:]

    def _end(self, start: int, *, is_all: bool) -> tuple[int, Break] | None:
        """Returns where the sentence from ``start`` on ends and how, or None if that is not certain yet."""
        limit, place = start + self._longest, start
        while found := _MARK.search(self._text, place, limit + _LITTLE):
            kind = _kind(self._text, start, found, is_all=is_all)
            if kind is None:
                return None
            if kind != "no":
                # A line break is part of the space after the sentence, where two of them make a paragraph.
                return self._within(start, found.start() if found[0] == "\n" else found.end(), kind)
            place = found.end()
        if len(self._text) > limit + _LITTLE:
            return _cut(self._text, start, limit), "part"
        return self._within(start, len(self._text), "sentence") if is_all else None

    def _within(self, start: int, end: int, kind: Break) -> tuple[int, Break]:
        """Returns the end of a sentence, or of its first part if it is a little too long."""
        length = len(self._text[start:end].rstrip())
        if length <= self._longest:
            return end, kind
        return _cut(self._text, start, start + min(self._longest, length * 3 // 5)), "part"


def _kind(text: str, start: int, found: re.Match[str], *, is_all: bool) -> Break | Literal["no"] | None:
    """Returns what ends at a mark, "no" for nothing, None if what decides has not come.

    Args:
        text: So far.
        start: Of the sentence.
        found: The mark.
        is_all: Whether the text ends where it ends now.
    """
    mark, end = found[0], found.end()
    following = _end_of_space(text, end)
    is_last = following == len(text)
    if mark == "\n":
        if is_last:
            return "sentence" if is_all else None
        if _PARAGRAPH.search(text, found.start(), following):
            return "sentence"
        return "no" if text[following].islower() else "part"
    if mark[0] not in ".!?;\u2026":
        return "sentence"
    if end == len(text):
        return "sentence" if is_all else None
    if not text[end].isspace():
        return "no"
    if mark == ";" and _ENTITY.search(text, start, found.start()):
        return "no"
    wanted = _wanted(text[start : found.start()], mark)
    if wanted in ("any", "none"):
        return "no" if wanted == "none" else "part" if mark.startswith(";") else "sentence"
    if is_last:
        return "sentence" if is_all else None
    follower = text[following]
    if wanted == "opener" and follower.isupper():
        word = _WORD.match(text, following)
        if word is None or (word.end() == len(text) and not is_all):
            return None
        return "sentence" if word[0].lower() in OPENERS else "no"
    if wanted == "no digit":
        return "no" if follower.isdigit() else "sentence"
    return "no" if follower.islower() or (mark[0] == "." and follower.isdigit()) else "sentence"


def _wanted(before: str, mark: str) -> Literal["any", "none", "no digit", "capital", "opener"]:
    """Returns what has to follow a mark and its white space for the sentence to end there.

    Args:
        before: The sentence up to the mark.
        mark: The mark with closing quotes and brackets.
    """
    bare = mark.rstrip(_CLOSING)
    if bare != ".":
        # "Why?" she asked. And so ... on.
        return "capital" if bare != mark or bare[:2] == ".." or "\u2026" in bare else "any"
    if mark != bare:
        return "capital"
    word = before.rsplit(None, 1)[-1].lstrip(_OPENING) if before.strip() else ""
    short = SHORT_FORMS.get(word)
    follows = short.follows if short else None
    if follows == "word" or (len(before.strip()) <= 3 and before.strip().isdigit()):
        return "none"
    if len(word) == 1 and word.isalpha() and word.isupper() and word != "I":
        return "none"
    if _INITIALS.fullmatch(word):
        return "opener"
    if follows == "number":
        return "no digit"
    return "capital" if follows or _DOTTED.fullmatch(word) else "any"


def _end_of_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _cut(text: str, start: int, limit: int) -> int:
    """Returns where to cut a sentence that is too long: late, but where a speaker would take a breath."""
    window = text[start : limit + 1]
    for pattern, places in ((_COMMA, re.Match.end), (_CONJUNCTION, re.Match.start)):
        late = [places(found) for found in pattern.finditer(window, len(window) // 3)]
        late = [place for place in late if place <= limit - start]
        if late:
            return start + late[-1]
    words = window.rstrip().rfind(" ") if " " in window.strip() else -1
    return start + words if words > 0 else limit
