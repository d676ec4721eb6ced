"""Datasets on disk: read one of the known folder layouts, write ``meta.json``, and check a folder before using it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from mmattn.core.datasets.layouts import Report, each_problem
from mmattn.core.datasets.scan import named
from mmattn.errors import MediaError
from mmattn.media.files import atomic_path
from mmattn.media.image import read_image
from mmattn.vision.crane.datasets.readers import LAYOUTS, PictureLayout
from mmattn.vision.crane.datasets.records import Record, Scan

__all__ = ["LAYOUTS", "Record", "check", "read_layout", "write_meta"]


def read_layout(name: str, root: str | Path, split: str = "test", classes: Sequence[str] | None = None) -> list[Record]:
    """Returns the records of a dataset, class after class in the published order, by picture path within a class.

    Args:
        name: Key of :data:`LAYOUTS`.
        root: The dataset's folder.
        split: "test" or "train"; a dataset without training pictures has no records there.
        classes: Only these classes, in this order; None takes all. A class that is not on disk is an error.

    Raises:
        InputError: If the name is unknown, the folder is missing, or anything in it does not fit the layout.
    """
    layout, scan = LAYOUTS.named(name), Scan.of(root)
    if split not in layout.splits:
        return []
    records = [record for cls in _classes(layout, scan, classes) for record in _read_class(layout, scan, cls, split)]
    if not records and not scan.problems:
        scan.problems.append(f"The {split} split holds no pictures.")
    LAYOUTS.refuse(name, scan, nothing=not records)
    return records


def write_meta(root: str | Path, records: Mapping[str, Sequence[Record]]) -> Path:
    """Writes ``root/meta.json``, which the layout ``meta`` and the published code read.

    Args:
        root: The dataset's folder.
        records: Records by split ("train", "test"); a split that is not given is written empty.

    Returns:
        The file's path.
    """
    content: dict[str, dict[str, list[dict[str, object]]]] = {"train": {}, "test": {}}
    for split, listed in records.items():
        for record in listed:
            content.setdefault(split, {}).setdefault(record.cls_name, []).append(asdict(record))
    path = Path(root) / "meta.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def check(name: str, root: str | Path) -> Report:
    """Looks at every file of a dataset's test split and names all that is wrong with it.

    Missing classes and folders, pictures without a mask and masks without a picture, files that cannot be decoded,
    masks of another size than their picture, and a folder that looks like another layout.

    Raises:
        InputError: If the name is unknown or the folder is missing.
    """
    layout, scan = LAYOUTS.named(name), Scan.of(root)
    report = Report(name, scan.root, scan.problems, shown=None)
    records = [record for cls in _classes(layout, scan, None) for record in _read_class(layout, scan, cls, "test")]
    classes = dict.fromkeys(record.cls_name for record in records)
    width = max(map(len, classes), default=0)
    for cls in classes:
        mine = [record for record in records if record.cls_name == cls]
        kinds, masks = Counter(record.anomaly for record in mine), sum(bool(record.mask_path) for record in mine)
        report.facts.append(f"{cls:<{width}}  {kinds[0]} normal, {kinds[1]} anomalous, {masks} masks")
    if not records:
        report.problems.insert(0, LAYOUTS.nothing_found(name, scan.root, "picture"))
    report.problems += each_problem(records, partial(_record_problem, scan.root), "Pictures", "picture")
    return report


def _classes(layout: PictureLayout, scan: Scan, wanted: Sequence[str] | None) -> Sequence[str]:
    """Returns the classes to read; a wanted class the layout does not know is a problem."""
    known = layout.classes if layout.find_classes is None else layout.find_classes(scan)
    known = known or ()
    if wanted is None:
        return known
    unknown = [cls for cls in wanted if cls not in known]
    if unknown:
        scan.problems.append(f"It has no class {named(unknown)}; its classes are {named(known, 20)}.")
    return [cls for cls in wanted if cls in known]


def _read_class(layout: PictureLayout, scan: Scan, cls: str, split: str) -> list[Record]:
    before = len(scan.problems)
    records = list(layout.find(scan, cls, split))
    if not records and len(scan.problems) == before:
        scan.problems.append(f"The class {cls} has no {split} pictures.")
    return records


def _record_problem(root: Path, record: Record) -> str:
    try:
        size = read_image(root / record.img_path).shape[:2]
        if not record.mask_path:
            return ""
        mask_size = read_image(root / record.mask_path).shape[:2]
    except MediaError as error:
        return error.message
    if mask_size == size:
        return ""
    (height, width), (mask_height, mask_width) = size, mask_size
    return (
        f"The mask {record.mask_path} is {mask_width} x {mask_height} pixels, its picture {record.img_path} "
        f"{width} x {height}."
    )
