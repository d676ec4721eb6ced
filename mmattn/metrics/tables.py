"""Tables of scores, as text and as files. A score that is not defined is NaN; JSON has null for it, CSV nothing."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmattn.media.files import atomic_path

__all__ = ["aligned", "markdown", "plain", "shown", "write_csv", "write_json"]


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Returns rows of equal length as lines with their columns under each other, the first ``left`` flush left.

    >>> print(aligned([("class", "score"), ("screw", "9.5"), ("nut", "10.0")]))
    class  score
    screw    9.5
    nut     10.0
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of equal length as a Markdown table; the first is its head.

    >>> print(markdown([("voice", "CER"), ("ada", "1.5")]))
    | voice | CER |
    | --- | --- |
    | ada | 1.5 |
    """
    head, *others = rows
    return "\n".join(
        "".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in (head, ["---"] * len(head), *others)
    )


def shown(value: float, form: str = ".3f") -> str:
    """Returns a number as it is shown to people, "n/a" for NaN.

    >>> shown(0.91234), shown(math.nan)
    ('0.912', 'n/a')
    """
    return "n/a" if math.isnan(value) else format(value, form)


def plain(value: Any) -> Any:
    """Returns a value of JSON's types with None for every NaN, inside of objects and lists too.

    >>> plain({"auroc": math.nan, "counts": (1, 2)})
    {'auroc': None, 'counts': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: str | Path, content: Any) -> Path:
    """Writes plain JSON types, whole or not at all, and returns the file's path; NaN becomes null.

    Raises:
        MediaError: The file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     json.loads(write_json(Path(folder, "a.json"), {"auroc": math.nan}).read_text())
    {'auroc': None}
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    return Path(path)


def write_csv(path: str | Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Writes a head and a line per row, whole or not at all, and returns the file's path; NaN and None are empty.

    Raises:
        MediaError: The file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_csv(Path(folder, "a.csv"), ["class", "auroc"], [["nut", math.nan]]).read_text().split()
    ['class,auroc', 'nut,']
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(plain(row) for row in rows)
    return Path(path)
