"""Twenty drawn material textures, each a function of a seeded generator.

:data:`MATERIALS` maps a category name to its function ``(rng) -> (S, S, 3)`` float32 RGB in about [0, 1]. Periods,
angles, colours and irregularity are drawn anew for every picture, so that two pictures of a category share only its
construction.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mmattn.drawing.fields import (
    SIZE,
    Array,
    Rng,
    cells,
    coordinates,
    fractal,
    mix,
    palette,
    square_wave,
    streaks,
    tint,
)

__all__ = ["MATERIALS", "plain"]


def plain(rng: Rng) -> Array:
    """Returns an even surface (S, S, 3) with a little grain, RGB in [0, 1]; a background, not a category."""
    colour = palette(rng, 1, 0.0)[0]
    return tint(np.broadcast_to(colour, (SIZE, SIZE, 3)), fractal(rng, 60, 5), rng.uniform(0.0, 0.25))


def _wood(rng: Rng) -> Array:
    u, v = coordinates(rng, wobble=rng.uniform(10, 50))
    warp = fractal(rng, 140, 3)
    rings = 0.5 + 0.5 * np.sin(u / rng.uniform(2, 8) + rng.uniform(3, 14) * warp + 0.01 * v)
    colours = palette(rng, 2, rng.uniform(0.15, 0.4))
    picture = mix(colours[0], colours[1], rings.astype(np.float32) ** rng.uniform(0.7, 2.5))
    return tint(tint(picture, streaks(rng, 31, 0.0), 0.1), fractal(rng, 12, 3), 0.2)


def _metal(rng: Rng) -> Array:
    colour = palette(rng, 1, 0.0)[0] * 0.6 + 0.25
    brush = streaks(rng, int(rng.integers(15, 60)), rng.uniform(0, np.pi))
    picture = tint(np.broadcast_to(colour, (SIZE, SIZE, 3)), brush, rng.uniform(0.1, 0.5))
    return tint(picture, fractal(rng, 200, 2), rng.uniform(0.1, 0.4))


def _fabric(rng: Rng) -> Array:
    u, v = coordinates(rng, wobble=rng.uniform(0, 10))
    period = rng.uniform(5, 13)
    warp = np.sin(2 * np.pi * u / period)
    weft = np.sin(2 * np.pi * v / (period * rng.uniform(0.8, 1.3)))
    over = (np.sign(warp * weft) * 0.5 + 0.5).astype(np.float32)
    height = np.where(over > 0.5, np.abs(warp), np.abs(weft)).astype(np.float32)
    colours = palette(rng, 2, rng.uniform(0.05, 0.3))
    picture = tint(mix(colours[0], colours[1], over), height, rng.uniform(0.3, 0.8))
    return tint(picture, fractal(rng, 10, 3), 0.15)


def _leather(rng: Rng) -> Array:
    grain = cells(rng, rng.uniform(6, 14))
    crease = np.clip(grain.edge / rng.uniform(1.5, 3.0), 0, 1)
    colour = palette(rng, 1, 0.0)[0]
    picture = np.broadcast_to(colour, (SIZE, SIZE, 3)) * (0.62 + 0.38 * crease)[..., None]
    return tint(tint(picture, cv2.GaussianBlur(grain.value, (0, 0), 1.0), 0.2), fractal(rng, 80, 4), 0.3)


def _tile(rng: Rng) -> Array:
    u, v = coordinates(rng)
    width = rng.uniform(34, 90)
    height = width * rng.uniform(0.5, 1.0)
    row = np.floor(v / height)
    u = (u + (row % 2) * width * 0.5 * (rng.random() < 0.5)).astype(np.float32)
    joint = np.maximum(square_wave(u, width, rng.uniform(0.04, 0.09)), square_wave(v, height, rng.uniform(0.05, 0.1)))
    column = np.floor(u / width + 0.5)
    shade = np.sin(column * 12.9898 + np.floor(v / height + 0.5) * 78.233) * 43758.5453
    shade = (shade - np.floor(shade)).astype(np.float32)
    colours = palette(rng, 2, 0.4)
    face = tint(np.broadcast_to(colours[0], (SIZE, SIZE, 3)), shade, rng.uniform(0.0, 0.3))
    face = tint(face, fractal(rng, 25, 4), rng.uniform(0.05, 0.3))
    return mix(face, colours[1], joint)


def _marble(rng: Rng) -> Array:
    u, _ = coordinates(rng)
    vein = np.abs(np.sin(u / rng.uniform(20, 50) + rng.uniform(4, 10) * fractal(rng, 110, 5)))
    colours = palette(rng, 3, 0.35)
    base = mix(colours[0], colours[1], fractal(rng, 70, 4))
    return mix(base, colours[2], (1 - vein.astype(np.float32)) ** rng.uniform(3, 8) * rng.uniform(0.5, 1))


def _grid(rng: Rng) -> Array:
    u, v = coordinates(rng, wobble=rng.uniform(0, 4))
    period, duty = rng.uniform(12, 30), rng.uniform(0.2, 0.4)
    shear = rng.uniform(-0.4, 0.4)
    first, second = square_wave(u + shear * v, period, duty), square_wave(v - shear * u, period, duty)
    colours = palette(rng, 2, 0.55)
    behind = tint(np.broadcast_to(colours[0], (SIZE, SIZE, 3)), fractal(rng, 90, 3), 0.25)
    picture = mix(behind, colours[1] * 0.85, first)
    return tint(mix(picture, colours[1], second), fractal(rng, 8, 2), 0.12)


def _perforated(rng: Rng) -> Array:
    u, v = coordinates(rng)
    period, radius = rng.uniform(13, 32), rng.uniform(0.22, 0.38)
    row = np.floor(v / (period * 0.866))
    x = ((u / period + 0.5 * (row % 2)) % 1 - 0.5) * period
    y = ((v / (period * 0.866)) % 1 - 0.5) * period * 0.866
    distance = np.sqrt(x * x + y * y).astype(np.float32) - radius * period
    colours = palette(rng, 2, 0.5)
    sheet = tint(np.broadcast_to(colours[0], (SIZE, SIZE, 3)), streaks(rng, 25, rng.uniform(0, np.pi)), 0.15)
    rim = np.exp(-((distance - 1) ** 2) / 2).astype(np.float32)
    return tint(mix(sheet, colours[1] * 0.5, np.clip(0.5 - distance, 0, 1)), 0.5 + rim / 2, 0.3)


def _concrete(rng: Rng) -> Array:
    colour = palette(rng, 1, 0.0)[0]
    picture = tint(np.broadcast_to(colour, (SIZE, SIZE, 3)), fractal(rng, 90, 6, 0.6), rng.uniform(0.3, 0.6))
    pores = np.clip((fractal(rng, 9, 2) - rng.uniform(0.72, 0.85)) * 10, 0, 1)
    return tint(picture, 0.5 - pores / 2, rng.uniform(0.2, 0.5))


def _carpet(rng: Rng) -> Array:
    colours = palette(rng, 3, rng.uniform(0.1, 0.3))
    pile = fractal(rng, rng.uniform(4, 7), 2)
    picture = mix(colours[0], colours[1], np.clip(fractal(rng, rng.uniform(5, 9), 2) * 2 - 0.5, 0, 1))
    fleck = np.clip((fractal(rng, 7, 2) - 0.68) * 8, 0, 1)
    return tint(mix(picture, colours[2], fleck), pile, rng.uniform(0.4, 0.9))


def _terrazzo(rng: Rng) -> Array:
    stone = cells(rng, rng.uniform(10, 22))
    colours = palette(rng, 4, 0.45)
    chosen = colours[1:][(stone.value * 2.999).astype(int)]
    shown = np.clip((stone.edge - rng.uniform(0.8, 2.0)) * 1.2, 0, 1) * (stone.label % 5 > rng.integers(0, 2))
    picture = mix(np.broadcast_to(colours[0], (SIZE, SIZE, 3)), chosen, shown.astype(np.float32))
    return tint(picture, fractal(rng, 10, 3), 0.12)


def _cork(rng: Rng) -> Array:
    crumb = cells(rng, rng.uniform(6, 13))
    colours = palette(rng, 2, 0.3)
    picture = mix(colours[0], colours[1], crumb.value)
    dark = np.clip((fractal(rng, 11, 2) - 0.75) * 9, 0, 1)
    return tint(tint(picture, np.clip(crumb.edge / 2, 0, 1), 0.35), 0.5 - dark / 2, 0.7)


def _knit(rng: Rng) -> Array:
    u, v = coordinates(rng, wobble=rng.uniform(0, 6))
    width = rng.uniform(10, 22)
    across = (u / width) % 1
    slant = np.abs(across - 0.5) * 2
    stitch = 0.5 + 0.5 * np.cos(2 * np.pi * (v / (width * 0.8) + 0.55 * slant))
    groove = 1 - np.exp(-((slant - 1) ** 2) / 0.02) - np.exp(-(slant**2) / 0.02)
    colours = palette(rng, 2, rng.uniform(0.0, 0.25))
    rows = np.floor(v / (width * 0.8 * int(rng.integers(2, 7)))) % 2
    picture = mix(colours[0], colours[1], rows.astype(np.float32))
    return tint(picture, np.clip(stitch * 0.7 + 0.3 * groove, 0, 1).astype(np.float32), rng.uniform(0.5, 0.9))


def _corrugated(rng: Rng) -> Array:
    u, _ = coordinates(rng, wobble=rng.uniform(0, 6))
    ridge = 0.5 + 0.5 * np.sin(2 * np.pi * u / rng.uniform(9, 30))
    colour = palette(rng, 1, 0.0)[0]
    picture = tint(np.broadcast_to(colour, (SIZE, SIZE, 3)), ridge.astype(np.float32), rng.uniform(0.4, 0.9))
    return tint(picture, fractal(rng, 50, 5), 0.2)


def _paper(rng: Rng) -> Array:
    colour = palette(rng, 1, 0.0)[0] * 0.5 + 0.45
    picture = tint(np.broadcast_to(colour, (SIZE, SIZE, 3)), fractal(rng, 5, 3, 0.8), rng.uniform(0.05, 0.25))
    fibre = streaks(rng, 9, rng.uniform(0, np.pi)) * streaks(rng, 9, rng.uniform(0, np.pi))
    return tint(picture, fibre, rng.uniform(0.05, 0.2))


def _foam(rng: Rng) -> Array:
    bubble = cells(rng, rng.uniform(7, 18), regular=0.3)
    wall = np.exp(-bubble.edge / rng.uniform(0.8, 2.2)).astype(np.float32)
    colours = palette(rng, 2, 0.35)
    picture = mix(colours[0], colours[1], wall)
    return tint(picture, bubble.value, rng.uniform(0.1, 0.4))


def _plaid(rng: Rng) -> Array:
    u, v = coordinates(rng, wobble=rng.uniform(0, 6))
    period = rng.uniform(30, 80)
    colours = palette(rng, 4, 0.4)
    picture = np.broadcast_to(colours[0], (SIZE, SIZE, 3)).astype(np.float32)
    for axis in (u, v):
        for colour in colours[1:3]:
            band = square_wave(axis + rng.uniform(0, period), period, rng.uniform(0.08, 0.4))
            picture = mix(picture, colour, band * 0.5)
    thread = 0.5 + 0.5 * np.sin(2 * np.pi * (u + v) / rng.uniform(3, 5))
    return tint(picture, thread.astype(np.float32), 0.25)


def _diamond(rng: Rng) -> Array:
    u, v = coordinates(rng)
    period = rng.uniform(20, 42)
    odd = (np.floor(u / period) + np.floor(v / period)) % 2
    x, y = (u / period) % 1 - 0.5, (v / period) % 1 - 0.5
    long, short = np.where(odd > 0, x + y, x - y), np.where(odd > 0, x - y, x + y)
    bump = np.clip(1 - (long / 0.62) ** 2 - (short / 0.2) ** 2, 0, 1).astype(np.float32)
    colour = palette(rng, 1, 0.0)[0]
    picture = tint(np.broadcast_to(colour, (SIZE, SIZE, 3)), fractal(rng, 40, 5), 0.25)
    light = cv2.Sobel(bump, cv2.CV_32F, 1, 0) * np.cos(rng.uniform(0, 6)) + cv2.Sobel(bump, cv2.CV_32F, 0, 1)
    return tint(picture, np.clip(0.5 + 0.8 * light + 0.25 * bump, 0, 1), rng.uniform(0.5, 0.9))


def _print(rng: Rng) -> Array:
    u, v = coordinates(rng)
    period = rng.uniform(14, 40)
    x, y = (u / period) % 1 - 0.5, (v / period) % 1 - 0.5
    sharp = rng.choice([0.7, 1.0, 2.0, 4.0])
    motif = (np.abs(x) ** sharp + np.abs(y) ** sharp) ** (1 / sharp) - rng.uniform(0.18, 0.34)
    ring = np.abs(motif) - rng.uniform(0.05, 0.12) if rng.random() < 0.4 else motif
    colours = palette(rng, 2, rng.uniform(0.25, 0.6))
    picture = mix(colours[0], colours[1], np.clip(0.5 - ring * period, 0, 1).astype(np.float32))
    return tint(picture, fractal(rng, 30, 5), 0.15)


def _collage(rng: Rng) -> Array:
    count = int(rng.integers(60, 220))
    colours = palette(rng, count, rng.uniform(0.3, 0.6))
    picture = np.broadcast_to(colours[0], (SIZE, SIZE, 3)).copy()
    largest = rng.uniform(15, 70)
    sides = int(rng.choice([3, 4, 6, 24]))
    for colour in colours:
        radius = largest * rng.uniform(0.08, 1) ** 1.5
        angles = np.sort(rng.uniform(0, 2 * np.pi, sides)) if sides < 24 else np.linspace(0, 2 * np.pi, sides)
        outline = rng.uniform(0, SIZE, 2) + radius * np.stack(
            [np.cos(angles), np.sin(angles) * rng.uniform(0.4, 1)], -1
        )
        cv2.fillPoly(picture, [np.round(outline * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, 4)
    return tint(tint(picture, fractal(rng, 6, 3), 0.2), fractal(rng, 80, 3), 0.3)


MATERIALS: dict[str, Callable[[Rng], Array]] = {
    "wood": _wood,
    "metal": _metal,
    "fabric": _fabric,
    "leather": _leather,
    "tile": _tile,
    "marble": _marble,
    "grid": _grid,
    "perforated": _perforated,
    "concrete": _concrete,
    "carpet": _carpet,
    "terrazzo": _terrazzo,
    "cork": _cork,
    "knit": _knit,
    "corrugated": _corrugated,
    "paper": _paper,
    "foam": _foam,
    "plaid": _plaid,
    "diamond": _diamond,
    "print": _print,
    "collage": _collage,
}
