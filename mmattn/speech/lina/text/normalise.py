"""Written English as it is spoken: words and the punctuation ``, . ? ! ; : -``, nothing else.

What a small table says, in this order: typographic characters, web and mail addresses, abbreviations, Roman numerals
and numbers (:mod:`.numbers`), symbols, acronyms, accents. Letters to be spelled out stand alone as capitals: "BBC"
becomes "B B C". What cannot be spoken as English, such as emojis and other scripts, is dropped, and one warning names
it.
"""

# ruff: noqa: RUF001 - the typographic characters are meant.

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mmattn.errors import InputError
from mmattn.speech.lina.text.abbreviations import expand
from mmattn.speech.lina.text.acronyms import spell_out
from mmattn.speech.lina.text.dates import MONTHS
from mmattn.speech.lina.text.markup import without_markup
from mmattn.speech.lina.text.numbers import speak_numbers
from mmattn.speech.lina.text.roman import read_roman_numerals
from mmattn.speech.lina.text.sentences import OPENERS

__all__ = ["check_text", "normalise", "spoken_form", "warn_of_dropped"]

logger = logging.getLogger(__name__)

# Typographic forms of what a keyboard has; what unicode's own table (NFKC) does not do, or does not do well.
_TYPOGRAPHY = str.maketrans({
    **dict.fromkeys("’‘‛ʼ`´′", "'"), **dict.fromkeys("“”„‟«»″‹›", '"'), **dict.fromkeys("‐‑‒﹣－", "-"),
    **dict.fromkeys("–—―−", "—"), "…": "...", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3",
    "⅛": " 1/8", "×": " times ", "÷": " divided by ", "≈": " about ", "≠": " is not ", "≤": " at most ",
    "≥": " at least ", "±": " plus or minus ", "№": " number ", "™": "", "®": "", "©": "", "\u00ad": "",
    "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ß": "ss", "ł": "l", "Ł": "L", "đ": "d",
    "ð": "th", "þ": "th", "Þ": "Th", "ı": "i", "¿": " ", "¡": " ", "•": ", ", "·": " ",
})  # fmt: skip

# Short also without their full stop, in front of a day.
_FULL_MONTHS = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
_MONTHS = "|".join(sorted(_FULL_MONTHS, key=len, reverse=True))

_SYMBOLS = {
    "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "%": " percent ", "/": " slash ", "~": " about ",
    "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ", "°": " degrees ", "_": " ", "*": " ", "\\": " ",
    "|": ", ", "<": " ", ">": " ", "^": " ", "#": " number ", "(": ", ", ")": ", ", "[": ", ", "]": ", ", "{": ", ",
    "}": ", ", '"': " ",
}  # fmt: skip

_Rules: TypeAlias = tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...]

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile(
    r"(?:(?<=[\d)])|(?<=\b[A-Za-z])|(?<=\b[A-Za-z]{2})|(?<=\d[A-Za-z])|(?<=\d[A-Za-z]{2}))⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+"
)
_UNSPEAKABLE = re.compile(r"[^A-Za-z\s',.?!;:-]")
_SHOWN = 20


def check_text(text: object, name: str) -> None:
    """Checks that a text is one, before anything is done with it.

    Args:
        text: What was given.
        name: Subject of the message.

    Raises:
        InputError: If it is no string.
    """
    if not isinstance(text, str):
        hint = "Decode it first: text.decode()." if isinstance(text, bytes) else ""
        raise InputError(f"{name} is {text!r:.60}, a {type(text).__name__}; expected a text, str.", hint)


def normalise(text: str) -> str:
    """Returns the words a speaker would say, with the punctuation that shapes how; empty if there is nothing to say.

    Args:
        text: Any text. Line breaks inside a paragraph count as spaces, an empty line ends a sentence.

    Raises:
        MissingExtraError: If there are digits, and num2words is not installed.

    >>> normalise("Dr. Lee paid $3.50 @ the café… 50% of NASA & BBC!")
    'Doctor Lee paid three dollars fifty cents at the cafe, fifty percent of nasa and B B C!'
    """
    spoken, dropped = spoken_form(text)
    warn_of_dropped(dropped)
    return spoken


def warn_of_dropped(dropped: Sequence[str]) -> None:
    """Names what was left out of a text in one warning; none if nothing was."""
    if dropped:
        shown = " ".join(dropped[:_SHOWN]) + " ..." * (len(dropped) > _SHOWN)
        logger.warning("Left out what cannot be spoken as English: %s", shown)


def spoken_form(text: str) -> tuple[str, list[str]]:
    """Returns what :func:`normalise` does, without its warning, and the characters that were left out, each once.

    Raises:
        MissingExtraError: If there are digits, and num2words is not installed.

    >>> spoken_form("Hi \u732b")
    ('Hi', ['\u732b'])
    """
    text = _replace(_LAYOUT, _simple_letters(without_markup(text)))
    text = _replace(_NAMES, expand(text))
    text = _replace(_SLASHES, speak_numbers(read_roman_numerals(text)))
    text = re.sub("|".join(map(re.escape, _SYMBOLS)), lambda match: _SYMBOLS[match[0]], text)
    # Joiners, variation selectors and controls belong to a character that is named itself, and break no word.
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    dropped = list(dict.fromkeys(_UNSPEAKABLE.findall(text)))
    text = _replace(_TIDY, spell_out(_UNSPEAKABLE.sub(" ", text)))
    return text if re.search("[A-Za-z]", text) else "", dropped


def _simple_letters(text: str) -> str:
    """Returns the text with typographic characters, widths and accents made plain."""
    # Raised digits behind a number or a unit are its power, which unicode's table would make part of the number.
    text = _POWER.sub(lambda match: "^" + match[0].translate(_RAISED), text)
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY)))
    letters = (c for c in text if not unicodedata.combining(c))
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in letters)


def _address(match: re.Match[str]) -> str:
    """Returns a web or mail address as it is read out."""
    address, ending = match[0], ""
    while address[-1] in ".,;:!?":
        address, ending = address[:-1], address[-1] + ending
    address = re.sub(r"^[a-z]+://|[?#].*$|/$", "", address, flags=re.I)
    address = re.sub(r"^www\.", "W W W dot ", address, flags=re.I)
    for sign, name in ((".", "dot"), ("@", "at"), ("/", "slash"), ("-", "dash"), ("_", "underscore")):
        address = address.replace(sign, f" {name} ")
    return f" {re.sub(r'[^A-Za-z0-9 ]', ' ', address)}{ending}"


def _initials(match: re.Match[str]) -> str:
    """Returns "U.S.A." as "USA", with its last full stop only where the text ends."""
    ends = re.compile(r"\s*$").match(match.string, match.end()) is not None
    return match[0].replace(".", "").upper() + "." * ends


def _middle_initial(match: re.Match[str]) -> str:
    return match[0] if match[2].lower() in OPENERS else f"{match[1]} "


def _compared(match: re.Match[str]) -> str:
    """Returns a comparison: "p < 5" says what p is, "pressure > 5" where it lies."""
    before, is_less = match["before"], match["sign"] == "<"
    return f"{before} is {'less' if is_less else 'greater'} than " if before else "below " if is_less else "above "


def _strongest(match: re.Match[str]) -> str:
    """Returns the one mark of several in a row that matters most: "?!" is a question."""
    return next((mark for mark in "?!." if mark in match[0]), match[0][0])


def _replace(rules: _Rules, text: str) -> str:
    for pattern, spoken in rules:
        text = pattern.sub(spoken, text)
    return text


# Addresses have bounded parts, so that a page of dots takes no quadratic time.
_LAYOUT: _Rules = (
    (re.compile(r"(?:https?|ftp)://\S+|\bwww\.\S+|\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), _address),
    (
        re.compile(r"\b[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.(?:com|org|net|edu|gov|io|co\.uk|de|fr)(?:/\S*)?(?![\w])"),
        _address,
    ),
    (re.compile(r"[ \t\r\f\v\u00a0]+"), " "),
    (re.compile(r"([^\s.?!,;:]) ?\n\s*\n\s*"), r"\1. "),
    # Between numbers a dash means up to, and less in a sum; elsewhere it is a pause.
    (re.compile(r"(?<=\d) ?[—-] ?(?=\d[\d.,]* ?=)"), " minus "),
    (re.compile(r"(?<=\d)(?: ?— ?| - )(?=\d)"), " to "),
    (re.compile(r"(?:^|(?<=[\s(]))—(?=[$£€]?\.?\d)"), "minus "),
    # Comparisons and arrows, before a part of them is taken for something else.
    (re.compile(r" ?<(?:=|-|--+)> ?|(?:^|(?<=\n)) ?(?:-+>|=+>) ?| ?<--+ ?"), ", "),
    (re.compile(r" ?(?:-+>|=+>|→|⇒|⟶) ?"), " to "),
    (re.compile(r" ?<= ?"), " at most "),
    (re.compile(r" ?>= ?"), " at least "),
    (re.compile(r" ?(?:!=|=/=) ?"), " is not "),
    (re.compile(r"(?<=\w) ?== ?(?=\w)"), " equals "),
    (re.compile(r" ?(?:—|--+) ?| - "), ", "),
)
_NAMES: _Rules = (
    (re.compile(rf"\b({_MONTHS})\.? (?=\d{{1,2}}\b)"), lambda match: f"{_FULL_MONTHS[match[1]]} "),
    # Initials of a name, which end no sentence: at the beginning or after another one.
    (re.compile(r"(?<![A-Za-z] )(?<!\.)\b([A-Z])\. (?=[A-Z])"), r"\1 "),
    # In the middle of a name, but not "Plan B. Then we left".
    (re.compile(r"\b([A-Z][a-z]{1,20} (?:[A-Z] )*[A-Z])\. (?=([A-Z][a-z]+))"), _middle_initial),
    # Not the half of a day, which belongs to its hour.
    (re.compile(r"(?<!\d)(?<!\d )\b(?:[A-Za-z]\.){2,}(?![A-Za-z]\b)"), _initials),
    (re.compile(r"(?<=[a-z][a-z])\.(?=[a-z][a-z])"), " dot "),
    (re.compile(r"\b([CF])#(?!\w)"), r"\1 sharp"),
    (re.compile(r"\b[Ww]/o\b"), "without"),
    (re.compile(r"\b[Ww]/ ?(?=\w)"), "with "),
    (re.compile(r"\bWi-?Fi\b", re.I), "wifi"),
    (re.compile(r"#(?=[A-Za-z])"), " hashtag "),
    (
        re.compile(r"(?:(?P<before>\b[A-Za-z]|\d) ?|(?<![^\s(]))(?P<sign>[<>]) ?(?=[-+]?[$£€]?\.?\d|[A-Za-z]\b)"),
        _compared,
    ),
)
_SLASHES: _Rules = (
    # Between words it is a choice; between letters and in paths it is said.
    (re.compile(r"(?<![\w/])([A-Za-z]{2,20})/(?=[A-Za-z]{2,20}(?![\w/]))"), r"\1 "),
)
_TIDY: _Rules = (
    (re.compile(r"\s+"), " "),
    # Apostrophes stay inside words and in the plural possessive's place nothing is heard.
    (re.compile(r"(?<![A-Za-z])'|'(?![A-Za-z])"), ""),
    (re.compile(r"(?<![A-Za-z])-+|-+(?![A-Za-z])"), " "),
    (re.compile(r"(?<=\w)\.{2,}(?= [a-z])"), ","),
    (re.compile(r"\s+(?=[,.?!;:])"), ""),
    (re.compile(r"[,.?!;:](?: ?[,.?!;:])+"), _strongest),
    (re.compile(r"^[,.?!;:\s-]+"), ""),
    (re.compile(r"(?<=[,.?!;:])(?=[A-Za-z])|\s+"), " "),
    (re.compile(r"\s+$|(?<=[a-z]),\s*$"), ""),
)
