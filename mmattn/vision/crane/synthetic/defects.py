"""Twelve drawn defects: seven for training, five that only tests show.

A defect is a function ``(rng, scene, area) -> Damage`` that changes the clean picture, before light and camera, over
about ``area`` pixels. :data:`SEEN` and :data:`UNSEEN` map names to functions; the split never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.drawing.fields import SIZE, Array, Rng, fractal, mix, palette

__all__ = ["SEEN", "UNSEEN", "Damage", "Scene"]


class Scene(NamedTuple):
    """A clean drawing.

    Attributes:
        picture: RGB, (S, S, 3) float32.
        region: Where a defect may begin: the object, or the whole of a material, bool (S, S).
        is_object: Whether the region has an outline that a defect can break.
    """

    picture: Array
    region: npt.NDArray[np.bool_]
    is_object: bool


class Damage(NamedTuple):
    """A damaged twin: the picture (S, S, 3) and the share of each pixel that belongs to the defect, (S, S)."""

    picture: Array
    extent: Array


def _centre(rng: Rng, scene: Scene, on_outline: bool = False) -> npt.NDArray[np.float64]:
    """Draws a pixel (x, y) of the region, or of its outline."""
    field = scene.region
    if on_outline:
        inner = cv2.erode(field.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        field = field & ~inner
    else:
        inner = cv2.erode(field.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        field = inner if inner.any() else field
    rows, columns = np.nonzero(field)
    pick = int(rng.integers(len(rows)))
    return np.array([columns[pick], rows[pick]], np.float64)


def _fill(points: npt.NDArray[np.float64]) -> Array:
    """Returns the antialiased inside of a polygon of pixels (n, 2), as (S, S)."""
    extent = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(extent, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return extent


def _blob(rng: Rng, centre: npt.NDArray[np.float64], area: float, rough: float = 0.25, slim: float = 2.5) -> Array:
    """Returns an irregular filled outline of about ``area`` pixels, (S, S)."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones(48)
    for order in range(2, 7):
        radius += rough / order * 1.5 * rng.normal() * np.cos(order * angle + rng.uniform(0, 6.3))
    radius = np.clip(radius, 0.3, 2) * np.sqrt(area / np.pi)
    stretch, turn = np.sqrt(rng.uniform(1, slim)), rng.uniform(0, np.pi)
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    points = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y], -1)
    return _fill(points + centre)


def _path(rng: Rng, start: npt.NDArray[np.float64], length: float, bend: float, width: float) -> Array:
    """Returns a bent stroke, (S, S): ``bend`` is the spread of its turning, in radians per step of 3 pixels."""
    steps = max(int(length / 3), 2)
    heading = (
        rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps)) + np.linspace(0, rng.normal(0, 0.8), steps)
    )
    track = start + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], -1) * 3, 0)
    track -= (track.mean(0) - start) * rng.uniform(0, 1)
    extent = np.zeros((SIZE, SIZE), np.float32)
    thickness = max(round(width), 1)
    cv2.polylines(extent, [np.round(track * 16).astype(np.int32)], False, 1.0, thickness, cv2.LINE_AA, 4)
    return extent


def _toward(rng: Rng, scene: Scene, extent: Array, low: float = 0.2, high: float = 0.6) -> float:
    """Draws a change of brightness that stays visible on what lies below: darker on bright, mostly."""
    below = float(scene.picture[extent > 0.3].mean()) if (extent > 0.3).any() else 0.5
    sign = -1 if rng.random() < np.clip(below * 1.4 - 0.1, 0.05, 0.95) else 1
    return sign * rng.uniform(low, high)


def _scratch(rng: Rng, scene: Scene, area: float) -> Damage:
    strokes = int(rng.integers(1, 4)) if area > 250 else 1
    width = rng.uniform(1, 2 + area / 900)
    extent = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(strokes):
        stroke = _path(rng, _centre(rng, scene), area / strokes / width, 0.04, width)
        extent = np.maximum(extent, stroke)
    extent *= scene.region
    return Damage(scene.picture + (extent * _toward(rng, scene, extent))[..., None], extent)


def _crack(rng: Rng, scene: Scene, area: float) -> Damage:
    width = rng.uniform(1.0, 2.2 + area / 1500)
    start = _centre(rng, scene)
    extent = _path(rng, start, 0.6 * area / width, 0.45, width)
    for _ in range(int(rng.integers(1, 4))):
        rows, columns = np.nonzero(extent > 0.5)
        if len(rows):
            pick = int(rng.integers(len(rows)))
            fork = np.array([columns[pick], rows[pick]], np.float64)
            extent = np.maximum(extent, _path(rng, fork, 0.2 * area / width, 0.5, max(width - 1, 1)))
    extent *= scene.region
    dark = rng.uniform(0.05, 0.5)
    return Damage(mix(scene.picture, scene.picture * dark, extent), extent)


def _stain(rng: Rng, scene: Scene, area: float) -> Damage:
    soft = _blob(rng, _centre(rng, scene), area, 0.3)
    extent = cv2.GaussianBlur(soft, (0, 0), min(rng.uniform(0.6, 3.0), np.sqrt(area) / 8))
    extent *= scene.region
    strength: Array = np.full((SIZE, SIZE), rng.uniform(0.35, 0.9), np.float32)
    if rng.random() < 0.5:
        strength = strength * (0.5 + 0.5 * fractal(rng, rng.uniform(5, 25), 3))
    colour = palette(rng, 1)[0] * rng.uniform(0.3, 1.0)
    multiply = rng.random() < 0.5
    target = scene.picture * (0.3 + 0.7 * colour) if multiply else np.broadcast_to(colour, scene.picture.shape)
    return Damage(mix(scene.picture, target.astype(np.float32), extent * strength), extent)


def _dent(rng: Rng, scene: Scene, area: float) -> Damage:
    extent = _blob(rng, _centre(rng, scene), area, 0.1, 1.8) * scene.region
    depth = cv2.GaussianBlur(extent, (0, 0), max(np.sqrt(area) / 6, 0.8))
    gx, gy = cv2.Sobel(depth, cv2.CV_32F, 1, 0), cv2.Sobel(depth, cv2.CV_32F, 0, 1)
    peak = float(np.hypot(gx, gy).max()) + 1e-6
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    pull = rng.uniform(2, 7) / peak
    moved = cv2.remap(scene.picture, x + pull * gx, y + pull * gy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * gx + np.sin(angle) * gy) / peak
    lit = moved * (1 + rng.uniform(0.4, 1.1) * slope)[..., None]
    return Damage(
        mix(scene.picture, lit.astype(np.float32), np.clip(depth * 3, 0, 1)), (depth > 0.3).astype(np.float32)
    )


def _missing(rng: Rng, scene: Scene, area: float) -> Damage:
    if scene.is_object:
        extent = _blob(rng, _centre(rng, scene, on_outline=True), area * 1.8, 0.3) * scene.region
        behind = _surroundings(scene)
        return Damage(mix(scene.picture, behind, extent), extent)
    extent = _blob(rng, _centre(rng, scene), area, 0.45)
    pit = np.broadcast_to(palette(rng, 1)[0] * 0.4 + scene.picture.mean((0, 1)) * 0.5, scene.picture.shape)
    pit = pit * (0.8 + 0.4 * fractal(rng, 8, 3))[..., None]
    return Damage(mix(scene.picture, pit.astype(np.float32), extent), extent)


def _surroundings(scene: Scene) -> Array:
    """Continues the background over the object: each pixel takes the nearest one outside, slightly smoothed."""
    inside = cv2.dilate(scene.region.astype(np.uint8), np.ones((7, 7), np.uint8))
    _, label = cv2.distanceTransformWithLabels(inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    outside = inside == 0
    order = np.zeros(int(label.max()) + 1, np.int64)
    order[label[outside]] = np.flatnonzero(outside)
    spread = scene.picture.reshape(-1, 3)[order[label]]
    return cv2.GaussianBlur(spread, (0, 0), 1.5).astype(np.float32)


def _contamination(rng: Rng, scene: Scene, area: float) -> Damage:
    colour = palette(rng, 1)[0]
    if rng.random() < 0.35:
        width = rng.uniform(1, 2.5)
        extent = _path(rng, _centre(rng, scene), area / width, 0.3, width)
    else:
        pieces = int(rng.integers(1, 8))
        shares = rng.dirichlet(np.ones(pieces) * 2) * area
        middle, spread = _centre(rng, scene), np.sqrt(area) * rng.uniform(0.5, 2)
        extent = np.zeros((SIZE, SIZE), np.float32)
        for share in shares:
            extent = np.maximum(extent, _blob(rng, middle + rng.normal(0, spread, 2), max(share, 6), 0.3))
    grainy = colour * (0.7 + 0.6 * fractal(rng, 6, 2))[..., None]
    return Damage(mix(scene.picture, grainy.astype(np.float32), extent * rng.uniform(0.7, 1.0)), extent)


def _irregular(rng: Rng, scene: Scene, area: float) -> Damage:
    extent = _blob(rng, _centre(rng, scene), area, 0.2) * scene.region
    source = _centre(rng, scene)
    turn: Array = cv2.getRotationMatrix2D(tuple(source), rng.uniform(40, 320), rng.uniform(0.6, 1.7))
    rows, columns = np.nonzero(extent > 0.3)
    goal = np.array([columns.mean(), rows.mean()]) if len(rows) else source
    turn[:, 2] += goal - source
    patch = cv2.warpAffine(scene.picture, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    return Damage(mix(scene.picture, patch, extent), extent)


def _hole(rng: Rng, scene: Scene, area: float) -> Damage:
    centre = _centre(rng, scene)
    ratio, angle = np.sqrt(rng.uniform(0.6, 1.0)), rng.uniform(0, np.pi)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.sqrt(area / np.pi)
    ring = np.stack([np.cos(t) / ratio, np.sin(t) * ratio], -1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    extent = _fill(centre + radius * ring @ turn) * scene.region
    inner = _fill(centre + max(radius - 1.6, 1) * ring @ turn) * scene.region
    rim = np.clip(scene.picture * rng.uniform(1.2, 1.6) + 0.05, 0, 1).astype(np.float32)
    inside = np.broadcast_to(palette(rng, 1)[0] * rng.uniform(0.05, 0.45), scene.picture.shape).astype(np.float32)
    return Damage(mix(mix(scene.picture, rim, extent), inside, inner), extent)


def _cut(rng: Rng, scene: Scene, area: float) -> Damage:
    centre, angle = _centre(rng, scene), rng.uniform(0, np.pi)
    length = np.sqrt(area * rng.uniform(7, 14))
    width = area * 1.5 / length
    t = np.linspace(-1, 1, 24)
    bow = rng.uniform(-0.1, 0.1) * length * (1 - t**2)
    upper, lower = bow + width / 2 * (1 - t**2), bow - width / 2 * (1 - t**2)
    lens = np.concatenate([np.stack([t * length / 2, upper], -1), np.stack([t * length / 2, lower], -1)[::-1]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slit = _fill(centre + lens @ turn) * scene.region
    edge = _fill(centre + (lens + np.array([0, 1.2])) @ turn) * scene.region
    lit = np.clip(scene.picture * 1.5 + 0.1, 0, 1).astype(np.float32)
    opened = mix(mix(scene.picture, lit, edge), scene.picture * rng.uniform(0.1, 0.4), slit)
    return Damage(opened, np.maximum(slit, edge))


def _fade(rng: Rng, scene: Scene, area: float) -> Damage:
    extent = cv2.GaussianBlur(_blob(rng, _centre(rng, scene), area, 0.15), (0, 0), np.sqrt(area) / 12) * scene.region
    pale = cv2.blur(scene.picture, (15, 15)).mean(-1, keepdims=True) * 0.5 + rng.uniform(0.2, 0.45)
    target = np.broadcast_to(pale, scene.picture.shape).astype(np.float32)
    return Damage(mix(scene.picture, target, extent * rng.uniform(0.6, 0.95)), extent)


def _misprint(rng: Rng, scene: Scene, area: float) -> Damage:
    letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVXZ"), int(rng.integers(1, 4))))
    plate = np.zeros((SIZE, SIZE), np.uint8)
    scale = np.sqrt(area / len(letters)) / 13.0
    width, height = cv2.getTextSize(letters, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0]
    stroke = max(round(scale * 3), 1)
    origin = (SIZE // 2 - width // 2, SIZE // 2 + height // 2)
    cv2.putText(plate, letters, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, stroke, cv2.LINE_AA)
    turn: Array = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), rng.uniform(0, 360), 1.0)
    turn[:, 2] += _centre(rng, scene) - SIZE / 2
    ink = cv2.warpAffine(plate, turn, (SIZE, SIZE)).astype(np.float32) / 255 * scene.region
    below = float(scene.picture[ink > 0.3].mean()) if (ink > 0.3).any() else 0.5
    colour = palette(rng, 1)[0] * (0.35 if below > 0.4 else 0.4) + (0.0 if below > 0.4 else 0.55)
    return Damage(mix(scene.picture, colour, ink), ink)


def _deformation(rng: Rng, scene: Scene, area: float) -> Damage:
    centre, radius = _centre(rng, scene, on_outline=scene.is_object), np.sqrt(area / np.pi) * 1.15
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    distance = np.sqrt(dx * dx + dy * dy) / radius
    inside = np.clip(1 - distance, 0, 1)
    if rng.random() < 0.5:
        swirl = (rng.choice([-1, 1]) * rng.uniform(2.0, 4.5)) * inside
        cos, sin = np.cos(swirl), np.sin(swirl)
        from_x, from_y = centre[0] + cos * dx - sin * dy, centre[1] + sin * dx + cos * dy
    else:
        push = 1 + rng.uniform(1.0, 2.5) * inside if rng.random() < 0.5 else 1 - rng.uniform(0.55, 0.85) * inside
        from_x, from_y = centre[0] + dx * push, centre[1] + dy * push
    warped = cv2.remap(
        scene.picture,
        from_x.astype(np.float32),
        from_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return Damage(warped, (distance < 0.9).astype(np.float32))


SEEN: dict[str, Callable[[Rng, Scene, float], Damage]] = {
    "scratch": _scratch,
    "crack": _crack,
    "stain": _stain,
    "dent": _dent,
    "missing": _missing,
    "contamination": _contamination,
    "irregular": _irregular,
}
"""Defects of both training stages."""

UNSEEN: dict[str, Callable[[Rng, Scene, float], Damage]] = {
    "hole": _hole,
    "cut": _cut,
    "fade": _fade,
    "misprint": _misprint,
    "deformation": _deformation,
}
"""Defects that only the tests draw."""
