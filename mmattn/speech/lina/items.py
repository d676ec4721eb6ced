"""What a predictor is asked to speak: texts, with voice and seed where they matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmattn.errors import InputError
from mmattn.speech.lina.text.normalise import check_text
from mmattn.speech.lina.voices.files import Voice

__all__ = ["LinaItem", "VoiceChoice", "as_items", "checked_seed"]

VoiceChoice: TypeAlias = str | Path | Voice
"""Name of a shipped voice, path of a voice file, or a voice."""


@dataclass(frozen=True)
class LinaItem:
    """A text to speak.

    Attributes:
        text: Of any length.
        voice: Who speaks; None as the run's options say.
        seed: Of the random numbers, at least 0.
        name: What it is called in messages.
    """

    text: str
    voice: VoiceChoice | None = None
    seed: int = 0
    name: str = ""


def as_items(items: Sequence[str | LinaItem]) -> list[LinaItem]:
    """Returns texts as items, all of them checked.

    Raises:
        InputError: If these are no list, or one of them is neither a text nor an item, or has a seed that is none.
    """
    if isinstance(items, str | bytes | LinaItem) or not isinstance(items, Iterable):
        raise InputError(
            f"predict_batch was given {items!r:.60}, a {type(items).__name__}; expected a list of texts.",
            "For one text: predict(text).",
        )
    given = []
    for item in items:
        if not isinstance(item, LinaItem):
            check_text(item, "The item")
            item = LinaItem(item)
        check_text(item.text, f"The text of '{item.name}'" if item.name else "The text")
        given.append(replace(item, seed=checked_seed(item.seed)))
    return given


def checked_seed(seed: int) -> int:
    """Returns a seed as a Python number.

    Raises:
        InputError: If it is no whole number, or below 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"The seed is {seed!r:.60}, a {type(seed).__name__}; expected a whole number, 0 or more.")
    if seed < 0:
        raise InputError(f"The seed is {seed}, expected 0 or more.")
    return int(seed)
