"""Words written short, with a full stop that ends no sentence: what they say, and what follows them.

One table for the two who need it: the reader of sentences, which must not cut after "Gov.", and the normaliser, which
says "Governor".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

__all__ = ["SHORT_FORMS", "Abbreviation", "expand"]

Follows = Literal["word", "number", "anything"]


class Abbreviation(NamedTuple):
    """What a short form stands for.

    Attributes:
        spoken: Its words; empty if it is said as it is written.
        follows: "word" if what it belongs to always follows, "number" if a number does or else a sentence ends,
            "anything" if only a capital after it begins a sentence.
    """

    spoken: str
    follows: Follows


_BEFORE_WORD = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Mx": "Mix", "Dr": "Doctor", "Drs": "Doctors", "Prof": "Professor",
    "Rev": "Reverend", "Hon": "Honorable", "Gen": "General", "Sen": "Senator", "Rep": "Representative",
    "Gov": "Governor", "Capt": "Captain", "Col": "Colonel", "Lt": "Lieutenant", "Sgt": "Sergeant", "Maj": "Major",
    "Cpl": "Corporal", "Pvt": "Private", "Adm": "Admiral", "Cmdr": "Commander", "Messrs": "Messieurs",
    "Mme": "Madame", "Mlle": "Mademoiselle", "Mt": "Mount", "Ft": "Fort", "vs": "versus", "cf": "compare",
}  # fmt: skip
_BEFORE_NUMBER = {
    "vol": "volume", "vols": "volumes", "fig": "figure", "figs": "figures", "eq": "equation", "ch": "chapter",
    "approx": "approximately", "ca": "circa",
}  # fmt: skip
_BEFORE_ANYTHING = {
    "Jr": "Junior", "Sr": "Senior", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Hwy": "Highway",
    "Inc": "Incorporated", "Corp": "Corporation", "Ltd": "Limited", "Co": "Company", "Dept": "Department",
    "Univ": "University", "etc": "et cetera", "est": "established",
    "Jan": "January", "Feb": "February", "Apr": "April", "Aug": "August", "Sept": "September", "Sep": "September",
    "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
# Their words depend on what is around, or they are letters: others say them.
_UNSAID: dict[Follows, str] = {
    "word": "St st mt e.g i.e eg ie",
    "number": "No no Nos nos P p PP pp",
    "anything": "inc ltd co corp dept jr sr ave blvd rd jan feb mar apr jun jul aug sep sept oct nov dec ft oz lb",
}
# Without their full stop, too, in front of a name; "Gen Z" and "Rep" are something else.
_TITLES = ("Prof", "Rev", "Capt")
_IN_SMALL = ("Mr", "Mrs", "Ms", "Dr", "Prof", "Capt", "Lt", "Sgt")


def _forms() -> dict[str, Abbreviation]:
    forms: dict[str, Abbreviation] = {}
    tables: tuple[tuple[dict[str, str], Follows], ...] = (
        (_BEFORE_WORD, "word"),
        (_BEFORE_NUMBER, "number"),
        (_BEFORE_ANYTHING, "anything"),
    )
    for table, follows in tables:
        for short, spoken in table.items():
            forms[short] = Abbreviation(spoken, follows)
            # At the beginning of a sentence, and in a line of capitals.
            forms.setdefault(short.capitalize(), Abbreviation(spoken[0].upper() + spoken[1:], follows))
            forms.setdefault(short.upper(), Abbreviation(spoken, follows))
    forms.update({short.lower(): forms[short] for short in _IN_SMALL})
    for unsaid, shorts in _UNSAID.items():
        for short in shorts.split():
            forms.setdefault(short, Abbreviation("", unsaid))
    return forms


SHORT_FORMS = _forms()
"""Short form, as it is written without its full stop -> what it stands for."""

_SAID = "|".join(sorted((short for short, entry in SHORT_FORMS.items() if entry.spoken), key=len, reverse=True))
# What nobody could say otherwise needs no full stop: "Mr", "vs", "Ltd".
_NO_VOWEL = re.compile(r"[A-Z]?[b-df-hj-np-tv-xz]+")
_BARE = "|".join(
    ["etc", *(short for short, entry in SHORT_FORMS.items() if entry.spoken and _NO_VOWEL.fullmatch(short))]
)
# The full stop of an abbreviation that closes the text, or a line, ends the sentence, too.
_AT_END = r"(?=\s*(?:\n|$))"
# A street is named before it: "Main St.", but not "the St. Louis Cardinals".
_NO_NAME = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at both but by for from in into is near of on or our since the through to toward towards was
        via visit visited with
        """,
    )
)


def expand(text: str) -> str:
    """Returns the text with its abbreviations in full.

    >>> expand("Dr Lee and Gov. Kim left St. Paul for 5 Elm St., approx. 3 km.")
    'Doctor Lee and Governor Kim left Saint Paul for 5 Elm Street, approximately 3 km.'
    """
    for pattern, spoken in _RULES:
        text = pattern.sub(spoken, text)
    return text


def _saint_or_street(match: re.Match[str]) -> str:
    before, gap, stop, name = match["before"] or "", match["gap"] or "", match["stop"], match["name"]
    is_name = before[:1].isupper() and before.lower() not in _NO_NAME
    # "42nd St."
    is_name |= re.fullmatch(r"\d+(?:st|nd|rd|th)", before) is not None
    if name and not is_name:
        return f"{before}{gap}Saint "
    if not stop and not is_name:
        return match[0]
    ends = stop and not name and re.compile(_AT_END).match(match.string, match.end())
    return f"{before}{gap}Street{'.' if ends else ''}{name or ''}"


def _in_full(match: re.Match[str]) -> str:
    return SHORT_FORMS[match[1]].spoken


_Spoken = Callable[[re.Match[str]], str] | str
_RULES: tuple[tuple[re.Pattern[str], _Spoken], ...] = (
    (re.compile(r"\be\.g\.,?"), "for example,"),
    (re.compile(r"\bi\.e\.,?"), "that is,"),
    (re.compile(r"(?:\b(?P<before>\w{1,40})(?P<gap> ))?\bSt\b(?P<stop>\.?)(?P<name> (?=[A-Z]))?"), _saint_or_street),
    # Behind a house's number and the name of a street: "12 Elm Dr."
    (re.compile(r"\b(\d{1,6} (?:[A-Z][a-z]{1,20} ){1,3})Dr\b\.?(?! [A-Z])"), r"\1Drive"),
    (re.compile(rf"\b({_SAID})\.{_AT_END}"), lambda match: f"{_in_full(match)}."),
    (re.compile(rf"\b({_SAID})\."), _in_full),
    (re.compile(rf"\b({'|'.join(_TITLES)})(?= [A-Z])"), _in_full),
    (re.compile(rf"(?<![\w'.])({_BARE})(?![\w'.])"), _in_full),
    (re.compile(r"\b(?:No|no)\. ?(?=\d)"), "number "),
    (re.compile(r"\bpp?\. ?(?=\d)"), "page "),
)
