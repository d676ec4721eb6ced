"""Surfaces put together from pieces of photographs: regular and irregular patterns with the grain of real pictures.

Photographs show scenes and few regular surfaces; drawings show regular surfaces without the statistics of real
pictures. A collage has both: courses of stones, scattered pieces, a texture continued from a small sample, repeated
tiles, printed pages. All are training pictures of the embedded Crane model; no test shows them.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmattn.drawing.fields import SIZE, Array, Rng, fractal
from mmattn.drawing.photographs import TRAINING, load_source

__all__ = ["SURFACES", "draw_collage"]

_SIDE = 400
"""Side of a surface before it is turned, tilted and cut to the picture's size, in pixels."""

_LETTERS = list("abcdefghijklmnopqrstuvwxyzeeeettaaooiinn")


def draw_collage(rng: Rng) -> Array:
    """Returns a flawless surface (S, S, 3), float32 RGB in [0, 1]: turned, at times tilted and warped."""
    names = list(SURFACES)
    shares = np.array([share for _, share in SURFACES.values()])
    surface = np.clip(SURFACES[names[int(rng.choice(len(names), p=shares))]][0](rng), 0, 1).astype(np.float32)
    angle = float(rng.uniform(0, 360)) if rng.random() < 0.5 else 90.0 * int(rng.integers(4))
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), angle, float(rng.uniform(0.95, 1.6)))
    turn[:2, 2] += SIZE / 2 - _SIDE / 2
    if rng.random() < 0.3:
        tilt = np.eye(3)
        tilt[2, :2] = rng.uniform(-0.0008, 0.0008, 2)
        turn = tilt @ turn
    picture: Array = cv2.warpPerspective(
        surface, turn, (SIZE, SIZE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    return _warp(rng, picture) if rng.random() < 0.4 else picture


def _warp(rng: Rng, picture: Array) -> Array:
    """Bends a surface as cloth or soil is bent."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    reach = np.float32(rng.uniform(8, 40))
    moved_x, moved_y = (place + reach * (fractal(rng, 60, 2) - 0.5) for place in (x, y))
    bent: Array = cv2.remap(picture, moved_x, moved_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return bent


def _piece(rng: Rng, side: int, smallest: int = 24) -> Array:
    """Returns a square of a random training photograph resized to (side, side, 3)."""
    names = list(TRAINING)
    whole = load_source(names[int(rng.integers(len(names)))])
    short = min(whole.shape[:2])
    length = min(int(np.exp(rng.uniform(np.log(smallest), np.log(min(short, 400))))), short - 1)
    top, left = (int(rng.integers(extent - length)) for extent in whole.shape[:2])
    way = cv2.INTER_AREA if length > side else cv2.INTER_LINEAR
    resized: Array = cv2.resize(whole[top : top + length, left : left + length], (side, side), interpolation=way)
    return resized.astype(np.float32) / 255


def _courses(rng: Rng) -> Array:
    """Courses of stones cut from one photograph, with joints of another: walls and tiles."""
    height, width, joint = int(rng.integers(14, 56)), int(rng.integers(18, 90)), int(rng.integers(0, 6))
    stone, out = _piece(rng, _SIDE, 200), _piece(rng, _SIDE) * rng.uniform(0.4, 1.1)
    is_shifted, is_same = rng.random() < 0.6, rng.random() < 0.4
    for row, y in enumerate(range(0, _SIDE - height, height)):
        first = -int(width * (0.5 if is_shifted and row % 2 else 0)) - int(rng.integers(0, 3))
        for x in range(first, _SIDE, width):
            left, right, bottom = max(x, 0), min(x + width - joint, _SIDE), y + height - joint
            if right - left < 3 or bottom - y < 3:
                continue
            high, wide = bottom - y, right - left
            top, side = (7, 11) if is_same else (int(rng.integers(_SIDE - high)), int(rng.integers(_SIDE - wide)))
            cut = stone[top : top + high, side : side + wide]
            out[y : y + cut.shape[0], left : left + cut.shape[1]] = cut * rng.uniform(0.8, 1.15)
    return out


def _scattered(rng: Rng) -> Array:
    """Round or polygonal pieces on a ground, in rows or lying on each other: gravel, coins, beads."""
    out = _piece(rng, _SIDE) * np.float32(rng.uniform(0.3, 1.0))
    sources = (_piece(rng, 600, 150), _piece(rng, 600, 150))
    radius, spread = rng.uniform(8, 40), rng.uniform(0.05, 0.6)
    corners = int(rng.integers(5, 9)) if rng.random() < 0.6 else 0
    for centre in _places(rng, radius):
        outline = _outline(rng, centre, radius * np.exp(rng.normal(0, spread)), corners)
        source = sources[0] if rng.random() < 0.7 else sources[1]
        _lay(rng, out, source, outline, is_shaded=rng.random() < 0.7)
    return out


def _places(rng: Rng, radius: float) -> Array:
    """Returns centres (n, 2) of pieces: a jittered grid, or random ones in random number."""
    if rng.random() < 0.35:
        steps = np.arange(0, _SIDE, 2.4 * radius)
        grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        return grid + rng.normal(0, radius * 0.12, grid.shape)
    count = int(min(2.5 * _SIDE**2 / (np.pi * radius**2) * rng.uniform(0.2, 1.3), 900))
    return rng.uniform(-20, _SIDE + 20, (count, 2))


def _outline(rng: Rng, centre: Array, radius: float, corners: int) -> Array:
    """Returns the outline (k, 2) of a piece: a polygon with that many corners, or a circle for 0."""
    if corners:
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), radius * rng.uniform(0.75, 1.1, corners)
    else:
        angles, radii = np.linspace(0, 2 * np.pi, 24, endpoint=False), np.full(24, radius)
    return centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1)


def _lay(rng: Rng, out: Array, source: Array, outline: Array, *, is_shaded: bool) -> None:
    """Lays a piece of ``source`` onto ``out``, in place."""
    low = np.maximum(np.floor(outline.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, _SIDE)
    wide, tall = high - low
    if wide < 3 or tall < 3:
        return
    cover = np.zeros((tall, wide), np.uint8)
    cv2.fillPoly(cover, [np.round((outline - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    top, left = int(rng.integers(len(source) - tall)), int(rng.integers(len(source) - wide))
    piece = source[top : top + tall, left : left + wide] * np.float32(rng.uniform(0.75, 1.15))
    if is_shaded:
        slope = np.add.outer(np.linspace(-1, 1, tall), np.linspace(-1, 1, wide)) * rng.choice([-0.3, 0.3])
        piece = piece * (1 + slope[..., None]).astype(np.float32)
    share = (cover / np.float32(255))[..., None]
    below = out[low[1] : high[1], low[0] : high[0]]
    out[low[1] : high[1], low[0] : high[0]] = below * (1 - share) + piece * share


def _continued(rng: Rng) -> Array:
    """A small sample continued over the surface by overlapping, blended copies: grass, fur, cloth."""
    side = int(rng.integers(40, 110))
    sample = _piece(rng, 200, 60)
    ramp = np.clip(np.minimum(np.arange(side) + 1, side - np.arange(side)) / (side * 0.18), 0, 1) ** 2
    weight = (np.outer(ramp, ramp)[..., None] + 1e-4).astype(np.float32)
    out = np.zeros((_SIDE + side, _SIDE + side, 3), np.float32)
    total = np.zeros((_SIDE + side, _SIDE + side, 1), np.float32)
    for y in range(0, _SIDE, int(side * 0.7)):
        for x in range(0, _SIDE, int(side * 0.7)):
            top, left = int(rng.integers(200 - side)), int(rng.integers(200 - side))
            out[y : y + side, x : x + side] += sample[top : top + side, left : left + side] * weight
            total[y : y + side, x : x + side] += weight
    return (out / np.maximum(total, 1e-4))[:_SIDE, :_SIDE]


def _repeated(rng: Rng) -> Array:
    """One small square, repeated or mirrored: an exactly periodic pattern."""
    tile = _piece(rng, int(rng.integers(24, 100)))
    if rng.random() < 0.6:
        tile = np.vstack([np.hstack([tile, tile[:, ::-1]]), np.hstack([tile[::-1], tile[::-1, ::-1]])])
    times = _SIDE // len(tile) + 1
    return np.tile(tile, (times, times, 1))[:_SIDE, :_SIDE]


def _printed(rng: Rng) -> Array:
    """Lines of random words on uneven paper, at times light on dark."""
    stains = cv2.GaussianBlur(_piece(rng, _SIDE), (0, 0), 8) - 0.5
    paper = np.clip(rng.uniform(0.6, 1.0) + stains * rng.uniform(0, 0.25), 0, 1)
    size, plate = int(rng.integers(9, 34)), Image.new("L", (_SIDE, _SIDE), 0)
    pen, font = ImageDraw.Draw(plate), ImageFont.load_default(size)
    y = int(rng.integers(0, size))
    while y < _SIDE:
        words = ["".join(rng.choice(_LETTERS, int(rng.integers(1, 10)))) for _ in range(int(rng.integers(2, 16)))]
        if rng.random() > 0.08:
            pen.text((int(rng.integers(4, 30)), y), " ".join(words), fill=255, font=font)
        y += int(size * rng.uniform(1.15, 1.5))
    ink = cv2.GaussianBlur(np.asarray(plate, np.float32) / 255, (0, 0), rng.uniform(0.3, 1.0))[..., None]
    page = paper * (1 - ink) + rng.uniform(0, 0.35, 3) * rng.random() * ink
    return 1 - page if rng.random() < 0.15 else page


SURFACES: dict[str, tuple[Callable[[Rng], Array], float]] = {
    "courses": (_courses, 0.26),
    "scattered": (_scattered, 0.31),
    "continued": (_continued, 0.22),
    "repeated": (_repeated, 0.09),
    "printed": (_printed, 0.12),
}
"""How a surface is put together, and how often."""
