"""Flawless and damaged twins of photographs and collages: what teaches the embedded model how real pictures look.

The defects are those of both training stages and never the test's own, and the photographs are not the test's either.
Such a picture is called an "object": its captions name no category.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from mmattn.drawing.camera import Light, draw_light, photograph_again
from mmattn.drawing.fields import SIZE, Array, Rng
from mmattn.drawing.photographs import TRAINING, VALIDATION, crop, load_source
from mmattn.vision.crane.synthetic.collages import draw_collage
from mmattn.vision.crane.synthetic.defects import SEEN, Scene
from mmattn.vision.crane.synthetic.scenes import Sample, damage

__all__ = ["CATEGORY", "collage_pair", "draw_validation_photograph", "photograph_pair", "validation_photographs"]

CATEGORY = "object"
"""What captions call the thing in a photograph or a collage."""

_FIRST_VALIDATION = 6_500_000
_SMALLEST = 150


def photograph_pair(index: int, defect: str, seed: int) -> tuple[Sample, Sample]:
    """Draws a flawless crop of training photograph ``index`` (taken modulo their number) and its damaged twin."""
    rng = np.random.default_rng([seed, 77])
    names = list(TRAINING)
    turned = np.rot90(crop(rng, names[index % len(names)], _SMALLEST), int(rng.integers(4)))
    return _twins(rng, turned[:, ::-1] if rng.random() < 0.5 else turned, defect)


def collage_pair(defect: str, seed: int) -> tuple[Sample, Sample]:
    """Draws a flawless collage and its damaged twin."""
    rng = np.random.default_rng([seed, 78])
    return _twins(rng, draw_collage(rng), defect)


def _twins(rng: Rng, picture: Array, defect: str) -> tuple[Sample, Sample]:
    developed = _develop(rng, picture)
    drawn = damage(rng, Scene(developed, np.ones((SIZE, SIZE), bool), False), defect)
    light = draw_light(rng)
    flawless = Sample(_expose(rng, developed, light), np.zeros((SIZE, SIZE), bool), CATEGORY, "")
    damaged = Sample(_expose(rng, np.clip(drawn.picture, 0, 1), light), drawn.extent > 0.5, CATEGORY, defect)
    return flawless, damaged


def _develop(rng: Rng, picture: Array) -> Array:
    """Changes tone, brightness and saturation; a quarter of the pictures become grey."""
    toned = cv2.pow(np.clip(np.ascontiguousarray(picture), 0, 1), float(rng.uniform(0.75, 1.35)))
    toned = toned * np.float32(rng.uniform(0.7, 1.15))
    saturation = 0.0 if rng.random() < 0.27 else rng.uniform(0.4, 1.1)
    grey = toned.mean(-1, keepdims=True)
    developed: Array = np.clip(grey + (toned - grey) * np.float32(saturation), 0, 1).astype(np.float32)
    return developed


def _expose(rng: Rng, picture: Array, light: Light) -> npt.NDArray[np.uint8]:
    """Photographs again, and compresses half of the results as JPEG."""
    pixels = photograph_again(rng, picture, light)
    if light.quality and rng.random() < 0.5:
        pixels = _compress(pixels, light.quality)
    return pixels


def _compress(pixels: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed))


def draw_validation_photograph(name: str, number: int, defect: str = "") -> Sample:
    """Returns crop ``number`` of a validation photograph, damaged if ``defect`` names one."""
    rng = np.random.default_rng([_FIRST_VALIDATION, list(VALIDATION).index(name), number])
    short = min(load_source(name).shape[:2])
    picture = crop(rng, name, max(120, min(short // 4, 300)), max(short // 2, 180))
    mask = np.zeros((SIZE, SIZE), bool)
    if defect:
        drawn = damage(rng, Scene(picture, np.ones((SIZE, SIZE), bool), False), defect)
        picture, mask = np.clip(drawn.picture, 0, 1), drawn.extent > 0.5
    return Sample(photograph_again(rng, picture, draw_light(rng)), mask, name, defect)


def validation_photographs(per_photograph: int) -> list[tuple[str, int, str]]:
    """Lists the validation as (name, number, defect): half flawless, half damaged by the seen defects in turn."""
    defects = tuple(SEEN)
    return [
        (name, number, defects[number // 2 % len(defects)] if number % 2 else "")
        for name in VALIDATION
        for number in range(per_photograph)
    ]
