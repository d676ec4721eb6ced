"""The page's blocks: what a visitor sends is checked, what goes wrong is a notice, what is left behind is removed."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

__all__ = ["HouseBlocks", "paths_in"]

logger = logging.getLogger(__name__)

UNFIT = (
    "Something that was sent cannot be used here: a file that is none of the kind asked for, or a value out of its "
    "range. Check the files and the numbers."
)
FAULT = "This could not be done. Check what you sent; if it happens again, tell the keeper of this page."


class Unfit(ValueError):
    """What a visitor sent does not fit the page's fields; its text is for the keeper."""


class HouseBlocks(gr.Blocks):
    """Blocks whose visitors read notices written for them and leave no files behind.

    Gradio shows the text of any error of a component, which may name paths of this machine. Here only a handler's own
    notices (:class:`gradio.Error`) pass; all others are logged and replaced by a text that names nothing.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._files: dict[str, set[str]] = {}

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """Reads what a visitor sent.

        Raises:
            Unfit: If there are too few or too many values, one does not fit its field or is not finite, or a file is an
                address.
        """
        if len(inputs) != len(block_fn.inputs):
            raise Unfit(f"{len(inputs)} values for {len(block_fn.inputs)} fields")
        sent = [value for block, value in zip(block_fn.inputs, inputs, strict=True) if not block.stateful]
        if any("://" in path for path in paths_in(sent)):
            raise Unfit("a file is an address")
        try:
            values: list[Any] = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except Exception as error:
            raise Unfit(f"{type(error).__name__}: {error}") from error
        for block, value in zip(block_fn.inputs, values, strict=True):
            is_empty = isinstance(block, gr.Number) and value is None
            if isinstance(block, gr.Slider | gr.Number) and not (is_empty or _is_number(value)):
                raise Unfit(f"{value!r:.60} for {block.label!r}")
            if isinstance(block, gr.Dropdown | gr.Radio) and not isinstance(value, str):
                raise Unfit(f"{value!r:.60} for {block.label!r}")
        return values

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **more: Any) -> dict[str, Any]:
        """Runs one handler.

        Raises:
            gr.Error: With a notice for the visitor, whatever went wrong.
        """
        session = more.get("session_hash")
        try:
            self._note(session, inputs)
            output = await super().process_api(block_fn, inputs, *args, **more)
            self._note(session, output.get("data"))
        except gr.Error:
            raise
        except Unfit as error:
            logger.warning("Refused a call: %s", error)
            raise gr.Error(UNFIT, print_exception=False) from error
        except Exception as error:
            logger.exception("A handler failed")
            raise gr.Error(FAULT, print_exception=False) from error
        return output

    def forget(self, session: str) -> None:
        """Removes the files that a session sent and got, unless another one has the same or the page needs them."""
        mine = self._files.pop(session, set())
        kept = set().union(*self._files.values(), *(getattr(b, "keep_in_cache", ()) for b in self.blocks.values()))
        for path in mine - kept:
            Path(path).unlink(missing_ok=True)

    def _note(self, session: str | None, data: Any) -> None:
        """Remembers which files of Gradio's cache are a session's."""
        if session is None:
            return
        cache = os.path.realpath(get_upload_folder())
        for path in paths_in(data):
            real = os.path.realpath(path) if "\0" not in path else ""
            if real.startswith(cache + os.sep) and Path(real).is_file():
                self._files.setdefault(session, set()).add(real)


def paths_in(data: Any) -> Iterator[str]:
    """Yields the paths of all files named in a call's values: ``path`` of any mapping, at any depth."""
    if isinstance(data, dict):
        if isinstance(data.get("path"), str):
            yield data["path"]
        for value in data.values():
            yield from paths_in(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from paths_in(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
