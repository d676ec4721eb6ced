"""What road users and buildings look like: each is a few boxes whose visible faces are filled polygons.

The faces of a solid are found for all frames of a clip at once; drawing a frame then only fills polygons from far to
near. Lamps are small faces of their own, at the rear and the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.video.crash.synthetic.world.camera import Camera
from mmattn.video.crash.synthetic.world.physics import FRAMES, Agent, Array, Size

__all__ = ["Part", "Solid", "fill_polygon", "near_clip", "parts_of", "solid"]

Rng = np.random.Generator
Picture = npt.NDArray[np.uint8]

_SHIFT = 4
_NEAR = 0.4
# Corner numbers: bit 0 front, bit 1 right, bit 2 top.
_FACES = ((0, 2, 6, 4), (1, 3, 7, 5), (0, 1, 5, 4), (2, 3, 7, 6), (4, 5, 7, 6))
_REAR, _FRONT, _LEFT, _RIGHT, _TOP = range(5)
_SHADES = (0.92, 0.9, 0.72, 0.78, 1.06)


@dataclass(frozen=True)
class Part:
    """A box of a road user, in shares of its length and width around the middle and metres of height.

    Attributes:
        along: From and to, -0.5 is the rear.
        across: From and to, -0.5 is the left.
        up: From and to, metres.
        colour: RGB, 0 to 255.
        only: The one face that is drawn, or None for all.
        glow: "brake", "head" or "" for what does not shine.
    """

    along: tuple[float, float]
    across: tuple[float, float]
    up: tuple[float, float]
    colour: tuple[float, float, float]
    only: int | None = None
    glow: str = ""


@dataclass(frozen=True)
class Solid:
    """A box in all frames.

    Attributes:
        points: Right, up, forward of its corners, (FRAMES, 8, 3).
        facing: Which of the five faces can be seen, (FRAMES, 5).
        part: What it is a part of.
    """

    points: Array
    facing: npt.NDArray[np.bool_]
    part: Part


def parts_of(agent: Agent, rng: Rng) -> list[Part]:
    """Draws the looks of a road user."""
    if agent.kind == "pedestrian":
        return person(rng, agent.size.height)
    if agent.kind == "two_wheeler":
        return two_wheeler(rng, agent.size)
    height = agent.size.height
    paint = paint_of(rng)
    dark = (38.0, 40.0, 44.0)
    parts = [Part((-0.49, 0.49), (-0.46, 0.46), (0.05, 0.32), dark)]
    if agent.kind == "car":
        parts.append(Part((-0.5, 0.5), (-0.5, 0.5), (0.25, 0.58 * height), paint))
        glass = tuple(rng.uniform(30, 70) + np.array([0.0, 4.0, 10.0]))
        parts.append(Part((-0.42, 0.2), (-0.44, 0.44), (0.56 * height, 0.93 * height), (glass[0], glass[1], glass[2])))
        parts.append(Part((-0.36, 0.14), (-0.42, 0.42), (0.93 * height, height), paint))
        lamp_up = (0.4 * height, 0.53 * height)
    else:
        cab = rng.uniform(0.24, 0.34)
        parts.append(Part((-0.5, 0.5 - cab), (-0.5, 0.5), (0.7, height), paint))
        parts.append(Part((0.5 - cab, 0.5), (-0.48, 0.48), (0.4, 0.8 * height), paint_of(rng)))
        parts.append(Part((0.5 - cab / 2, 0.501), (-0.44, 0.44), (0.5 * height, 0.75 * height), dark))
        lamp_up = (0.75, 1.1)
    for low, high in ((-0.49, -0.27), (0.27, 0.49)):
        parts.append(Part((-0.503, -0.5), (low, high), lamp_up, (105.0, 14.0, 16.0), _REAR, "brake"))
        parts.append(Part((0.5, 0.503), (low, high), lamp_up, (205.0, 205.0, 195.0), _FRONT, "head"))
    plate = (0.28 * height, 0.36 * height) if agent.kind == "car" else (0.5, 0.68)
    parts.append(Part((-0.503, -0.5), (-0.14, 0.14), plate, (215.0, 215.0, 205.0), _REAR))
    return parts


def paint_of(rng: Rng) -> tuple[float, float, float]:
    """Draws the colour of a body: mostly greys, some colours."""
    if rng.random() < 0.6:
        grey = float(rng.choice([35, 60, 120, 175, 215]) + rng.uniform(-12, 12))
        return grey, grey, grey + 4
    hue = np.uint8([[[int(rng.integers(180)), int(rng.integers(110, 220)), int(rng.integers(80, 200))]]])  # type: ignore[arg-type]
    red, green, blue = cv2.cvtColor(np.asarray(hue, np.uint8), cv2.COLOR_HSV2RGB)[0, 0].astype(float)
    return float(red), float(green), float(blue)


def person(rng: Rng, height: float) -> list[Part]:
    """Draws somebody on foot: two legs, a torso, a head."""
    cloth, trousers = paint_of(rng), tuple(float(rng.uniform(20, 110)) for _ in range(3))
    legs = (trousers[0], trousers[1], trousers[2])
    return [
        Part((-0.25, 0.25), (-0.35, -0.05), (0.0, 0.48 * height), legs),
        Part((-0.25, 0.25), (0.05, 0.35), (0.0, 0.48 * height), legs),
        Part((-0.3, 0.3), (-0.5, 0.5), (0.45 * height, 0.84 * height), cloth),
        Part((-0.2, 0.2), (-0.2, 0.2), (0.84 * height, height), (190.0, 150.0, 125.0)),
    ]


def two_wheeler(rng: Rng, size: Size) -> list[Part]:
    """Draws a bicycle or motorcycle with its rider."""
    height, dark = size.height, (35.0, 35.0, 38.0)
    return [
        Part((-0.5, -0.18), (-0.12, 0.12), (0.0, 0.62), dark),
        Part((0.18, 0.5), (-0.12, 0.12), (0.0, 0.62), dark),
        Part((-0.3, 0.3), (-0.25, 0.25), (0.45, 0.85), paint_of(rng)),
        Part((-0.2, 0.12), (-0.5, 0.5), (0.8, 0.86 * height), paint_of(rng)),
        Part((-0.1, 0.1), (-0.22, 0.22), (0.86 * height, height), paint_of(rng)),
        Part((-0.503, -0.5), (-0.2, 0.2), (0.55, 0.75), (105.0, 14.0, 16.0), _REAR, "brake"),
        Part((0.5, 0.503), (-0.2, 0.2), (0.7, 0.9), (205.0, 205.0, 195.0), _FRONT, "head"),
    ]


def solid(camera: Camera, pose: Array, size: Size, part: Part) -> Solid:
    """Places a part in all frames.

    Args:
        camera: The camera.
        pose: x, z, yaw of the whole, (FRAMES, 3).
        size: Of the whole.
        part: The part.
    """
    corners = np.arange(8)
    along = np.where(corners & 1, part.along[1], part.along[0]) * size.length
    across = np.where(corners & 2, part.across[1], part.across[0]) * size.width
    up = np.where(corners & 4, part.up[1], part.up[0])
    yaw, view = pose[:, 2:3], camera.place[:, 2:3]
    x = pose[:, :1] + along * np.sin(yaw) + across * np.cos(yaw) - camera.place[:, :1]
    z = pose[:, 1:2] + along * np.cos(yaw) - across * np.sin(yaw) - camera.place[:, 1:2]
    right, forward = x * np.cos(view) - z * np.sin(view), x * np.sin(view) + z * np.cos(view)
    points = np.stack([right, np.broadcast_to(up, right.shape), forward], -1)
    eye = np.array([0.0, camera.height, 0.0])
    facing = np.zeros((FRAMES, 5), bool)
    centre = points.mean(1)
    for face, members in enumerate(_FACES):
        middle = points[:, list(members)].mean(1)
        facing[:, face] = ((middle - centre) * (eye - middle)).sum(1) > 0
    if part.only is not None:
        facing[:, np.arange(5) != part.only] = False
    return Solid(points, facing, part)


def near_clip(points: Array) -> Array:
    """Returns a polygon (n, 3) of right, up, forward cut off at 0.4 m in front of the camera; empty if behind it."""
    inside = points[:, 2] >= _NEAR
    if inside.all():
        return points
    kept = []
    for i in range(len(points)):
        a, b = points[i], points[(i + 1) % len(points)]
        if inside[i]:
            kept.append(a)
        if inside[i] != inside[(i + 1) % len(points)]:
            kept.append(a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept) if kept else np.zeros((0, 3))


def fill_polygon(picture: Picture, camera: Camera, points: Array, frame: int, colour: Array) -> None:
    """Fills the convex polygon of points right, up, forward, (n, 3), with sub-pixel accuracy."""
    points = near_clip(points)
    if len(points) < 3:
        return
    uv = camera.project(points[:, 0], points[:, 1], points[:, 2], frame)
    fixed = np.rint(np.clip(uv, -2000, 2000) * (1 << _SHIFT)).astype(np.int32)
    red, green, blue = (float(c) for c in colour)
    cv2.fillConvexPoly(picture, fixed, (red, green, blue), cv2.LINE_AA, _SHIFT)


def faces(item: Solid, frame: int) -> list[tuple[Array, float]]:
    """Returns the visible faces of a solid in a frame, corners (N, 3) each, and their shades."""
    return [(item.points[frame, list(_FACES[face])], _SHADES[face]) for face in np.flatnonzero(item.facing[frame])]
