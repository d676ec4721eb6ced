"""The folder layouts of the datasets Crane is trained and tested on, one reader per family.

Each reader lists the records of some classes and one split, sorted by the path of the picture within a class, as the
dataset scripts of AlirezaSalehy/Crane (commit 39181f9) do. What is wrong with the folder goes into ``scan.problems``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from mmattn.core.datasets.layouts import Layout, LayoutTable
from mmattn.core.datasets.scan import named
from mmattn.vision.crane.datasets.records import Record, Scan

__all__ = ["LAYOUTS", "PictureLayout"]

_NORMAL = ("good", "ok")


@dataclass(frozen=True)
class PictureLayout(Layout):
    """How one dataset of pictures lies on disk; ``find`` lists the records of a class and a split.

    Attributes:
        classes: Class names in the published order; None when the folder itself names them. ``{cls}`` in a marker
            stands for one.
        find_classes: Names the classes of a folder when ``classes`` is None.
        splits: Splits the dataset has.
    """

    classes: tuple[str, ...] | None = None
    find_classes: Callable[[Scan], list[str]] | None = None
    splits: tuple[str, ...] = ("train", "test")

    def fits(self, root: Path) -> bool:
        """Says whether a folder looks like this layout."""
        places = (place.format(cls=cls) for place in self.markers for cls in self.classes or ("*",))
        return any(next(root.glob(place), None) is not None for place in places)


def _mvtec(
    scan: Scan, cls: str, split: str, *, normal: tuple[str, ...] = ("good",), optional_masks: bool = False
) -> list[Record]:
    """``C/{train,test}/SPECIE/*`` and ``C/ground_truth/SPECIE/*``."""
    records = []
    for specie in scan.folders(f"{cls}/{split}"):
        images = scan.images(f"{cls}/{split}/{specie}")
        truth = f"{cls}/ground_truth/{specie}"
        is_anomaly = specie not in normal
        has_masks = is_anomaly and not (optional_masks and not scan.has(f"{cls}/ground_truth"))
        masks = scan.pair(images, scan.images(truth), truth) if has_masks else {}
        records += _records(images, cls, specie, anomaly=is_anomaly, masks=masks)
    return _by_path(records)


def _dagm(scan: Scan, cls: str, split: str) -> list[Record]:
    """``C/{Train,Test}/NNNN.PNG``; anomalous are those with ``Label/NNNN_label.PNG`` below."""
    place = f"{cls}/{split.capitalize()}"
    images = scan.images(place)
    masks = scan.images(f"{place}/Label")
    stems = {PurePosixPath(mask).stem for mask in masks}
    labelled = [image for image in images if f"{PurePosixPath(image).stem}_label" in stems]
    pairs = scan.pair(labelled, masks, f"{place}/Label")
    return [r for image in images for r in _records([image], cls, "", anomaly=image in pairs, masks=pairs)]


def _visa(scan: Scan, cls: str, split: str) -> list[Record]:
    """``split_csv/1cls.csv`` with columns object, split, label, image, mask."""
    table = "split_csv/1cls.csv"
    try:
        with (scan.root / table).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        _once(scan, f"The file {table} is missing; it comes with VisA's code repository (amazon-science/spot-diff).")
        return []
    if rows and not {"object", "split", "label", "image", "mask"} <= set(rows[0]):
        _once(scan, f"{table} has the columns {', '.join(rows[0])}; expected object, split, label, image, mask.")
        return []
    records = [
        Record(row["image"], row["mask"] or "", cls, "", int(row["label"] != "normal"))
        for number, row in enumerate(rows, start=2)
        if row["object"] == cls and row["split"] == split
        if _is_inside(scan, f"{table}, line {number}", row["image"], row["mask"])
    ]
    return _by_path(records)


def _species(
    scan: Scan, cls: str, split: str, *, place: str, normal: tuple[str, ...], masks: str | None = None
) -> list[Record]:
    """``place/SPECIE/*``; masks, if any, flat in one folder."""
    species = {specie: scan.images(f"{place}/{specie}") for specie in scan.folders(place)}
    return _with_flat_masks(scan, cls, species, normal, masks)


def _custom(scan: Scan, cls: str, split: str) -> list[Record]:
    """``{train,test}/C/SPECIE/*``; masks in ``test/C/masks/STEM_mask.png`` or ``STEM.png``, if that folder exists."""
    place, truth = f"{split}/{cls}", f"{split}/{cls}/masks"
    species = {specie: scan.images(f"{place}/{specie}") for specie in scan.folders(place) if specie != "masks"}
    return _with_flat_masks(scan, cls, species, _NORMAL, truth if scan.has(truth) else None)


def _with_flat_masks(
    scan: Scan, cls: str, species: dict[str, list[str]], normal: tuple[str, ...], masks: str | None
) -> list[Record]:
    anomalous = [image for specie, images in species.items() if specie not in normal for image in images]
    pairs = scan.pair(anomalous, scan.images(masks), masks) if masks else {}
    records = []
    for specie, images in species.items():
        records += _records(images, cls, specie, anomaly=specie not in normal, masks=pairs)
    return _by_path(records)


def _pairs(scan: Scan, cls: str, split: str, *, images: str, masks: str) -> list[Record]:
    """``images/*`` and ``masks/*``, every picture anomalous."""
    found = scan.images(images)
    return _records(found, cls, "", anomaly=True, masks=scan.pair(found, scan.images(masks), masks))


def _meta(scan: Scan, cls: str, split: str) -> list[Record]:
    """``meta.json``: ``{"train": {class: [record]}, "test": {class: [record]}}``; the file's order is kept."""
    records = []
    for position, entry in enumerate(_meta_split(scan, split).get(cls, [])):
        missing = [key for key in ("img_path", "mask_path", "anomaly") if key not in entry]
        if missing:
            scan.problems.append(f"meta.json: record {position} of {split}/{cls} lacks {named(missing)}.")
            continue
        specie, mask = str(entry.get("specie_name", "")), entry["mask_path"] or ""
        if _is_inside(scan, f"meta.json, record {position} of {split}/{cls}", entry["img_path"], mask):
            records.append(Record(entry["img_path"], mask, cls, specie, int(entry["anomaly"])))
    return records


def _meta_split(scan: Scan, split: str) -> dict[str, list[dict[str, str]]]:
    try:
        content = json.loads((scan.root / "meta.json").read_text(encoding="utf-8"))
        classes = content[split]
    except FileNotFoundError:
        _once(scan, "The file meta.json is missing.")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        _once(scan, f"meta.json cannot be read as a dataset: {type(error).__name__}: {error}.")
    else:
        if isinstance(classes, dict):
            return classes
        _once(scan, f"meta.json: {split!r} is a {type(classes).__name__}, expected class names with their records.")
    return {}


def _is_inside(scan: Scan, where: str, picture: str, mask: str) -> bool:
    """Whether a listed picture and its mask, if it has one, lie in the dataset's folder; else it is a problem."""
    return all(scan.listed(str(path), where) is not None for path in (picture, *([mask] if mask else [])))


def _records(
    images: Sequence[str], cls: str, specie: str, *, anomaly: bool, masks: dict[str, str] | None = None
) -> list[Record]:
    return [Record(image, (masks or {}).get(image, ""), cls, specie, int(anomaly)) for image in images]


def _by_path(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.img_path)


def _once(scan: Scan, problem: str) -> None:
    if problem not in scan.problems:
        scan.problems.append(problem)


def _folders_with(scan: Scan, marker: str) -> list[str]:
    """Returns the folders of the root that hold a folder ``marker``."""
    return [name for name in scan.folders("") if scan.has(f"{name}/{marker}")]


_MVTEC = "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
_VISA = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
_MPDD = "bracket_black bracket_brown bracket_white connector metal_plate tubes"
_DTD = (
    "Woven_001 Woven_127 Woven_104 Stratified_154 Blotchy_099 Woven_068 Woven_125 Marbled_078 Perforated_037 Mesh_114 "
    "Fibrous_183 Matted_069"
)
_FOLDERS = PictureLayout(partial(_pairs, images="images", masks="masks"), ("images",), ("colon",), splits=("test",))
_SKIN = partial(_species, place="skin/test", normal=("good",), masks="skin/ground_truth")
_THYROID = partial(_pairs, images="test-image", masks="test-mask")
_HEAD = partial(_species, place="brain/test", normal=("good",))
_BRAIN = partial(_species, place="brain_tumor_dataset", normal=("no",))
_BRAIN_35 = partial(_species, place="brain", normal=("no",))

LAYOUTS = LayoutTable(
    "crane",
    {
        "mvtec": PictureLayout(_mvtec, ("{cls}/test",), tuple(_MVTEC.split())),
        "visa": PictureLayout(_visa, ("split_csv/1cls.csv",), tuple(_VISA.split())),
        "mpdd": PictureLayout(_mvtec, ("{cls}/test",), tuple(_MPDD.split())),
        "btad": PictureLayout(partial(_mvtec, normal=("ok",)), ("{cls}/test",), ("01", "02", "03")),
        "sdd": PictureLayout(_mvtec, ("{cls}/test",), ("electrical commutators",)),
        "dtd": PictureLayout(_mvtec, ("{cls}/test",), tuple(_DTD.split())),
        "dagm": PictureLayout(_dagm, ("{cls}/Test",), tuple(f"Class{number}" for number in range(1, 11))),
        "headct": PictureLayout(_HEAD, ("brain/test",), ("brain",), splits=("test",)),
        "brainmri": PictureLayout(_BRAIN, ("brain_tumor_dataset",), ("brain",), splits=("test",)),
        "br35h": PictureLayout(_BRAIN_35, ("brain/no",), ("brain",), splits=("test",)),
        "isic": PictureLayout(_SKIN, ("skin/test",), ("skin",), splits=("test",)),
        "cvc-colondb": _FOLDERS,
        "cvc-clinicdb": _FOLDERS,
        "tn3k": PictureLayout(_THYROID, ("test-image",), ("thyroid",), splits=("test",)),
        "endo": _FOLDERS,
        "custom": PictureLayout(_custom, ("test/*/good",), find_classes=lambda scan: scan.folders("test")),
        "mvtec_style": PictureLayout(
            partial(_mvtec, normal=_NORMAL, optional_masks=True),
            ("*/test",),
            find_classes=lambda scan: _folders_with(scan, "test"),
        ),
        "meta": PictureLayout(_meta, ("meta.json",), find_classes=lambda scan: list(_meta_split(scan, "test"))),
    },
)
"""Name -> layout: fourteen published datasets, ``endo`` (which has no published numbers), and three general ones:
``custom`` (``test/CLASS/{good,FAULT,masks}``), ``mvtec_style`` (any classes, masks optional), ``meta`` (meta.json)."""
