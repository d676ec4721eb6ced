"""Real photographs that the embedded Crane model learns from and is chosen on, and where each of them comes from.

They arrive inside packages, so that no picture is part of this project: scikit-image, scikit-learn and matplotlib from
PyPI, and Debian's ``lomiri-wallpapers-16.04``, ``lomiri-wallpapers-20.04`` and ``mate-backgrounds``. Training uses
public domain, CC0 and CC BY alone. The photographs of the test are others, in :mod:`.synthetic_photos`.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmattn.drawing.fields import SIZE, Array, Rng
from mmattn.errors import InputError, MissingExtraError
from mmattn.media.image import read_image

__all__ = ["TRAINING", "VALIDATION", "Photograph", "crop", "load_source"]

WALLPAPERS = Path("/usr/share/backgrounds")
"""Where Debian's wallpaper packages put their files."""

_LONGEST_SHORT_SIDE = 1400


class Photograph(NamedTuple):
    """One photograph: the package it is in, its file there, its licence."""

    package: str
    file: str
    licence: str


TRAINING = {
    "fig": Photograph("lomiri-wallpapers-16.04", "Picture_0B_by_freespace.jpg", "CC BY 4.0"),
    "brushes": Photograph("lomiri-wallpapers-16.04", "Picture_1A_by_freespace.jpg", "CC BY 4.0"),
    "room": Photograph("lomiri-wallpapers-16.04", "Wine_by_Jakkub_Mede.jpg", "CC BY 4.0"),
    "hills": Photograph("lomiri-wallpapers-16.04", "aitzgorri_by_Aitzol_Berasategi.jpg", "CC BY 4.0"),
    "dogs": Photograph("lomiri-wallpapers-16.04", "friends_by_Aitzol_Berasategi.jpg", "CC BY 4.0"),
    "stream": Photograph("lomiri-wallpapers-16.04", "life_by_Aitzol_Berasategi.jpg", "CC BY 4.0"),
    "mountains": Photograph("lomiri-wallpapers-16.04", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "CC BY 4.0"),
    "dandelions": Photograph("lomiri-wallpapers-16.04", "seeding_by_Clements_Engelhardt.jpg", "CC0"),
    "sunset": Photograph("lomiri-wallpapers-16.04", "sunset_by_Aitzol_Berasategi.jpg", "CC BY 4.0"),
    "astronaut": Photograph("scikit-image", "skimage/data/astronaut.png", "public domain (NASA)"),
    "camera": Photograph("scikit-image", "skimage/data/camera.png", "CC0"),
    "rocket": Photograph("scikit-image", "skimage/data/rocket.jpg", "CC0"),
    "hubble": Photograph("scikit-image", "skimage/data/hubble_deep_field.jpg", "public domain (NASA)"),
    "retina": Photograph("scikit-image", "skimage/data/retina.jpg", "public domain"),
    "motorcycle": Photograph("scikit-image", "skimage/data/motorcycle_left.png", "CC0"),
    "china": Photograph("scikit-learn", "sklearn/datasets/images/china.jpg", "CC BY 2.0"),
    "hopper": Photograph("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg", "public domain (US Navy)"),
}
"""What flawless and damaged training pictures are cut from."""

VALIDATION = {
    "leaf": Photograph("mate-backgrounds", "mate/nature/Blinds.jpg", "GPL-2+"),
    "meadow": Photograph("mate-backgrounds", "mate/nature/GreenMeadow.jpg", "GPL-2+"),
    "planks": Photograph("mate-backgrounds", "mate/nature/Wood.jpg", "GPL-2+"),
    "dune": Photograph("mate-backgrounds", "mate/nature/Dune.jpg", "GPL-2+"),
    "raindrops": Photograph("mate-backgrounds", "mate/nature/RainDrops.jpg", "GPL-2+"),
    "bark": Photograph("lomiri-wallpapers-20.04", "Kleiber_by_Lukas_Baubkus.jpg", "CC BY-SA 3.0"),
    "foliage": Photograph("lomiri-wallpapers-16.04", "Dragonfly_by_Bolly.jpg", "CC BY-SA 4.0"),
    "tissue": Photograph("scikit-image", "skimage/data/ihc.png", "CC0"),
    "text": Photograph("scikit-image", "skimage/data/text.png", "public domain"),
}
"""What temperatures and other choices are made on; nothing is learned from them."""


@lru_cache(maxsize=32)
def load_source(name: str) -> Array:
    """Returns a photograph (H, W, 3) of the training or the validation, uint8 RGB, its short side at most 1400 pixels.

    Raises:
        MissingExtraError: If the PyPI package is not installed.
        InputError: If the Debian package is not installed; the hint says how to install it.
    """
    source = {**TRAINING, **VALIDATION}[name]
    path = _path_of(source)
    if not path.is_file():
        raise InputError(
            f"The photograph {name!r} is missing: {path} does not exist.",
            f"It is part of Debian's {source.package}: apt-get install {source.package}",
        )
    picture: Array = read_image(path)
    short = min(picture.shape[:2])
    if short > _LONGEST_SHORT_SIDE:
        scale = _LONGEST_SHORT_SIDE / short
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return picture


def _path_of(source: Photograph) -> Path:
    if not source.file.startswith(("skimage/", "sklearn/", "matplotlib/")):
        return WALLPAPERS / source.file
    package, _, inside = source.file.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(source.package, "dev", "the photographs of the embedded Crane")
    return Path(spec.origin).parent / inside


def crop(rng: Rng, name: str, smallest: int, largest: int | None = None) -> Array:
    """Returns a random square of a photograph resized to (S, S, 3), float32 RGB in [0, 1].

    Args:
        rng: Source of randomness.
        name: Key of :data:`TRAINING` or :data:`VALIDATION`.
        smallest: Shortest side of the square, in pixels of the photograph.
        largest: Longest side; None means the photograph's short side. Sides are drawn log-uniformly.
    """
    whole = load_source(name)
    short = min(whole.shape[:2])
    high = min(largest or short, short)
    side = min(int(np.exp(rng.uniform(np.log(min(smallest, high)), np.log(high + 0.5)))), short)
    top, left = (int(rng.integers(0, length - side + 1)) for length in whole.shape[:2])
    way = cv2.INTER_AREA if side > SIZE else cv2.INTER_LINEAR
    square: Array = cv2.resize(whole[top : top + side, left : left + side], (SIZE, SIZE), interpolation=way)
    return square.astype(np.float32) / 255
