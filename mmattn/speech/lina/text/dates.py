"""Dates and times of day as they are spoken: American reading, the month comes first."""

from __future__ import annotations

import re
from collections.abc import Callable

from mmattn.speech.lina.text.number_words import words

__all__ = ["MONTHS", "speak_dates", "speak_times"]

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_MONTH = "|".join(MONTHS)
# Two digits of a year mean this century up to here.
_LAST_OF_2000S = 49


def speak_dates(text: str) -> str:
    """Returns the text with its dates in words.

    >>> speak_dates("2024-03-05T14:30:00Z, 5/6/24 and 5 May 2020")
    'March fifth, twenty twenty four, 14:30, May sixth, twenty twenty four and fifth of May 2020'
    """
    for pattern, spoken in _DATES:
        text = pattern.sub(spoken, text)
    return text


def speak_times(text: str) -> str:
    """Returns the text with its times of day in words.

    >>> speak_times("at 10:30 and 3 p.m.")
    'at ten thirty and three P M.'
    """
    for pattern in _TIMES:
        text = pattern.sub(_time, text)
    return text


def _date(month: int, day: int, year: int) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {words(day, 'ordinal')}, {words(year, 'year')}"


def _year_first(match: re.Match[str]) -> str:
    date = _date(int(match["month"]), int(match["day"]), int(match["year"]))
    if date is None:
        return match[0].replace("-", " ").replace("/", " slash ")
    if match["clock"] is None:
        return date
    zone = match["zone"] or "Z"
    # Seconds that are none are not said; neither is the zone that such a stamp has unless it says another.
    clock = match["clock"].removesuffix(":00") if match["clock"].count(":") == 2 else match["clock"]
    sign = "plus" if zone[0] == "+" else "minus"
    return f"{date}, {clock}" + ("" if zone == "Z" else f" U T C {sign} {zone[1:]}")


def _month_first(match: re.Match[str]) -> str:
    month, day, year = (int(match[i]) for i in (1, 2, 3))
    if len(match[3]) == 2:
        year += 2000 if year <= _LAST_OF_2000S else 1900
    return _date(month, day, year) or _date(day, month, year) or match[0].replace("/", " slash ")


def _named_day(match: re.Match[str]) -> str:
    return f"{match[1]} {words(int(match[2]), 'ordinal')}" if 1 <= int(match[2]) <= 31 else match[0]


def _day_first(match: re.Match[str]) -> str:
    return f"{words(int(match[1]), 'ordinal')} of {match[2]}" if 1 <= int(match[1]) <= 31 else match[0]


def _time(match: re.Match[str]) -> str:
    hour, minute = int(match["hour"]), int(match["minute"] or "0")
    if hour > 24 or minute > 59:
        return match[0].replace(":", " to ")
    parts = [words(hour)]
    if minute:
        parts.append(f"oh {words(minute)}" if minute < 10 else words(minute))
    elif not match["half"]:
        parts.append("o'clock" if 1 <= hour <= 12 else "hundred hours")
    if match["second"]:
        seconds = int(match["second"])
        parts.append(f"and {words(seconds)} second{'s' * (seconds != 1)}")
    if match["half"]:
        parts.append(f"{match['half'][0].upper()} M")
    return " ".join(parts)


_DATES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(
            r"\b(?P<year>\d{4})(?P<sign>[-/])(?P<month>\d{1,2})(?P=sign)(?P<day>\d{1,2})"
            r"(?:[T ](?P<clock>\d\d:\d\d(?::\d\d)?)(?:\.\d{1,9})?(?P<zone>Z|[+-]\d\d:?\d\d)?)?\b"
        ),
        _year_first,
    ),
    (re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\d/])"), _month_first),
    (re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? ({_MONTH})(?=,? \d{{4}}\b|[.,;!?]|\s*$)"), _day_first),
    (re.compile(rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?\b(?![:/.]\d)"), _named_day),
)
_TIMES = (
    re.compile(
        r"\b(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>[0-5]\d))?"
        r"(?: ?(?P<half>[aApP])\.?[mM]\b(?:\.(?! [A-Z]|\s*$))?)?"
    ),
    re.compile(r"\b(?P<hour>\d{1,2})(?P<minute>)(?P<second>) ?(?P<half>[aApP])\.?[mM]\b(?:\.(?! [A-Z]|\s*$))?"),
)
