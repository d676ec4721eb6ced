"""Numbers as they are spoken: amounts, dates, times, years, units. The words come from the library num2words.

A table of patterns, tried one after the other over the whole text; what an earlier one has turned into words, a later
one does not see. American reading: the month comes first, ``1,234`` is above a thousand.

Roman numerals become digits first: "Chapter IV" is chapter four, "Louis XIV" Louis the fourteenth. Only what stands
behind a name or such a word is one: "I", "MIX" and "DC" are mostly something else.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Literal

from mmattn.errors import MissingExtraError

__all__ = ["MONTHS", "is_roman", "read_roman_numerals", "speak_numbers"]

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_MONTH = "|".join(MONTHS)

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
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion", "t": "trillion"}

# One, several. Case counts: mm and MM are not the same.
_UNITS = {
    "%": ("percent", "percent"), "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"), "°": ("degree", "degrees"),
    "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"), "g": ("gram", "grams"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"),
    "ft": ("foot", "feet"), "mi": ("mile", "miles"), "mph": ("mile per hour", "miles per hour"),
    "km/h": ("kilometer per hour", "kilometers per hour"), "ml": ("milliliter", "milliliters"),
    "min": ("minute", "minutes"), "sec": ("second", "seconds"), "ms": ("millisecond", "milliseconds"),
    "hrs": ("hour", "hours"), "hr": ("hour", "hours"), "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"), "GHz": ("gigahertz", "gigahertz"), "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"), "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"), "kW": ("kilowatt", "kilowatts"), "W": ("watt", "watts"),
    "V": ("volt", "volts"), "x": ("times", "times"), "K": ("thousand", "thousand"), "k": ("thousand", "thousand"),
    "M": ("million", "million"), "m": ("meter", "meters"), "h": ("hour", "hours"), "L": ("liter", "liters"),
    "l": ("liter", "liters"), "μm": ("micrometer", "micrometers"), "μs": ("microsecond", "microseconds"),
    "μg": ("microgram", "micrograms"), "Ω": ("ohm", "ohms"), "kΩ": ("kiloohm", "kiloohms"), "¢": ("cent", "cents"),
}  # fmt: skip
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))

_FRACTIONS = {
    "1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters",
    "1/8": "one eighth", "1/5": "one fifth", "1/10": "one tenth",
}  # fmt: skip
_LONGEST = 15
"""Digits of the longest number read as a whole; longer ones are read digit by digit."""

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def speak_numbers(text: str) -> str:
    """Returns the text with all its digits, and what belongs to them, as words.

    Raises:
        MissingExtraError: If there are digits, and num2words is not installed.

    >>> speak_numbers("$3.50 at 10:30, 5th of 1,234 in 2021")
    'three dollars fifty cents at ten thirty, fifth of one thousand two hundred and thirty four in twenty twenty one'
    """
    for pattern, spoken in _RULES:
        if not re.search(r"[0-9]", text):
            break
        text = pattern.sub(spoken, text)
    return text


def _words(number: int, form: Literal["cardinal", "ordinal", "year"] = "cardinal") -> str:
    try:
        num2words = importlib.import_module("num2words").num2words
    except ImportError as error:
        raise MissingExtraError("num2words", "speech", "Reading numbers aloud") from error
    return str(num2words(number, to=form, lang="en")).replace(",", "").replace("-", " ")


def _digits(digits: str) -> str:
    return " ".join(_words(int(digit)) for digit in digits)


def _phone(match: re.Match[str]) -> str:
    """Returns a telephone number digit by digit, with a pause between its groups."""
    country = "plus " if "+" in match[0] else ""
    return country + ", ".join(_digits(group) for group in re.findall(r"\d+", match[0]))


def _scientific(match: re.Match[str]) -> str:
    return f"{_amount(match[1])} times ten to the power of {_exponent(match[2])}"


def _power(match: re.Match[str]) -> str:
    return {"2": " squared", "3": " cubed"}.get(match[1]) or f" to the power of {_exponent(match[1])}"


def _exponent(written: str) -> str:
    return f"{'minus ' if written.startswith('-') else ''}{_amount(written.lstrip('+-'))}"


def _amount(number: str) -> str:
    """Returns a number as written, "1,234.5" or "007", as words."""
    whole, _, fraction = number.replace(",", "").partition(".")
    if len(whole) > _LONGEST or (len(whole) > 1 and whole.startswith("0")):
        spoken = _digits(whole)
    else:
        spoken = _words(int(whole or "0"))
    return f"{spoken} point {_digits(fraction)}" if fraction else spoken


def _dotted(match: re.Match[str]) -> str:
    return " dot ".join(_amount(part) for part in match[0].split("."))


def _money(match: re.Match[str]) -> str:
    one, many, one_cent, many_cents = _CURRENCIES[match["sign"]]
    number, scale = match["number"] or "0", match["scale"]
    if scale:
        return f"{_amount(number)} {_SCALES.get(scale.lower(), scale.lower())} {many}"
    whole, _, cents = number.replace(",", "").partition(".")
    if len(cents) not in (0, 2):
        return f"{_amount(number)} {many}"
    parts = []
    if int(whole or "0") or not int(cents or "0"):
        parts.append(f"{_amount(whole or '0')} {one if int(whole or '0') == 1 else many}")
    if int(cents or "0"):
        parts.append(f"{_words(int(cents))} {one_cent if int(cents) == 1 else many_cents}")
    return " ".join(parts)


def _date(month: int, day: int, year: int) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {_words(day, 'ordinal')}, {_words(year, 'year')}"


def _year_first(match: re.Match[str]) -> str:
    year, month, day = (int(match[i]) for i in (1, 2, 3))
    return _date(month, day, year) or match[0].replace("-", " ")


def _month_first(match: re.Match[str]) -> str:
    month, day, year = (int(match[i]) for i in (1, 2, 3))
    return _date(month, day, year) or _date(day, month, year) or match[0].replace("/", " slash ")


def _named_day(match: re.Match[str]) -> str:
    return f"{match[1]} {_words(int(match[2]), 'ordinal')}" if 1 <= int(match[2]) <= 31 else match[0]


def _day_first(match: re.Match[str]) -> str:
    return f"{_words(int(match[1]), 'ordinal')} of {match[2]}" if 1 <= int(match[1]) <= 31 else match[0]


def _time(match: re.Match[str]) -> str:
    hour, minute = int(match["hour"]), int(match["minute"] or "0")
    if hour > 24 or minute > 59:
        return match[0].replace(":", " to ")
    parts = [_words(hour)]
    if minute:
        parts.append(f"oh {_words(minute)}" if minute < 10 else _words(minute))
    elif not match["half"]:
        parts.append("o'clock" if 1 <= hour <= 12 else "hundred hours")
    if match["second"]:
        seconds = int(match["second"])
        parts.append(f"and {_words(seconds)} second{'s' * (seconds != 1)}")
    if match["half"]:
        parts.append(f"{match['half'][0].upper()} M")
    return " ".join(parts)


def _unit(match: re.Match[str]) -> str:
    one, many = _UNITS[match["unit"]]
    power = {"^2": "square ", "^3": "cubic "}.get(match["power"] or "", "")
    return f"{_amount(match['number'])} {power}{one if match['number'] == '1' else many}"


def _decade(match: re.Match[str]) -> str:
    spoken = _words(int(match[1]), "year" if len(match[1]) == 4 else "cardinal")
    return f"{spoken[:-1]}ies" if spoken.endswith("y") else f"{spoken}s"


def _fraction(match: re.Match[str]) -> str:
    whole = f"{_amount(match[1])} and " if match[1] else ""
    spoken = _FRACTIONS.get(match[2]) or " slash ".join(_amount(part) for part in match[2].split("/"))
    return whole + spoken.replace("one ", "a ", 1) if whole else spoken


def _year_or_number(match: re.Match[str]) -> str:
    number = match[0]
    if len(number) == 4 and 1000 < int(number) < 3000:
        return _words(int(number), "year")
    return _amount(number)


_Spoken = Callable[[re.Match[str]], str] | str
_RULES: tuple[tuple[re.Pattern[str], _Spoken], ...] = (
    (
        re.compile(
            # Grouped as in America; with the code of a country; or with a 0 that no number begins with.
            r"(?<![\w.(-])(?:(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}([ .-]))\d{3}(?(1)\1|[ .-])\d{4}"
            r"|\+\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]\d{2,4}){2,4}|0\d{2,4}(?: \d{2,4}){1,3})(?![\w-]|[.,]\d)"
        ),
        _phone,
    ),
    # 192.168.1.1 and version numbers, before anything takes them for decimals.
    (re.compile(r"(?<!\d)\d+(?:\.\d+){2,}"), _dotted),
    (re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b"), _year_first),
    # From one number to another, but not in "12-34-56".
    (re.compile(r"(?<![\w.-])([$£€]?\d{1,15}(?:[.,/]\d{1,15}){0,4})-(?=[$£€]?\d+(?!\d|-\w))"), r"\1 to "),
    (
        re.compile(
            r"(?P<sign>[$£€¥₹₩₽]) ?(?P<number>\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
            r"(?: ?(?P<scale>thousand|million|billion|trillion|bn|[kKmMbBtT])\b)?"
        ),
        _money,
    ),
    (re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b"), _month_first),
    (re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? ({_MONTH})(?=,? \d{{4}}\b|[.,;!?]|\s*$)"), _day_first),
    (re.compile(rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?\b(?![:/.]\d)"), _named_day),
    (
        re.compile(
            r"\b(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>[0-5]\d))?"
            r"(?: ?(?P<half>[aApP])\.?[mM]\b(?:\.(?! [A-Z]|\s*$))?)?"
        ),
        _time,
    ),
    (
        re.compile(r"\b(?P<hour>\d{1,2})(?P<minute>)(?P<second>) ?(?P<half>[aApP])\.?[mM]\b(?:\.(?! [A-Z]|\s*$))?"),
        _time,
    ),
    (re.compile(r"(?<=\d):(?=\d)"), " to "),
    (re.compile(r"\b(\d{1,2})'(\d{1,2})(?:\"|\b)"), lambda m: f"{_amount(m[1])} foot {_amount(m[2])}"),
    (re.compile(r"\b(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})\b"), _scientific),
    (re.compile(r"(?<=\d) ?\* ?(?=\d)"), " times "),
    (re.compile(r"(?<=\d) ?< ?(?=\d)"), " is less than "),
    (re.compile(r"(?<=\d) ?> ?(?=\d)"), " is greater than "),
    (re.compile(r"'?\b(\d\d(?:\d0)|\d0)'?s\b"), _decade),
    (re.compile(r"\b(\d+(?:,\d{3})*)(?:st|nd|rd|th)\b", re.I), lambda m: _words(int(m[1].replace(",", "")), "ordinal")),
    (re.compile(r"(?:\b(\d+) )?\b(\d+/\d+)\b"), _fraction),
    (re.compile(rf"(?<!\d)(?P<number>{_NUMBER}|\.\d+) ?(?P<unit>%|°[CF]?)(?P<power>)"), _unit),
    (re.compile(rf"\b(?P<number>{_NUMBER}) ?(?P<unit>{_UNIT})(?P<power>\^[23]\b)?(?![A-Za-z])"), _unit),
    (re.compile(r"\^(-?\d{1,9})\b"), _power),
    (re.compile(r"#(?=\d)"), "number "),
    (re.compile(r"(?<![\w.)])-(?=\.?\d)"), "minus "),
    (re.compile(r"(?<![\w.)])\+(?=\.?\d)"), "plus "),
    (re.compile(r"(?<=\d)-(?=\d)"), " "),
    # Digits and letters in one word: B2B, 3D.
    (re.compile(r"(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=\d)"), " "),
    (re.compile(r"(?<!\d)(?:\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+)"), lambda m: _amount(m[0])),
    (re.compile(r"(?<=\d),(?=\d)"), ", "),
    (re.compile(r"\d+"), _year_or_number),
)


# What is counted. A single letter counts only here: "Part V", but not "vitamin C" or "Malcolm X".
_COUNTED = (
    "Act|Annex|Appendix|Article|Book|Chapter|Class|Episode|Grade|Level|Part|Phase|Scene|Section|Season|Stage|Type|"
    "Volume|War"
)
# Who is numbered.
_RULERS = (
    "Alexander|Alfonso|Benedict|Catherine|Charles|Christian|Clement|Edward|Elizabeth|Francis|Frederick|George|"
    "Gregory|Gustav|Henry|Innocent|Ivan|James|John|Leo|Leopold|Louis|Margaret|Mary|Maximilian|Napoleon|Nicholas|Otto|"
    "Paul|Peter|Philip|Pius|Ramesses|Richard|Robert|Rudolf|Urban|Victor|Wilhelm|William"
)
_SEVERAL = r"(?=[IVXL]{2})(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_WHOLE = re.compile(rf"{_SEVERAL}\Z")
_AFTER_COUNTED = re.compile(rf"\b((?:{_COUNTED})|(?:{_COUNTED.upper()})) ({_SEVERAL}|[IVX])\b")
_AFTER_RULER = re.compile(rf"\b({_RULERS}) ({_SEVERAL}|V(?!\. [A-Z]))\b")
_AFTER_NAME = re.compile(rf"\b([A-Z][a-z]+) ({_SEVERAL})\b")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}


def is_roman(letters: str) -> bool:
    """Says whether capitals are a numeral of two letters or more, below ninety.

    >>> is_roman("VIII"), is_roman("IIX"), is_roman("MD")
    (True, False, False)
    """
    return _WHOLE.match(letters) is not None


def read_roman_numerals(text: str) -> str:
    """Returns the text with Roman numerals as digits.

    >>> read_roman_numerals("Henry VIII in Chapter IV of World War II, and I")
    'Henry the 8th in Chapter 4 of World War 2, and I'
    """
    text = _AFTER_COUNTED.sub(lambda match: f"{match[1]} {_value(match[2])}", text)
    text = _AFTER_RULER.sub(lambda match: f"{match[1]} the {_ordinal(_value(match[2]))}", text)
    return _AFTER_NAME.sub(lambda match: f"{match[1]} {_value(match[2])}", text)


def _value(numeral: str) -> int:
    values = [_VALUES[letter] for letter in numeral]
    return sum(-value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True))


def _ordinal(number: int) -> str:
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
