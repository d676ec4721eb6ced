"""Drawn defects on real photographs: a test of how far a model trained on drawings reaches.

The photographs come with scikit-image and scikit-learn (extra ``dev``); nothing of them is shipped but a few samples of
those in the public domain. The defects are drawn by the same twelve functions as in :mod:`.scenes`, so this is not a
test on real defects. Normal and damaged pictures of a photograph are crops that may overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.drawing.camera import draw_light, photograph_again
from mmattn.drawing.fields import SIZE, Array
from mmattn.errors import MissingExtraError
from mmattn.vision.crane.synthetic.defects import SEEN, UNSEEN, Scene
from mmattn.vision.crane.synthetic.scenes import Sample, damage

__all__ = ["PHOTOGRAPHS", "Photograph", "draw_photograph", "load_photograph", "photograph_items"]

_FIRST_SEED = 6_000_000


class Photograph(NamedTuple):
    """One photograph: where it comes from, and the side of its crops in pixels of the original."""

    source: str
    licence: str
    crop: tuple[int, int]


PHOTOGRAPHS = {
    "brick": Photograph("scikit-image", "CC0", (200, 340)),
    "grass": Photograph("scikit-image", "CC0", (200, 340)),
    "gravel": Photograph("scikit-image", "CC0", (200, 340)),
    "coins": Photograph("scikit-image", "no known copyright restrictions", (150, 260)),
    "page": Photograph("scikit-image", "public domain", (120, 180)),
    "moon": Photograph("scikit-image", "public domain (NASA)", (200, 400)),
    "coffee": Photograph("scikit-image", "CC0", (220, 380)),
    "chelsea": Photograph("scikit-image", "CC0", (180, 280)),
    "flower": Photograph("scikit-learn", "CC BY 2.0, vultilion", (220, 400)),
}


def load_photograph(name: str) -> npt.NDArray[np.uint8]:
    """Returns a photograph, (H, W, 3) uint8 RGB.

    Raises:
        MissingExtraError: If scikit-image or scikit-learn is not installed.
    """
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise MissingExtraError("scikit-image", "dev", "the test on real photographs") from error
    picture = load_sample_image("flower.jpg") if name == "flower" else getattr(data, name)()
    rgb = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def draw_photograph(name: str, number: int, defect: str = "") -> Sample:
    """Returns crop ``number`` of a photograph, damaged if ``defect`` names one, with its own mask."""
    rng = np.random.default_rng([_FIRST_SEED, list(PHOTOGRAPHS).index(name), number])
    whole = load_photograph(name)
    low, high = PHOTOGRAPHS[name].crop
    side = int(rng.integers(low, high + 1))
    top, left = (int(rng.integers(0, length - side + 1)) for length in whole.shape[:2])
    crop = cv2.resize(whole[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    mask = np.zeros((SIZE, SIZE), bool)
    picture: Array = crop.astype(np.float32) / 255
    if defect:
        scene = Scene(picture, np.ones((SIZE, SIZE), bool), False)
        drawn = damage(rng, scene, defect)
        picture, mask = np.clip(drawn.picture, 0, 1), drawn.extent > 0.5
    return Sample(photograph_again(rng, picture, draw_light(rng)), mask, name, defect)


def photograph_items(per_photograph: int = 40) -> list[tuple[str, int, str]]:
    """Lists the test as (name, number, defect): half flawless, half damaged by all twelve defects in turn."""
    defects = (*UNSEEN, *SEEN)
    return [
        (name, number, defects[number // 2 % len(defects)] if number % 2 else "")
        for name in PHOTOGRAPHS
        for number in range(per_photograph)
    ]
