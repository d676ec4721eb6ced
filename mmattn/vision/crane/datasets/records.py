"""Looking at a dataset folder: records of pictures, and pairing pictures with masks by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmattn.core.datasets.scan import DatasetScan, named
from mmattn.media.image import is_image

__all__ = ["Record", "Scan"]

_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Record:
    """One picture of a dataset, as ``meta.json`` lists it.

    Attributes:
        img_path: Path below the dataset's root, with forward slashes; absolute where ``meta.json`` says so.
        mask_path: Same for the mask, "" when there is none.
        cls_name: Class, as in "bottle".
        specie_name: Folder of the kind of defect, "" where a layout has none.
        anomaly: 0 for normal, 1 for anomalous.
    """

    img_path: str
    mask_path: str
    cls_name: str
    specie_name: str
    anomaly: int


class Scan(DatasetScan):
    """One reading of a dataset folder of pictures and masks."""

    def images(self, place: str) -> list[str]:
        """Returns the pictures directly in ``place`` as paths below the root, sorted; none is a problem."""
        names = [entry.name for entry in self.entries(place)]
        found = [f"{place}/{name}" for name in names if is_image(name) and not name.startswith(".")]
        if not found and (self.root / place).is_dir():
            self.problems.append(f"The folder {place} holds no pictures.")
        return found

    def pair(self, images: Sequence[str], masks: Sequence[str], place: str) -> dict[str, str]:
        """Returns the mask of each picture by name: ``STEM`` or ``STEM`` and a suffix such as ``_mask``.

        Published generators pair by sorted position; with names the order cannot slip. Pictures without a mask, masks
        without a picture, and two masks of one picture are problems.

        Args:
            images: Pictures that need a mask.
            masks: Mask files.
            place: Folder of the masks, for messages.
        """
        by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for image in images:
            by_stem[Path(image).stem].append(image)
        pairs: dict[str, str] = {}
        unused: list[str] = []
        for mask in masks:
            owners = by_stem.get(_owner(Path(mask).stem, by_stem), [])
            if len(owners) == 1 and owners[0] not in pairs:
                pairs[owners[0]] = mask
            else:
                unused.append(mask)
        missing = [image for image in images if image not in pairs]
        if missing:
            self.problems.append(
                f"{len(missing)} of {len(images)} anomalous pictures have no mask in {place} "
                f"({len(masks)} masks there): {named(missing)}."
            )
        if unused:
            self.problems.append(f"{len(unused)} masks in {place} belong to no picture or to several: {named(unused)}.")
        return pairs


def _owner(stem: str, known: defaultdict[str, list[str]]) -> str:
    """Returns the longest known stem that is ``stem`` or a prefix of it that ends before a separator."""
    end = len(stem)
    while end > 0 and stem[:end] not in known:
        end = max(stem.rfind(separator, 0, end) for separator in _SEPARATORS)
    return stem[: max(end, 0)]
