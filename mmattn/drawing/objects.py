"""Eighteen drawn objects and a scene made of several, each a function of a seeded generator.

:data:`OBJECTS` maps a category name to its function ``(canvas, rng, background)``, which draws on the canvas; lengths
are in the object's frame, which reaches from -1 to 1. :func:`draw_object` adds background, shading and shadow.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mmattn.drawing.canvas import Canvas, circle, rectangle
from mmattn.drawing.fields import SIZE, Array, Rng, palette
from mmattn.drawing.materials import MATERIALS, plain

__all__ = ["BACKGROUNDS", "OBJECTS", "draw_object"]

SCENE_PARTS = (
    "washer",
    "pill",
    "board",
    "gasket",
    "button",
    "coin",
    "bracket",
    "bearing",
    "blister",
    "spring",
    "label",
)
"""Objects that a "scene" is put together from; all belong to the first training stage."""

BACKGROUNDS = ("paper", "concrete", "metal", "wood", "fabric", "corrugated", "collage")
"""Materials an object may lie on; all belong to the first training stage."""


def _washer(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0]
    canvas.fill(circle(0, 0, 0.9), colour)
    canvas.stroke(circle(0, 0, rng.uniform(0.7, 0.82)), 0.02, colour * 0.85, closed=True)
    canvas.open(circle(0, 0, rng.uniform(0.3, 0.6)), background)


def _gear(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 2, 0.2)
    teeth, depth = int(rng.integers(9, 22)), rng.uniform(0.12, 0.22)
    phase = np.linspace(0, 2 * np.pi, teeth * 4, endpoint=False)
    radius = np.where(np.arange(teeth * 4) % 4 < 2, 0.97, 0.97 - depth)
    canvas.fill(np.stack([radius * np.cos(phase), radius * np.sin(phase)], -1), colours[0])
    canvas.stroke(circle(0, 0, rng.uniform(0.5, 0.65)), 0.04, colours[1], closed=True)
    holes = int(rng.choice([0, 4, 5, 6]))
    for angle in np.arange(holes) * 2 * np.pi / max(holes, 1):
        canvas.open(circle(0.42 * np.cos(angle), 0.42 * np.sin(angle), 0.09), background)
    canvas.open(circle(0, 0, rng.uniform(0.14, 0.25)), background)


def _pill(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0] * 0.5 + 0.45
    canvas.fill(circle(0, 0, 0.85), colour)
    canvas.stroke(circle(0, 0, 0.72), 0.03, colour * 0.9, closed=True)
    if rng.random() < 0.6:
        canvas.stroke(np.array([[-0.7, 0.0], [0.7, 0.0]]), 0.06, colour * 0.75)
    else:
        canvas.text([str(int(rng.integers(10, 99)))], 0.4, colour * 0.7)


def _capsule(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 2, 0.4)
    height = rng.uniform(0.5, 0.7)
    outline = rectangle(0, 0, 1.9, height, height / 2)
    canvas.fill(outline, colours[0])
    canvas.fill(np.stack([np.minimum(outline[:, 0], 0.0), outline[:, 1]], -1), colours[1], detail=True)
    canvas.stroke(np.array([[0.0, -height / 2], [0.0, height / 2]]), 0.03, colours[1] * 0.7)
    canvas.stroke(np.array([[-0.65, -height / 4], [0.65, -height / 4]]), 0.05, colours.mean(0) * 0.4 + 0.6)


def _bottlecap(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 3, 0.3)
    angle = np.linspace(0, 2 * np.pi, 168, endpoint=False)
    radius = 0.92 + 0.05 * np.sin(21 * angle)
    canvas.fill(np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1), colours[0])
    canvas.fill(circle(0, 0, 0.72), colours[1], detail=True)
    canvas.fill(circle(0, 0, 0.3, int(rng.integers(3, 7))), colours[2], detail=True)


def _screw(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0]
    width = rng.uniform(0.2, 0.32)
    canvas.fill(
        np.array([[-0.5, -width / 2], [0.75, -width / 2], [0.98, 0], [0.75, width / 2], [-0.5, width / 2]]), colour
    )
    for x in np.arange(-0.3, 0.76, rng.uniform(0.07, 0.12)):
        canvas.stroke(np.array([[x, -width * 0.62], [x + 0.06, width * 0.62]]), 0.035, colour * 0.6, detail=False)
    canvas.fill(rectangle(-0.7, 0, 0.4, width * 2.6, 0.08), colour * 1.05)
    canvas.stroke(np.array([[-0.7, -width * 0.9], [-0.7, width * 0.9]]), 0.05, colour * 0.5)


def _board(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 4, 0.5)
    canvas.fill(rectangle(0, 0, 1.9, 1.4, 0.06), colours[0])
    for _ in range(int(rng.integers(4, 10))):
        x, y = rng.uniform(-0.8, 0.8), rng.uniform(-0.55, 0.55)
        path = np.array([[x, y], [x + rng.uniform(-0.6, 0.6), y], [x + rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6)]])
        canvas.stroke(np.clip(path, -0.85, 0.85) * [1, 0.72], 0.025, colours[1])
    for x in np.arange(-0.7, 0.8, 0.35):
        for y in (-0.35, 0.3):
            if rng.random() < 0.7:
                canvas.fill(rectangle(x, y, rng.uniform(0.12, 0.28), rng.uniform(0.1, 0.3)), colours[2], detail=True)
    for x, y in ((-0.85, -0.6), (0.85, -0.6), (-0.85, 0.6), (0.85, 0.6)):
        canvas.open(circle(x, y, 0.05), background)


def _connector(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 3, 0.4)
    pins, rows = int(rng.integers(4, 9)), int(rng.integers(1, 3))
    canvas.fill(rectangle(0, 0, 1.8, 0.5 + 0.35 * rows, 0.06), colours[0])
    canvas.fill(rectangle(0, 0, 1.6, 0.3 + 0.35 * rows, 0.04), colours[1], detail=True)
    step = 1.4 / (pins - 1)
    for pin in range(pins):
        for row in range(rows):
            y = (row - (rows - 1) / 2) * 0.35
            canvas.fill(rectangle(-0.7 + step * pin, y, step * 0.5, 0.2), colours[2], detail=True)


def _gasket(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0] * 0.7
    outer, ring = rng.uniform(1.2, 1.7), rng.uniform(0.14, 0.3)
    canvas.fill(rectangle(0, 0, 1.8, outer, 0.3), colour)
    canvas.open(rectangle(0, 0, 1.8 - 2 * ring, outer - 2 * ring, 0.18), background)
    for x in (-0.9 + ring / 2, 0.9 - ring / 2):
        canvas.open(circle(x, 0, ring * 0.22), background)


def _nut(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0]
    canvas.fill(circle(0, 0, 0.92, 6), colour)
    canvas.stroke(circle(0, 0, 0.72), 0.03, colour * 0.8, closed=True)
    radius = rng.uniform(0.36, 0.5)
    canvas.fill(circle(0, 0, radius + 0.08), colour * 0.7, detail=True)
    canvas.open(circle(0, 0, radius), background)


def _button(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0]
    canvas.fill(circle(0, 0, 0.88), colour)
    canvas.stroke(circle(0, 0, 0.68), 0.08, colour * 0.8, closed=True)
    holes = int(rng.choice([2, 4]))
    for angle in np.arange(holes) * 2 * np.pi / holes + np.pi / 4:
        canvas.open(circle(0.22 * np.cos(angle), 0.22 * np.sin(angle), 0.09), background)


def _chip(canvas: Canvas, rng: Rng, background: Array) -> None:
    body, pins = palette(rng, 1)[0] * 0.4, palette(rng, 1)[0] * 0.4 + 0.5
    count = int(rng.integers(5, 11))
    for x in np.linspace(-0.75, 0.75, count):
        for side in (-1, 1):
            canvas.fill(rectangle(x, side * 0.68, 0.8 / count, 0.34), pins)
    canvas.fill(rectangle(0, 0, 1.8, 1.1, 0.03), body)
    canvas.fill(circle(-0.72, 0.35, 0.07), body * 0.5, detail=True)
    canvas.text([f"MX{rng.integers(100, 999)}", f"{rng.integers(1000, 9999)}"], 0.38, body + 0.35)


def _coin(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0] * 0.8 + 0.1
    canvas.fill(circle(0, 0, 0.92), colour)
    canvas.stroke(circle(0, 0, 0.8), 0.05, colour * 1.2, closed=True)
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(12, 40)), endpoint=False):
        canvas.fill(circle(0.68 * np.cos(angle), 0.68 * np.sin(angle), 0.025, 8), colour * 0.75, detail=True)
    canvas.text([str(int(rng.integers(1, 100)))], rng.uniform(0.35, 0.55), colour * 0.7)


def _bracket(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0]
    arm = rng.uniform(0.4, 0.7)
    outline = np.array(
        [[-0.9, -0.9], [0.9, -0.9], [0.9, -0.9 + arm], [-0.9 + arm, -0.9 + arm], [-0.9 + arm, 0.9], [-0.9, 0.9]]
    )
    canvas.fill(outline, colour)
    canvas.stroke(np.array([[-0.85, -0.85], [-0.9 + arm, -0.9 + arm]]), 0.03, colour * 0.8)
    for x, y in ((0.6, -0.9 + arm / 2), (-0.9 + arm / 2, 0.6), (0.1, -0.9 + arm / 2)):
        canvas.open(circle(x, y, arm * 0.2), background)


def _bearing(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 3, 0.4)
    for radius, colour in ((0.94, colours[0]), (0.74, colours[1] * 0.6), (0.5, colours[0])):
        canvas.fill(circle(0, 0, radius), colour, detail=radius < 0.9)
    count = int(rng.integers(7, 13))
    for angle in np.arange(count) * 2 * np.pi / count:
        canvas.fill(circle(0.62 * np.cos(angle), 0.62 * np.sin(angle), 0.1), colours[2], detail=True)
    canvas.open(circle(0, 0, rng.uniform(0.28, 0.4)), background)


def _blister(canvas: Canvas, rng: Rng, background: Array) -> None:
    colours = palette(rng, 2, 0.45)
    columns, rows = int(rng.integers(3, 6)), int(rng.integers(2, 4))
    canvas.fill(rectangle(0, 0, 1.9, 1.9 * rows / columns, 0.08), colours[0])
    step = 1.9 / columns
    for column in range(columns):
        for row in range(rows):
            x, y = (column - (columns - 1) / 2) * step, (row - (rows - 1) / 2) * step
            canvas.fill(circle(x, y, step * 0.37), colours[0] * 0.8, detail=True)
            canvas.fill(circle(x, y, step * 0.3), colours[1], detail=True)


def _spring(canvas: Canvas, rng: Rng, background: Array) -> None:
    colour = palette(rng, 1)[0]
    turns, height = int(rng.integers(6, 13)), rng.uniform(0.3, 0.5)
    t = np.linspace(0, 2 * np.pi * turns, turns * 24)
    x = np.linspace(-0.9, 0.9, len(t)) + 0.07 * np.cos(t)
    width = rng.uniform(0.06, 0.1)
    canvas.stroke(np.stack([x, height * np.sin(t)], -1), width, colour * 0.7, detail=False)
    for start in range(0, len(t), 24):
        front = slice(start + 6, start + 19)
        canvas.stroke(np.stack([x[front], height * np.sin(t[front])], -1), width, colour * 1.1, detail=False)


def _label(canvas: Canvas, rng: Rng, background: Array) -> None:
    paper, ink = palette(rng, 1)[0] * 0.35 + 0.6, palette(rng, 1)[0] * 0.35
    canvas.fill(rectangle(0, 0, 1.9, 1.3, 0.08), paper)
    letters = "ABCDEFGHKLMNPRSTUVXZ"
    canvas.text(["".join(rng.choice(list(letters), 6)), f"{rng.integers(10000, 99999)}"], 0.4, ink)
    x = -0.75
    while x < 0.7:
        width = rng.choice([0.02, 0.04, 0.06])
        canvas.fill(rectangle(x, 0.42, width, 0.25), ink, detail=True)
        x += width + rng.choice([0.02, 0.04])


OBJECTS: dict[str, Callable[[Canvas, Rng, Array], None]] = {
    "washer": _washer,
    "gear": _gear,
    "pill": _pill,
    "capsule": _capsule,
    "bottlecap": _bottlecap,
    "screw": _screw,
    "board": _board,
    "connector": _connector,
    "gasket": _gasket,
    "nut": _nut,
    "button": _button,
    "chip": _chip,
    "coin": _coin,
    "bracket": _bracket,
    "bearing": _bearing,
    "blister": _blister,
    "spring": _spring,
    "label": _label,
}


def _background(rng: Rng) -> Array:
    """Draws what an object lies on: an even surface, a material, or a blurred clutter."""
    kind = rng.random()
    if kind < 0.45:
        return plain(rng)
    name = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    picture = MATERIALS[name](rng)
    calm = plain(rng)[0, 0]
    picture = (calm + (picture - calm) * rng.uniform(0.25, 0.7)).astype(np.float32)
    return (
        cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 6.0)) if name == "collage" or rng.random() < 0.3 else picture
    )


def _scene(canvas: Canvas, rng: Rng, background: Array) -> None:
    """Several small objects at different depths: flawless pictures, too, hold things that occur only once."""
    for _ in range(int(rng.integers(2, 6))):
        name = SCENE_PARTS[int(rng.integers(len(SCENE_PARTS)))]
        part = Canvas(rng, background)
        OBJECTS[name](part, rng, background)
        part.shade(rng, rng.uniform(0.1, 0.8), rng.uniform(0.03, 0.3), background)
        scale = rng.uniform(0.3, 0.75)
        move = np.array([[scale, 0, 0], [0, scale, 0]]) + [[0, 0, rng.uniform(-0.1, 1.1 - scale) * SIZE] for _ in "xy"]
        picture = cv2.warpAffine(part.picture, move, (SIZE, SIZE), flags=cv2.INTER_AREA)
        mask = cv2.warpAffine(part.mask, move, (SIZE, SIZE), flags=cv2.INTER_AREA)
        if rng.random() < 0.4:
            focus = rng.uniform(0.8, 3.0)
            picture, mask = cv2.GaussianBlur(picture, (0, 0), focus), cv2.GaussianBlur(mask, (0, 0), focus)
        canvas.picture += (picture - canvas.picture) * mask[..., None]
        canvas.mask = np.maximum(canvas.mask, mask)


OBJECTS["scene"] = _scene


def draw_object(name: str, rng: Rng) -> tuple[Array, Array]:
    """Draws one object on a background.

    Returns:
        Picture (S, S, 3) float32 RGB in about [0, 1] and the object's mask (S, S) float32 in [0, 1].
    """
    background = _background(rng)
    canvas = Canvas(rng, background)
    OBJECTS[name](canvas, rng, background)
    inside = canvas.mask > 0.5
    difference = canvas.picture[inside].mean() - background[~inside].mean()
    if abs(difference) < 0.15:
        background = np.clip(background + (-0.25 if background.mean() > 0.45 else 0.25), 0.02, 0.98)
        hole = (1 - canvas.mask)[..., None]
        canvas.picture = (canvas.picture * (1 - hole) + background * hole).astype(np.float32)
    canvas.shade(rng, rng.uniform(0.1, 0.8), rng.uniform(0.03, 0.3), background)
    return canvas.picture, canvas.mask.reshape(SIZE, SIZE)
