"""Building blocks of the drawn pictures: noise, cells, coordinates and palettes.

Everything is a function of a seeded ``numpy`` generator and returns float32 arrays of side :data:`SIZE`; coordinates
are in pixels, colours are RGB in [0, 1].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "SIZE",
    "Array",
    "Cells",
    "Rng",
    "cells",
    "coordinates",
    "fractal",
    "mix",
    "palette",
    "square_wave",
    "streaks",
    "tint",
]

SIZE = 256
"""Side of every drawn picture, in pixels."""

Array = npt.NDArray[Any]
"""A float32 array; OpenCV's type information does not carry the element type through."""

Rng = np.random.Generator


class Cells(NamedTuple):
    """A Voronoi division of the picture.

    Attributes:
        label: Index of the seed each pixel belongs to, int (S, S).
        edge: Distance to the nearest cell border, in pixels, (S, S).
        value: One random number in [0, 1] per cell, spread over its pixels, (S, S).
    """

    label: npt.NDArray[np.int32]
    edge: Array
    value: Array


def fractal(rng: Rng, cell: float, octaves: int = 4, gain: float = 0.5, aspect: float = 1.0) -> Array:
    """Returns smooth noise (S, S) stretched to [0, 1].

    Args:
        rng: Source of randomness.
        cell: Size of the largest bumps, in pixels.
        octaves: Number of layers; each halves the bump size.
        gain: Amplitude of a layer relative to the one before.
        aspect: Bumps are this many times wider than high.
    """
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        rows = int(SIZE / size) + 3
        columns = max(int(SIZE / (size * aspect)) + 3, 3)
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        total += gain**octave * cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low + 1e-6)


def streaks(rng: Rng, length: int, angle: float) -> Array:
    """Returns noise (S, S) smeared along ``angle`` (radians) over ``length`` pixels, stretched to [0, 1]."""
    noise = rng.standard_normal((SIZE + 128, SIZE + 128), dtype=np.float32)
    smeared = cv2.blur(noise, (length, 1))
    turn = cv2.getRotationMatrix2D((SIZE / 2 + 64, SIZE / 2 + 64), float(np.degrees(angle)), 1.0)
    turn[:, 2] -= 64
    smeared = cv2.warpAffine(smeared, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    low, high = np.percentile(smeared[::4, ::4], (1, 99))
    return np.clip((smeared - low) / (high - low + 1e-6), 0, 1).astype(np.float32)


def cells(rng: Rng, spacing: float, regular: float = 0.0) -> Cells:
    """Divides the picture into Voronoi cells.

    Args:
        rng: Source of randomness.
        spacing: Mean distance between seeds, in pixels.
        regular: 0 scatters the seeds freely, 1 puts them on a square lattice.
    """
    side = int(np.ceil(SIZE / spacing)) + 1
    lattice = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(np.float32)
    jitter = rng.uniform(-0.5, 0.5, lattice.shape) * (1 - regular) * 1.6
    points = ((lattice + jitter) * spacing).astype(np.int32)
    points = points[((points >= 0) & (points < SIZE)).all(1)]
    seeds = np.full((SIZE, SIZE), 255, np.uint8)
    seeds[points[:, 1], points[:, 0]] = 0
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    inside = np.full((SIZE, SIZE), 255, np.uint8)
    inside[:, 1:][label[:, 1:] != label[:, :-1]] = 0
    inside[1:][label[1:] != label[:-1]] = 0
    edge = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    value = rng.random(int(label.max()) + 1, dtype=np.float32)[label]
    return Cells(label.astype(np.int32), edge.astype(np.float32), value)


def coordinates(rng: Rng, angle: float | None = None, wobble: float = 0.0) -> tuple[Array, Array]:
    """Returns rotated, slightly perspective pixel coordinates ``(u, v)``, each (S, S).

    Args:
        rng: Source of randomness.
        angle: Rotation in radians; None draws one.
        wobble: Amplitude of a smooth distortion, in pixels.
    """
    angle = rng.uniform(0, np.pi) if angle is None else angle
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - SIZE / 2
    if wobble > 0:
        x = x + wobble * (fractal(rng, 90, 2) - 0.5)
        y = y + wobble * (fractal(rng, 90, 2) - 0.5)
    tilt = rng.uniform(-0.25, 0.25, 2) / SIZE
    depth = 1 + tilt[0] * x + tilt[1] * y
    cos, sin = np.cos(angle), np.sin(angle)
    shift = rng.uniform(0, 100, 2)
    u = (cos * x + sin * y) / depth + shift[0]
    v = (-sin * x + cos * y) / depth + shift[1]
    return u.astype(np.float32), v.astype(np.float32)


def square_wave(u: Array, period: float, duty: float, soft: float = 1.0) -> Array:
    """Returns a periodic line pattern (S, S): 1 inside a share of each period, 0 outside.

    Args:
        u: (S, S) coordinate across the lines, in pixels.
        period: Pixels from line to line.
        duty: Share of a period that a line covers.
        soft: Width of a line's edge, in pixels.
    """
    distance = np.abs((u / period) % 1.0 - 0.5) * period
    return np.clip((duty * period / 2 - distance) / soft + 0.5, 0, 1).astype(np.float32)


def palette(rng: Rng, count: int, contrast: float = 0.3) -> Array:
    """Returns N related colours, RGB in [0, 1] (N, 3); muted and grey families are more frequent than vivid ones.

    Args:
        rng: Source of randomness.
        count: Number N of colours.
        contrast: Typical difference in brightness between them.
    """
    family = rng.choice(["grey", "muted", "earth", "vivid"], p=[0.25, 0.4, 0.2, 0.15])
    saturation = {"grey": (0.0, 0.06), "muted": (0.06, 0.35), "earth": (0.15, 0.55), "vivid": (0.45, 0.95)}[family]
    hue = rng.uniform(15, 50) if family == "earth" else rng.uniform(0, 360)
    value = rng.uniform(0.25, 0.8) + contrast * rng.permutation(
        np.linspace(-0.7, 0.7, count) if count > 1 else np.zeros(1)
    )
    hsv = np.stack(
        [
            (hue + rng.normal(0, 14, count) + 180 * (rng.random(count) < 0.12)) % 360,
            np.clip(rng.uniform(*saturation) + rng.normal(0, 0.04, count), 0, 1),
            np.clip(value, 0.06, 0.95),
        ],
        -1,
    ).astype(np.float32)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].astype(np.float32)


def mix(first: Array, second: Array, share: Array) -> Array:
    """Mixes two pictures or colours; ``share`` (S, S) in [0, 1] is how much of the second shows. Gives (S, S, 3)."""
    return (first + (second - first) * share[..., None]).astype(np.float32)


def tint(picture: Array, field: Array, amount: float) -> Array:
    """Brightens where ``field`` (S, S), in [0, 1], is above one half and darkens elsewhere, by up to ``amount`` / 2."""
    return (picture * (1 + amount * (field - 0.5))[..., None]).astype(np.float32)
