"""Units behind a number as they are spoken, alone and with a power: "5 m²", "3 m/s", "10 kWh"."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["AFTER_UNITS", "PER", "speak_unit"]

# One, several. Case counts: mm and MM are not the same.
_UNITS = {
    "%": ("percent", "percent"), "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"), "°": ("degree", "degrees"),
    "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"), "g": ("gram", "grams"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"),
    "nm": ("nanometer", "nanometers"), "μm": ("micrometer", "micrometers"), "m": ("meter", "meters"),
    "ft": ("foot", "feet"), "mi": ("mile", "miles"), "yd": ("yard", "yards"), "ha": ("hectare", "hectares"),
    "mph": ("mile per hour", "miles per hour"), "kph": ("kilometer per hour", "kilometers per hour"),
    "ml": ("milliliter", "milliliters"), "mL": ("milliliter", "milliliters"), "cl": ("centiliter", "centiliters"),
    "L": ("liter", "liters"), "l": ("liter", "liters"), "gal": ("gallon", "gallons"), "qt": ("quart", "quarts"),
    "tsp": ("teaspoon", "teaspoons"), "tbsp": ("tablespoon", "tablespoons"), "cal": ("calorie", "calories"),
    "kcal": ("kilocalorie", "kilocalories"), "kJ": ("kilojoule", "kilojoules"), "MJ": ("megajoule", "megajoules"),
    "s": ("second", "seconds"), "sec": ("second", "seconds"), "secs": ("second", "seconds"),
    "min": ("minute", "minutes"), "mins": ("minute", "minutes"), "h": ("hour", "hours"), "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"), "ms": ("millisecond", "milliseconds"), "ns": ("nanosecond", "nanoseconds"),
    "μs": ("microsecond", "microseconds"), "yr": ("year", "years"), "yrs": ("year", "years"),
    "wk": ("week", "weeks"), "wks": ("week", "weeks"),
    "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"), "rpm": ("revolution per minute", "revolutions per minute"),
    "bpm": ("beat per minute", "beats per minute"), "fps": ("frame per second", "frames per second"),
    "KB": ("kilobyte", "kilobytes"), "kB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"), "TB": ("terabyte", "terabytes"), "PB": ("petabyte", "petabytes"),
    "KiB": ("kibibyte", "kibibytes"), "MiB": ("mebibyte", "mebibytes"), "GiB": ("gibibyte", "gibibytes"),
    "kbps": ("kilobit per second", "kilobits per second"), "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"), "px": ("pixel", "pixels"),
    "dpi": ("dot per inch", "dots per inch"),
    "W": ("watt", "watts"), "mW": ("milliwatt", "milliwatts"), "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"), "GW": ("gigawatt", "gigawatts"), "Wh": ("watt hour", "watt hours"),
    "kWh": ("kilowatt hour", "kilowatt hours"), "MWh": ("megawatt hour", "megawatt hours"),
    "mAh": ("milliamp hour", "milliamp hours"), "mA": ("milliamp", "milliamps"), "V": ("volt", "volts"),
    "mV": ("millivolt", "millivolts"), "kV": ("kilovolt", "kilovolts"), "Ω": ("ohm", "ohms"),
    "kΩ": ("kiloohm", "kiloohms"), "hp": ("horsepower", "horsepower"), "Nm": ("newton meter", "newton meters"),
    "Pa": ("pascal", "pascals"), "hPa": ("hectopascal", "hectopascals"), "kPa": ("kilopascal", "kilopascals"),
    "MPa": ("megapascal", "megapascals"), "psi": ("pound per square inch", "pounds per square inch"),
    "mmHg": ("millimeter of mercury", "millimeters of mercury"), "dB": ("decibel", "decibels"),
    "dBm": ("decibel milliwatt", "decibel milliwatts"), "ppm": ("part per million", "parts per million"),
    "lm": ("lumen", "lumens"), "μg": ("microgram", "micrograms"), "mmol": ("millimole", "millimoles"),
    "x": ("times", "times"), "K": ("thousand", "thousand"), "k": ("thousand", "thousand"),
    "M": ("million", "million"), "¢": ("cent", "cents"),
}  # fmt: skip
PER = {
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "day": "day", "yr": "year", "g": "gram",
    "kg": "kilogram", "ml": "milliliter", "mL": "milliliter", "l": "liter", "L": "liter", "dl": "deciliter",
    "dL": "deciliter", "m": "meter", "km": "kilometer", "cm": "centimeter", "kWh": "kilowatt hour", "lb": "pound",
    "mo": "month", "wk": "week",
}  # fmt: skip
"""What stands below the stroke: "m/s", "mg/dL", "km/h"."""
_POWERS = {"2": "square ", "3": "cubic "}


def _longest_first(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


_POWER = r"(?:\^|(?<=m))[23]\b"
AFTER_UNITS = (
    rf"(?P<unit>{_longest_first(_UNITS)})(?P<power>{_POWER})?"
    rf"(?:/(?P<per>{_longest_first(PER)})(?P<per_power>{_POWER})?)?(?![A-Za-z/])"
)
"""What follows a number that has a unit; without letters behind it."""


def speak_unit(match: re.Match[str], *, is_one: bool) -> str:
    """Returns the words of what :data:`AFTER_UNITS` found.

    >>> speak_unit(re.match(AFTER_UNITS, "m/s^2"), is_one=False)
    'meters per second squared'
    """
    one, many = _UNITS[match["unit"]]
    spoken = _POWERS.get((match["power"] or "").lstrip("^"), "") + (one if is_one else many)
    if match["per"] is None:
        return spoken
    below, power = PER[match["per"]], (match["per_power"] or "").lstrip("^")
    if below == "second" and power:
        return f"{spoken} per second {'squared' if power == '2' else 'cubed'}"
    return f"{spoken} per {_POWERS.get(power, '')}{below}"
