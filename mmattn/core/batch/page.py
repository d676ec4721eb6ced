"""What failed in a batch run, as the cards its gallery page ends with."""

from __future__ import annotations

from pathlib import Path

from mmattn.core.batch.journal import ERRORS, read_records
from mmattn.viz.gallery import GalleryItem

__all__ = ["failed_items"]


def failed_items(output: Path) -> list[GalleryItem]:
    """Returns an item for each line of ``errors.jsonl`` in a run's output folder; none where there is no such file."""
    return [
        GalleryItem(title=Path(record["input"]).name, error=f"{record['error']} {record['hint']}".strip())
        for record in read_records(output / ERRORS)
    ]
