"""Numbers as they are spoken: amounts, fractions, telephone numbers, years; with dates and units, which they rest on.

A table of patterns, tried one after the other over the whole text; what an earlier one has turned into words, a later
one does not see. American reading: ``1,234`` is above a thousand.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mmattn.speech.lina.text.dates import speak_dates, speak_times
from mmattn.speech.lina.text.number_words import amount, digits, words
from mmattn.speech.lina.text.units import AFTER_UNITS, PER, speak_unit

__all__ = ["speak_numbers"]

# One, several; one hundredth, several.
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
}
_SIGN = f"[{''.join(_CURRENCIES)}]"
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion", "t": "trillion"}

_IDIOMS = {"24/7": "twenty four seven", "9/11": "nine eleven", "50/50": "fifty fifty", "20/20": "twenty twenty"}
# Parts that have a name of their own; the others are ordinals: "five eighths".
_PARTS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_DENOMINATORS = frozenset((2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 32, 50, 64, 100, 1000))

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def speak_numbers(text: str) -> str:
    """Returns the text with all its digits, and what belongs to them, as words.

    Raises:
        MissingExtraError: If there are digits, and num2words is not installed.

    >>> speak_numbers("-$3.50 at 10:30, 5th of 1,200 in 2021")
    'minus three dollars fifty cents at ten thirty, fifth of one thousand two hundred in twenty twenty one'
    """
    for rule in _RULES:
        if not re.search(r"[0-9]", text):
            break
        text = rule(text)
    return text


def _phone(match: re.Match[str]) -> str:
    """Returns a telephone number digit by digit, with a pause between its groups."""
    country = "plus " if "+" in match[0] else ""
    return country + ", ".join(digits(group) for group in re.findall(r"\d+", match[0]))


def _local_phone(match: re.Match[str]) -> str:
    return f"{match[1] or ''}{digits(match[2])}, {digits(match[3])}"


def _scientific(match: re.Match[str]) -> str:
    return f"{amount(match[1])} times ten to the power of {_exponent(match[2])}"


def _power(match: re.Match[str]) -> str:
    return {"2": " squared", "3": " cubed"}.get(match[1]) or f" to the power of {_exponent(match[1])}"


def _exponent(written: str) -> str:
    return f"{'minus ' if written.startswith('-') else ''}{amount(written.lstrip('+-'))}"


def _dotted(match: re.Match[str]) -> str:
    return " dot ".join(amount(part) for part in match[0].split("."))


def _money(match: re.Match[str]) -> str:
    per = f" per {PER.get(match['per'], match['per'])}" if match["per"] else ""
    return _sum(match["sign"], match["number"], match["scale"]) + per


def _sum(sign: str, number: str, scale: str | None) -> str:
    one, many, one_cent, many_cents = _CURRENCIES[sign]
    if sign == "€":
        number = re.sub(r",(?=\d\d\Z)", ".", number)
    if scale:
        return f"{amount(number)} {_SCALES.get(scale.lower(), scale.lower())} {many}"
    whole, _, cents = number.replace(",", "").partition(".")
    if len(cents) not in (0, 2):
        return f"{amount(number)} {many}"
    parts = []
    if int(whole or "0") or not int(cents or "0"):
        parts.append(f"{amount(whole or '0')} {one if int(whole or '0') == 1 else many}")
    if int(cents or "0"):
        parts.append(f"{words(int(cents))} {one_cent if int(cents) == 1 else many_cents}")
    return " ".join(parts)


def _with_unit(match: re.Match[str]) -> str:
    return f"{amount(match['number'])} {speak_unit(match, is_one=match['number'] == '1')}"


def _over(match: re.Match[str]) -> str:
    return f"{amount(match['upper'])} over {amount(match['number'])} {speak_unit(match, is_one=False)}"


def _decade(match: re.Match[str]) -> str:
    spoken = words(int(match["ten"]), "year" if len(match["ten"]) == 4 else "cardinal")
    return f"{match['before'] or ''}{spoken[:-1]}ies" if spoken.endswith("y") else f"{match['before'] or ''}{spoken}s"


def _fraction(match: re.Match[str]) -> str:
    whole, upper, lower = match["whole"], int(match["upper"]), int(match["lower"])
    idiom = None if whole else _IDIOMS.get(f"{upper}/{lower}")
    if idiom:
        return idiom
    if lower not in _DENOMINATORS or upper == 0 or match["upper"].startswith("0"):
        return f"{f'{amount(whole)} ' if whole else ''}{amount(match['upper'])} over {amount(match['lower'])}"
    if upper == lower:
        return f"{words(upper)} out of {words(lower)}"
    one, many = _PARTS.get(lower) or (words(lower, "ordinal"), f"{words(lower, 'ordinal')}s")
    if whole:
        return f"{amount(whole)} and {'a' if upper == 1 else words(upper)} {one if upper == 1 else many}"
    return f"{words(upper)} {one if upper == 1 else many}"


def _year_or_number(match: re.Match[str]) -> str:
    number = match[0]
    if len(number) == 4 and 1000 < int(number) < 3000:
        return words(int(number), "year")
    return amount(number)


def _replaced(pattern: str, spoken: Callable[[re.Match[str]], str] | str, flags: int = 0) -> Callable[[str], str]:
    compiled = re.compile(pattern, flags)
    return lambda text: compiled.sub(spoken, text)


_AMOUNT_OF_MONEY = r"(?P<number>\d+,\d\d(?!\d)|\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
_RULES: tuple[Callable[[str], str], ...] = (
    # Thousands with spaces: a group of noughts tells them from a list of numbers.
    _replaced(
        r"(?<![\d.,/-])(?<!\d )(?:[1-9]\d{0,2}(?: \d{3}){0,4} 000(?: \d{3}){0,4}|[1-9]\d?(?: \d{3}){2,4})(?!\d| \d)",
        lambda match: match[0].replace(" ", ""),
    ),
    _replaced(
        # Grouped as in America; with the code of a country; or with a 0 that no number begins with.
        r"(?<![\w.(-])(?:(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}([ .-]))\d{3}(?(1)\1|[ .-])\d{4}"
        r"|\+\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]\d{2,4}){2,4}|0\d{2,4}(?: \d{2,4}){1,3})(?![\w-]|[.,]\d)",
        _phone,
    ),
    # Without the code of an area, where it can not be from one number to another.
    _replaced(r"(?<![\w.(/-])()(555|\d{3}(?=-0))-(\d{4})(?![\w-]|[.,]\d)", _local_phone),
    _replaced(
        r"\b((?:[Cc]all|[Dd]ial|[Pp]hone|[Tt]elephone|[Tt]el|[Tt]ext|[Ff]ax)\b[.:]?(?: [a-z]{1,10}){0,3} )"
        r"(\d{3})-(\d{4})(?![\w-]|[.,]\d)",
        _local_phone,
    ),
    # 192.168.1.1 and version numbers, before anything takes them for decimals.
    _replaced(r"(?<!\d)\d+(?:\.\d+){2,}", _dotted),
    # A letter is the name of what has a number: "H.264".
    _replaced(r"\b([A-Z])\.(\d{2,4})\b", lambda m: f"{m[1]} {digits(m[2])}"),
    speak_dates,
    # From one number to another, but not in "12-34-56".
    _replaced(r"(?<![\w.-])([$£€]?\d{1,15}(?:[.,/]\d{1,15}){0,4})-(?=[$£€]?\d+(?!\d|-\w))", r"\1 to "),
    # The sign comes first: what follows takes the number, its currency and its unit.
    _replaced(rf"({_SIGN}) ?-(?=\.?\d)", r"minus \1"),
    _replaced(rf"(?<![\w.)^])-(?={_SIGN}? ?\.?\d)", "minus "),
    _replaced(rf"(?<![\w.)])\+(?={_SIGN}?\.?\d)", "plus "),
    _replaced(
        rf"(?P<sign>{_SIGN}) ?{_AMOUNT_OF_MONEY}"
        r"(?: ?(?P<scale>thousand|million|billion|trillion|bn|[kKmMbBtT])\b)?(?:/(?P<per>[A-Za-z]{1,9})\b)?",
        _money,
    ),
    _replaced(rf"(?<![\d.,]){_AMOUNT_OF_MONEY}(?P<scale>) ?(?P<sign>€)(?:/(?P<per>[A-Za-z]{{1,9}})\b)?", _money),
    speak_times,
    _replaced(r"(?<=\d):(?=\d)", " to "),
    _replaced(r"\b(\d{1,2})'(\d{1,2})(?:\"|\b)", lambda m: f"{amount(m[1])} foot {amount(m[2])}"),
    _replaced(r"\b(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})\b", _scientific),
    _replaced(r"(?<=\d) ?\* ?(?=\d)", " times "),
    # Of a century, an age or a temperature; two digits by themselves are seconds.
    _replaced(
        r"(?:(?P<before>\b(?:the|his|her|their|its|my|our|your|early|mid|late)[ -])'?|'|\b(?=\d{4}))"
        r"(?P<ten>(?:\d\d)?\d0)'?s\b",
        _decade,
        re.I,
    ),
    _replaced(r"\b(\d+(?:,\d{3})*)(?:st|nd|rd|th)\b", lambda m: words(int(m[1].replace(",", "")), "ordinal"), re.I),
    _replaced(rf"\b(?P<upper>\d{{1,4}})/(?P<number>\d{{1,4}}) ?{AFTER_UNITS}", _over),
    _replaced(r"(?:\b(?P<whole>\d{1,9}) )?(?<![\d/])(?P<upper>\d{1,9})/(?P<lower>\d{1,9})(?![\d/])", _fraction),
    _replaced(rf"(?<!\d)(?P<number>{_NUMBER}|\.\d+) ?(?=[%°]){AFTER_UNITS}", _with_unit),
    _replaced(rf"\b(?P<number>{_NUMBER}) ?{AFTER_UNITS}", _with_unit),
    _replaced(r"\^(-?\d{1,9})\b", _power),
    _replaced(r"#(?=\d)", "number "),
    _replaced(r"(?<=\d)-(?=\d)", " "),
    # Digits and letters in one word: B2B, 3D.
    _replaced(r"(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=\d)", " "),
    _replaced(r"(?<!\d)(?:\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+)", lambda m: amount(m[0])),
    _replaced(r"(?<=\d),(?=\d)", ", "),
    _replaced(r"\d+", _year_or_number),
)
