"""Whether two batch runs give the same numbers: ``python -m tests.compare_results BEFORE AFTER``.

Both are folders that hold ``results.jsonl`` somewhere below them, as ``make demo`` and ``mmattn infer`` leave them.
Items are matched by the file they are of; what a run measures of itself (seconds, speed) is left out.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 1e-6
MEASURED = {"seconds", "work_seconds", "rtf", "contents"}
"""Times of a record and checksums of its files; the ``seconds`` of a sentence are its length and are compared."""


def read_run(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by the run's own sub-folder and the first of their outputs, which name the item."""
    records = {}
    for file in sorted(folder.rglob("results.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            record["input"] = Path(record["input"]).name
            name = f"{file.parent.relative_to(folder)}/{record['outputs'][0]}"
            records[name] = {key: value for key, value in record.items() if key not in MEASURED}
    return records


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Lists every place in which two JSON values differ, numbers by more than the tolerance (absolute or relative)."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = [f"{where}/{key}: only on one side" for key in sorted(before.keys() ^ after.keys())]
        for key in sorted(before.keys() & after.keys()):
            found += differences(before[key], after[key], f"{where}/{key}")
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [text for i, (one, other) in pairs for text in differences(one, other, f"{where}[{i}]")]
    numbers = [value for value in (before, after) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2 and math.isclose(*numbers, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return []
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


def main(before: str, after: str) -> int:
    """Prints what differs and returns 1 if anything does, or nothing was found to compare."""
    one, other = read_run(Path(before)), read_run(Path(after))
    found = differences(one, other)
    print(*found, f"{len(one)} and {len(other)} records, {len(found)} differences", sep="\n")
    return 1 if found or not one else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
