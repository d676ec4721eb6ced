"""Tiny datasets in the true on-disk layout of every dataset Crane reads."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmattn.vision.crane.datasets.layouts import LAYOUTS, read_layout, write_meta

__all__ = ["PUBLISHED", "write_dataset", "write_image", "write_mask"]

PUBLISHED = [name for name in LAYOUTS if name not in {"custom", "mvtec_style", "meta"}]

_MVTEC_FAMILY = {
    "mvtec": ("good", "broken", "_mask"),
    "mpdd": ("good", "scratches", "_mask"),
    "btad": ("ok", "ko", ""),
    "sdd": ("good", "defect", ""),
    "dtd": ("good", "bad", "_mask"),
    "mvtec_style": ("good", "dent", "_mask"),
}
_SPECIES = {"headct": "brain/test/{}", "brainmri": "brain_tumor_dataset/{}", "br35h": "brain/{}"}
_FOLDERS = {"tn3k": ("test-image", "test-mask")}
_SIZE = (20, 24)


def write_dataset(name: str, root: Path, *, per_kind: int = 2) -> Path:
    """Writes every class of a layout with ``per_kind`` normal and anomalous test pictures; returns ``root``."""
    classes = LAYOUTS[name].classes or ("cup", "plate")
    for index, cls in enumerate(classes):
        for number in range(per_kind):
            _WRITERS[name](name, root, cls, number, 100 * index + number)
    if name == "visa":
        _write_visa_table(root, classes, per_kind)
    if name == "meta":
        write_meta(root, {"test": read_layout("mvtec_style", root)})
    return root


def write_image(path: Path, seed: int, *, size: tuple[int, int] = _SIZE, square: bool = False) -> Path:
    """Writes a noisy grey picture (H, W); ``square`` puts a bright square where the mask is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 120, (*size, 3), dtype=np.uint8)
    if square:
        pixels[_mask(size)] = 250
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, *, size: tuple[int, int] = _SIZE, value: int = 255) -> Path:
    """Writes a mask with one square of ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_mask(size).astype(np.uint8) * value).save(path)
    return path


def _mask(size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[4:12, 6:14] = True
    return mask


def _write_mvtec(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    normal, fault, suffix = _MVTEC_FAMILY[name]
    write_image(root / cls / "train" / normal / f"{number:03d}.png", seed + 50)
    write_image(root / cls / "test" / normal / f"{number:03d}.png", seed)
    write_image(root / cls / "test" / fault / f"{number:03d}.png", seed + 25, square=True)
    write_mask(root / cls / "ground_truth" / fault / f"{number:03d}{suffix}.png")


def _write_dagm(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    for split in ("Train", "Test"):
        write_image(root / cls / split / f"{2 * number + 1:04d}.PNG", seed)
        write_image(root / cls / split / f"{2 * number + 2:04d}.PNG", seed + 25, square=True)
        write_mask(root / cls / split / "Label" / f"{2 * number + 2:04d}_label.PNG")


def _write_visa(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    write_image(root / cls / "Data/Images/Normal" / f"{number:04d}.JPG", seed)
    write_image(root / cls / "Data/Images/Anomaly" / f"{number:03d}.JPG", seed + 25, square=True)
    # VisA's masks hold small ids of the kind of anomaly.
    write_mask(root / cls / "Data/Masks/Anomaly" / f"{number:03d}.png", value=3)


def _write_visa_table(root: Path, classes: tuple[str, ...], per_kind: int) -> None:
    (root / "split_csv").mkdir()
    with (root / "split_csv/1cls.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["object", "split", "label", "image", "mask"])
        for cls in classes:
            for number in range(per_kind):
                stem = f"{cls}/Data/Images/Anomaly/{number:03d}.JPG"
                rows.writerow([cls, "test", "normal", f"{cls}/Data/Images/Normal/{number:04d}.JPG", ""])
                rows.writerow([cls, "test", "anomaly", stem, f"{cls}/Data/Masks/Anomaly/{number:03d}.png"])


def _write_species(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    normal, fault = ("good", "defect") if name == "headct" else ("no", "yes")
    write_image(root / _SPECIES[name].format(normal) / f"{number}.png", seed)
    write_image(root / _SPECIES[name].format(fault) / f"{number}.png", seed + 25, square=True)


def _write_isic(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    write_image(root / "skin/test/bad" / f"ISIC_{number}.jpg", seed, square=True)
    write_mask(root / "skin/ground_truth" / f"ISIC_{number}_segmentation.png")


def _write_pairs(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    images, masks = _FOLDERS.get(name, ("images", "masks"))
    write_image(root / images / f"{number}.png", seed, square=True)
    write_mask(root / masks / f"{number}.png")


def _write_custom(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    write_image(root / "train" / cls / "good" / f"{number}.png", seed + 50)
    write_image(root / "test" / cls / "good" / f"{number}.png", seed)
    write_image(root / "test" / cls / "fault" / f"f{number}.png", seed + 25, square=True)
    write_mask(root / "test" / cls / "masks" / f"f{number}{'_mask' if number % 2 else ''}.png")


def _write_meta(name: str, root: Path, cls: str, number: int, seed: int) -> None:
    _write_mvtec("mvtec_style", root, cls, number, seed)


_WRITERS = {
    **dict.fromkeys(_MVTEC_FAMILY, _write_mvtec),
    **dict.fromkeys(_SPECIES, _write_species),
    **dict.fromkeys(("cvc-colondb", "cvc-clinicdb", "endo", "tn3k"), _write_pairs),
    "dagm": _write_dagm,
    "visa": _write_visa,
    "isic": _write_isic,
    "custom": _write_custom,
    "meta": _write_meta,
}
