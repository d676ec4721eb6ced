"""Datasets on disk: read one of the known folder layouts, write ``meta.json``, and check a folder before using it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmattn.core.datasets.scan import named
from mmattn.errors import InputError, MediaError
from mmattn.media.files import atomic_path
from mmattn.media.image import read_image
from mmattn.vision.crane.datasets.readers import LAYOUTS, Layout
from mmattn.vision.crane.datasets.records import Record, Scan

__all__ = [
    "LAYOUTS",
    "Layout",
    "Record",
    "Report",
    "check",
    "check_dataset",
    "guess_layouts",
    "read_layout",
    "write_meta",
]

_CHECKING_THREADS = 4


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
    layout = _layout(name)
    scan = Scan(_folder(root))
    if split not in layout.splits:
        return []
    records = [record for cls in _classes(layout, scan, classes) for record in _read_class(layout, scan, cls, split)]
    if not records and not scan.problems:
        scan.problems.append(f"The {split} split holds no pictures.")
    if scan.problems:
        others = [other for other in guess_layouts(root) if other != name]
        hint = f"It looks like {' or '.join(others)}." if others and not records else ""
        raise InputError(
            f"{root} cannot be read as {name}: {' '.join(scan.problems[:3])}",
            hint or f"All problems: mmattn data check crane {root} --layout {name}",
        )
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


@dataclass
class Report:
    """What a look at a dataset folder found.

    Attributes:
        name: Layout it was read as.
        root: The folder.
        problems: What is wrong, one sentence each.
        counts: Per class: normal pictures, anomalous pictures, masks.
    """

    name: str
    root: Path
    problems: list[str] = field(default_factory=list)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def lines(self) -> list[str]:
        """Returns the report as text: a line per class, then a line per problem, then the verdict."""
        width = max((len(cls) for cls in self.counts), default=0)
        lines = [f"{self.root} as {self.name}"]
        for cls, (normal, anomalous, masks) in self.counts.items():
            lines.append(f"  {cls:<{width}}  {normal} normal, {anomalous} anomalous, {masks} masks")
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines.append("ok" if self.ok else f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}")
        return lines


def check(name: str, root: str | Path) -> Report:
    """Looks at every file of a dataset's test split and names all that is wrong with it.

    Missing classes and folders, pictures without a mask and masks without a picture, files that cannot be decoded,
    masks of another size than their picture, and a folder that looks like another layout.

    Raises:
        InputError: If the name is unknown or the folder is missing.
    """
    layout = _layout(name)
    scan = Scan(_folder(root))
    report = Report(name, scan.root, scan.problems)
    records = [record for cls in _classes(layout, scan, None) for record in _read_class(layout, scan, cls, "test")]
    for cls in dict.fromkeys(record.cls_name for record in records):
        mine = [record for record in records if record.cls_name == cls]
        kinds = Counter(record.anomaly for record in mine)
        report.counts[cls] = (kinds[0], kinds[1], sum(bool(record.mask_path) for record in mine))
    if not records:
        others = [other for other in guess_layouts(root) if other != name]
        looks = f"this looks like {' or '.join(others)}" if others else f"expected {layout.marker} in it"
        report.problems.insert(0, f"No picture was found as {name}; {looks}.")
    report.problems += _file_problems(scan.root, records)
    return report


def check_dataset(path: Path, layout: str | None = None) -> tuple[bool, list[str]]:
    """Checks a dataset folder for ``mmattn data check crane PATH [--layout NAME]``.

    Args:
        path: The dataset's folder.
        layout: Key of :data:`LAYOUTS`; None guesses it.

    Returns:
        Whether nothing is wrong, and the lines to print.

    Raises:
        InputError: If the layout is unknown, the folder is missing, or no layout fits it.
    """
    if layout is not None:
        report = check(layout, path)
        return report.ok, report.lines()
    guesses = guess_layouts(path)
    if not guesses:
        raise InputError(
            f"{path} looks like none of the known layouts: {', '.join(LAYOUTS)}.",
            "Name one with --layout, and see what it says is missing.",
        )
    report = check(guesses[0], path)
    alike = f"Layout guessed; {', '.join(guesses[1:])} would fit as well." if guesses[1:] else "Layout guessed."
    return report.ok, [alike, *report.lines()]


def guess_layouts(root: str | Path) -> list[str]:
    """Returns the names of the layouts a folder looks like, the most specific first."""
    folder = Path(root)
    found = []
    for name, layout in LAYOUTS.items():
        places = [layout.marker.format(cls=cls) for cls in layout.classes or ("*",)]
        if any(next(folder.glob(place), None) is not None for place in places):
            found.append(name)
    return found


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"There is no dataset layout {name!r}.", f"Known are: {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def _folder(root: str | Path) -> Path:
    folder = Path(root)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"The dataset folder {root} {what}.", "Give the folder that holds the dataset's files.")
    return folder


def _classes(layout: Layout, scan: Scan, wanted: Sequence[str] | None) -> Sequence[str]:
    """Returns the classes to read; a wanted class the layout does not know is a problem."""
    known = layout.classes if layout.find_classes is None else layout.find_classes(scan)
    known = known or ()
    if wanted is None:
        return known
    unknown = [cls for cls in wanted if cls not in known]
    if unknown:
        scan.problems.append(f"It has no class {named(unknown)}; its classes are {named(known, 20)}.")
    return [cls for cls in wanted if cls in known]


def _read_class(layout: Layout, scan: Scan, cls: str, split: str) -> list[Record]:
    before = len(scan.problems)
    records = layout.read(scan, cls, split)
    if not records and len(scan.problems) == before:
        scan.problems.append(f"The class {cls} has no {split} pictures.")
    return records


def _file_problems(root: Path, records: Sequence[Record]) -> Iterator[str]:
    """Yields what is wrong with the files of records; pictures are decoded, the only way to find a truncated one."""
    with ThreadPoolExecutor(_CHECKING_THREADS) as pool:
        for problem in pool.map(lambda record: _record_problem(root, record), records):
            if problem:
                yield problem


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
