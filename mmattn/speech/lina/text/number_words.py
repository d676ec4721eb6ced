"""One number in words, by the library num2words."""

from __future__ import annotations

import importlib
from typing import Literal

from mmattn.errors import MissingExtraError

__all__ = ["amount", "digits", "words"]

_LONGEST = 15
"""Digits of the longest number read as a whole; longer ones are read digit by digit."""


def words(number: int, form: Literal["cardinal", "ordinal", "year"] = "cardinal") -> str:
    """Returns a number in words, without hyphens and commas.

    Raises:
        MissingExtraError: If num2words is not installed.

    >>> words(121), words(3, "ordinal"), words(1999, "year")
    ('one hundred and twenty one', 'third', 'nineteen ninety nine')
    """
    try:
        num2words = importlib.import_module("num2words").num2words
    except ImportError as error:
        raise MissingExtraError("num2words", "speech", "Reading numbers aloud") from error
    return str(num2words(number, to=form, lang="en")).replace(",", "").replace("-", " ")


def digits(written: str) -> str:
    """Returns each digit in words.

    >>> digits("007")
    'zero zero seven'
    """
    return " ".join(words(int(digit)) for digit in written)


def amount(written: str) -> str:
    """Returns a number as it is written, "1,234.5" or "007", in words.

    >>> amount("1,234.5"), amount("007")
    ('one thousand two hundred and thirty four point five', 'zero zero seven')
    """
    whole, _, fraction = written.replace(",", "").partition(".")
    if len(whole) > _LONGEST or (len(whole) > 1 and whole.startswith("0")):
        spoken = digits(whole)
    else:
        spoken = words(int(whole or "0"))
    return f"{spoken} point {digits(fraction)}" if fraction else spoken
