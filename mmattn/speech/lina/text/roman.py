"""Roman numerals as digits: "Chapter IV" is chapter four, "Louis XIV" Louis the fourteenth.

Only what stands behind a name or such a word is a numeral: "I", "MIX" and "DC" are mostly something else.
"""

from __future__ import annotations

import re

__all__ = ["is_roman", "read_roman_numerals"]

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
_AFTER_RULER = re.compile(rf"\b({_RULERS}) ({_SEVERAL}|V(?!\.? [A-Z]))\b")
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
