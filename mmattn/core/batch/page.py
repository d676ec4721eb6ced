"""The page over a batch run: a card for each result, one for each input that failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmattn.core.batch.journal import ERRORS
from mmattn.core.batch.records import read_records
from mmattn.viz.gallery import GalleryItem, write_gallery

__all__ = ["by_ending", "write_page"]


def write_page(
    output: Path,
    records: Sequence[dict[str, Any]],
    card: Callable[[dict[str, Any]], GalleryItem],
    *,
    title: str,
    note: str,
    threshold: float | None = None,
    labels: tuple[str, str] = ("normal", "anomalous"),
) -> None:
    """Writes ``index.html`` into a run's output folder.

    Args:
        output: The folder.
        records: Lines of its ``results.jsonl``.
        card: Makes a card of a record.
        title: As all that follow, see :func:`mmattn.viz.gallery.write_gallery`.
        note: Below the title.
        threshold: Where the labels part.
        labels: Words for scores up to the threshold and above it.
    """
    failed = [
        GalleryItem(title=Path(record["input"]).name, error=f"{record['error']} {record['hint']}".strip())
        for record in read_records(output / ERRORS)
    ]
    cards = [*map(card, records), *failed]
    write_gallery(output / "index.html", cards, title=title, threshold=threshold, note=note, labels=labels)


def by_ending(outputs: Sequence[str], endings: Mapping[str, str]) -> dict[str, str]:
    """Returns the files of a result that a card shows, by what they are, in the order of ``endings``.

    >>> by_ending(["a.json", "a.curve.png", "a.overlay.mp4"], {"video": ".overlay.mp4", "curve": ".curve.png"})
    {'video': 'a.overlay.mp4', 'curve': 'a.curve.png'}
    """
    return {kind: path for kind, ending in endings.items() for path in outputs if path.endswith(ending)}
