"""Errors that a visitor of a page can cause, shown as notices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from mmattn.errors import MmattnError, describe

__all__ = ["as_notices", "without_folders"]

_PATH = re.compile(r"(?<![\w:/.<])(?:/[^/\s'\":<>]+)+/([^/\s'\":<>]+)")


@contextmanager
def as_notices() -> Iterator[None]:
    """Turns the errors of bad input inside the block into notices for the visitor; files are named without folders.

    Raises:
        gr.Error: With the error's message and hint.
    """
    try:
        yield
    except (MmattnError, OSError) as error:
        message, hint = describe(error)
        raise gr.Error(without_folders(f"{message} {hint}".strip()), print_exception=False) from error


def without_folders(text: str) -> str:
    """Returns a text whose paths are cut to the last name, for it may be read by anybody.

    >>> without_folders("'/tmp/x/torn.png' is no picture, and 3/4 is a number.")
    "'torn.png' is no picture, and 3/4 is a number."
    """
    return _PATH.sub(r"\1", text)
