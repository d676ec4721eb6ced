"""Fields of config dataclasses: made of JSON, held against their annotated types, changed by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from math import isfinite
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mmattn.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["changed", "check_types", "chosen", "from_plain"]

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")

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


def from_plain(cls: type[ConfigT], values: Mapping[str, Any], *, what: str) -> ConfigT:
    """Returns a dataclass made of parsed JSON; lists become tuples and objects dataclasses, as its fields say.

    Args:
        cls: The dataclass.
        values: By the names of its fields; those that are left out keep their defaults.
        what: Subject of the message about an unknown name.

    Raises:
        ValueError: If a name is no field, or as :func:`check_types`, or by the class itself.
        TypeError: If a field without a default is left out.
    """
    unknown = _unknown(cls, values)
    if unknown:
        raise ValueError(f"{what} has no field {unknown}; the file may be of a newer version.")
    return cls(**_typed(cls, values))


def changed(config: ConfigT, values: Mapping[str, Any], *, what: str = "overrides") -> ConfigT:
    """Returns a config with some fields changed; lists become tuples where its fields are tuples.

    Args:
        config: What to change.
        values: By the names of its fields.
        what: Where they come from, the plural subject of messages.

    Raises:
        InputError: If a name is no field, or its value is of another type or does not fit the others.

    >>> from dataclasses import make_dataclass
    >>> changed(make_dataclass("Sizes", [("grid", tuple[int, ...]), ("dim", int)])((2, 2), 4), {"grid": [1, 4]})
    Sizes(grid=(1, 4), dim=4)
    """
    unknown = _unknown(type(config), values)
    if unknown:
        raise InputError(f"{what} names {unknown}, which {type(config).__name__} does not have.")
    try:
        return replace(config, **_typed(type(config), values))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{what} do not fit the config: {error}") from error


def chosen(config: ConfigT, choices: Mapping[str, Any]) -> ConfigT:
    """Returns a config with what one run chooses; None leaves a field as it is.

    Args:
        config: What to change.
        choices: By the names of fields that carry a ``help`` text, which are the flags of ``mmattn infer``.

    Raises:
        InputError: If a name is none of these, or as :func:`changed`.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    allowed = sorted(field.name for field in fields(config) if field.metadata.get("help"))
    hint = f"Choose among: {', '.join(allowed)}."
    unknown = _unknown(type(config), given)
    if unknown:
        raise InputError(f"There is no option {unknown}.", hint)
    fixed = sorted(given.keys() - set(allowed))
    if fixed:
        raise InputError(f"{', '.join(fixed)} cannot be changed after training.", hint)
    return changed(config, given, what="These choices")


def check_types(cls: type[DataclassInstance], values: Mapping[str, Any]) -> None:
    """Checks values by the names of a dataclass's fields; names that are no field are not looked at.

    Whole numbers, numbers, truth values, texts (paths too), named choices, lists and objects are told apart, also
    inside of lists and where several are allowed. Other types are left to the class itself.

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


def _unknown(cls: type[DataclassInstance], values: Mapping[str, Any]) -> str:
    return ", ".join(sorted(values.keys() - {field.name for field in fields(cls)}))


def _typed(cls: type[DataclassInstance], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns checked values in the types of the fields they are for."""
    check_types(cls, values)
    hints = get_type_hints(cls)
    return {name: _converted(name, value, _kinds(hints[name])) for name, value in values.items()}


def _converted(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    if isinstance(value, list) and any(get_origin(kind) is tuple for kind in kinds):
        return tuple(value)
    nested = [kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)]
    return from_plain(nested[0], value, what=name) if nested and isinstance(value, Mapping) else value


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Returns the types that a hint allows side by side."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in inner)
    if origin is Literal:
        return value in inner
    if origin is int:
        return not isinstance(value, bool) and isinstance(value, Integral)
    if origin is float:
        return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)
    if origin is str:
        return isinstance(value, str | PathLike)
    if origin in (bool, NoneType):
        return isinstance(value, origin)
    if origin is dict:
        return isinstance(value, Mapping)
    if origin in (list, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        is_alike = origin is list or Ellipsis in inner
        return all(_fits(item, inner[0]) for item in value) if inner and is_alike else True
    return is_dataclass(origin) is False or isinstance(value, origin | Mapping)


def _describe(hint: Any) -> str:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_describe(kind) for kind in inner)
    if origin is Literal:
        return f"one of {', '.join(str(choice) for choice in inner)}"
    if origin in (list, tuple) and inner and (origin is list or Ellipsis in inner):
        return f"a list, each of its items {_describe(inner[0])}"
    return "an object" if is_dataclass(origin) else _WORDS.get(origin, "another value")
