"""Errors that a visitor of a page can cause, shown as notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from mmattn.errors import MmattnError, describe

__all__ = ["as_notices"]


@contextmanager
def as_notices() -> Iterator[None]:
    """Turns the errors of bad input inside the block into notices for the visitor.

    Raises:
        gr.Error: With the error's message and hint.
    """
    try:
        yield
    except (MmattnError, OSError, ValueError) as error:
        message, hint = describe(error)
        raise gr.Error(f"{message} {hint}".strip()) from error
