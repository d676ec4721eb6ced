"""What every ``calibrate`` does around its own rule: measure the normal examples, and keep what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from mmattn.core.batch.inputs import InputItem
from mmattn.media.files import write_text

__all__ = ["measure_items", "write_calibration"]

MeasuredT = TypeVar("MeasuredT")


def measure_items(
    items: Sequence[InputItem], measure: Callable[[Path], MeasuredT], *, unit: str
) -> tuple[list[MeasuredT], int]:
    """Measures files one after the other; one that cannot be read is named on stderr and left out.

    Args:
        items: Normal examples.
        measure: Measures one file; an OSError or ValueError says that it cannot be read.
        unit: What one file is called in the progress bar, as in "picture".

    Returns:
        What was measured, in the order of the files, and how many were left out.
    """
    measured, failed = [], 0
    for item in tqdm(items, unit=unit, file=sys.stderr):
        try:
            measured.append(measure(item.path))
        except (OSError, ValueError) as error:
            tqdm.write(f"left out: {item.path}: {error}", file=sys.stderr)
            failed += 1
    return measured, failed


def write_calibration(folder: Path, found: Mapping[str, Any]) -> Path:
    """Writes ``calibration.json`` into a folder, says so, and returns its path.

    Args:
        folder: Where to; made where it is missing.
        found: The threshold and what it rests on, as plain JSON types.

    Raises:
        MediaError: If it cannot be written; an older one is kept.
    """
    file = write_text(folder / "calibration.json", json.dumps(found, indent=2) + "\n")
    print(f"Wrote {file}")
    return file
