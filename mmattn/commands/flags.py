"""Command-line flags from dataclass fields: the field's type, default and ``help`` text say it all."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["add_flags", "given_flags"]


def add_flags(
    group: argparse._ActionsContainer,
    cls: type,
    *,
    unset: str | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Adds one flag per field of ``cls`` that has a ``help`` text in its metadata.

    ``bool`` becomes ``--flag/--no-flag``, ``Literal`` lists its choices, ``X | None`` takes an X. A flag that is not
    given leaves no trace in the namespace, so that :func:`given_flags` returns only what was typed.

    Args:
        group: Parser or group to add to.
        cls: A dataclass.
        unset: What holds when the flag is not given, for the help; None shows the field's default.
        choices: Allowed values by field name, for fields whose type does not say.
    """
    hints = get_type_hints(cls)
    for field in fields(cls):
        text = field.metadata.get("help")
        if text is None:
            continue
        add_flag(group, cls, field, hints[field.name], describe_default(field, text, unset), choices or {})


def given_flags(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Returns the fields of ``cls`` that were set on the command line."""
    prefix = f"{cls.__name__}."
    return {name.removeprefix(prefix): value for name, value in vars(args).items() if name.startswith(prefix)}


def add_flag(
    group: argparse._ActionsContainer,
    cls: type,
    field: Field[Any],
    hint: Any,
    text: str,
    choices: Mapping[str, Sequence[str]],
) -> None:
    """Adds the flag of one field."""
    flag = f"--{field.name.replace('_', '-')}"
    common: dict[str, Any] = {"dest": f"{cls.__name__}.{field.name}", "default": argparse.SUPPRESS, "help": text}
    kind = without_none(hint)
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
    elif get_origin(kind) is Literal:
        group.add_argument(flag, choices=get_args(kind), **common)
    elif field.name in choices:
        group.add_argument(flag, choices=list(choices[field.name]), **common)
    elif kind in (int, float, str):
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **common)
    else:
        raise TypeError(f"{cls.__name__}.{field.name} is a {hint}, which no flag can hold; drop its help text")


def without_none(hint: Any) -> Any:
    """Returns X for ``X | None`` and any other type as it is."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else hint


def describe_default(field: Field[Any], text: str, unset: str | None) -> str:
    """Returns the help text with what holds when the flag is not given; argparse needs ``%`` doubled."""
    default = field.default
    if unset is not None:
        text = f"{text} (default: {unset})"
    elif default is not None and default is not MISSING:
        text = f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"
    return text.replace("%", "%%")
