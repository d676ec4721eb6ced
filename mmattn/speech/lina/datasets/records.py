"""Looking at a speech dataset: recordings with what is said in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmattn.core.datasets.scan import DatasetScan

__all__ = ["Scan", "SpeechFile", "Split"]

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class SpeechFile:
    """A recording and what is said in it.

    Attributes:
        audio: The recording's file.
        text: As it is written, with surrounding spaces removed.
        speaker: Who speaks.
        split: What it is for.
        name: Unique in its dataset: the path below the dataset's folder without suffix, with slashes.
    """

    audio: Path
    text: str
    speaker: str
    split: Split
    name: str


@dataclass
class Scan(DatasetScan):
    """One reading of a speech dataset.

    Attributes:
        layout: How it is read.
        utterances: In the order of their names.
    """

    layout: str = ""
    utterances: list[SpeechFile] = field(default_factory=list)
