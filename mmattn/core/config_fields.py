"""Values read from JSON, held against the annotated types of the dataclass that they are meant for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["check_types"]

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "an object",
    list: "a list",
    tuple: "a list",
    NoneType: "null",
}


def check_types(cls: type, values: Mapping[str, Any]) -> None:
    """Checks values by the names of a dataclass's fields; names that are no field are not looked at.

    Whole numbers, numbers, truth values, texts, lists and objects are told apart, also inside of lists and where
    several are allowed. Other types (``Literal``, nested dataclasses) are left to the class itself.

    Args:
        cls: The dataclass.
        values: Plain JSON values.

    Raises:
        ValueError: If one is of another type, or a number is not finite; the message names the field.

    >>> from dataclasses import make_dataclass
    >>> check_types(make_dataclass("Sizes", [("dim", int)]), {"dim": "four"})
    Traceback (most recent call last):
    ValueError: dim is 'four', expected a whole number.
    """
    hints = get_type_hints(cls)
    for name in (field.name for field in fields(cls) if field.name in values):
        if not _fits(values[name], hints[name]):
            raise ValueError(f"{name} is {values[name]!r}, expected {_describe(hints[name])}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in inner)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if origin in (bool, str, NoneType):
        return isinstance(value, origin)
    if origin is dict:
        return isinstance(value, Mapping)
    if origin in (list, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        is_alike = origin is list or Ellipsis in inner
        return all(_fits(item, inner[0]) for item in value) if inner and is_alike else True
    return True


def _describe(hint: Any) -> str:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_describe(kind) for kind in inner)
    if origin in (list, tuple) and inner and (origin is list or Ellipsis in inner):
        return f"a list, each of its items {_describe(inner[0])}"
    return _WORDS.get(origin, "another value")
