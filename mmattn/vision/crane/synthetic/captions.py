"""Captions of drawn pictures: what an image-text model is told about them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmattn.drawing.fields import Rng

__all__ = ["ABNORMAL_SENTENCES", "DEFECT_WORDS", "NORMAL_SENTENCES", "caption", "where"]

_GOOD = ("normal", "flawless", "intact", "perfect", "undamaged")
_BAD = ("damaged", "broken", "defective", "faulty", "spoiled")

DEFECT_WORDS = {
    "scratch": "a scratch",
    "crack": "a crack",
    "stain": "a stain",
    "dent": "a dent",
    "missing": "a missing piece",
    "contamination": "some dirt",
    "irregular": "an irregular spot",
}
"""How captions name the defects of the training stages; the others are never named."""

NORMAL_SENTENCES = ("a photo of an object.", "a flawless object.", "a perfect object.", "an object with no damage.")
"""Sentences whose mean text feature stands for "normal" while the towers are aligned."""

ABNORMAL_SENTENCES = (
    "a photo of a damaged object.",
    "a broken object.",
    "a defective object.",
    "an object with a defect.",
)
"""Sentences whose mean text feature stands for "abnormal" while the towers are aligned."""


def where(mask: npt.NDArray[np.bool_]) -> str:
    """Returns where the centroid of a mask (H, W) lies in a three by three division, as in "on the top left".

    >>> spot = np.zeros((256, 256), bool); spot[10:20, 10:20] = True
    >>> where(spot)
    'on the top left'
    """
    rows, columns = np.nonzero(mask)
    vertical = ("top", "", "bottom")[min(int(rows.mean() * 3 / mask.shape[0]), 2)]
    horizontal = ("left", "", "right")[min(int(columns.mean() * 3 / mask.shape[1]), 2)]
    place = f"{vertical} {horizontal}".strip()
    return f"on the {place}" if place else "in the centre"


def caption(rng: Rng, category: str, defect: str, mask: npt.NDArray[np.bool_]) -> str:
    """Describes a picture with its mask (S, S); ``defect`` is "" for none, else a key of :data:`DEFECT_WORDS`."""
    thing = f"an {category}" if category[0] in "aeiou" else f"a {category}"
    if not defect:
        good = _GOOD[int(rng.integers(len(_GOOD)))]
        choices = (
            f"a photo of {thing}.",
            f"a {good} {category}.",
            f"a photo of a {good} {category}.",
            f"{thing} with no damage.",
        )
    else:
        bad = _BAD[int(rng.integers(len(_BAD)))]
        choices = (
            f"a {bad} {category}.",
            f"{thing} with {DEFECT_WORDS[defect]}.",
            f"{thing} with {DEFECT_WORDS[defect]} {where(mask)}.",
            f"a photo of a {bad} {category}.",
        )
    return choices[int(rng.integers(len(choices)))]
