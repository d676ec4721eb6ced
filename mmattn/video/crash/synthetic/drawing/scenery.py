"""The ground and what stands beside the road of a generated clip: marks, patches, intersections, houses, trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.camera import HEIGHT
from mmattn.video.crash.synthetic.drawing.shapes import Part, fill_polygon
from mmattn.video.crash.synthetic.world.camera import Camera
from mmattn.video.crash.synthetic.world.physics import FRAMES, Agent, Array, Road, Size

__all__ = ["Scenery", "draw_ground", "draw_scenery"]

Rng = np.random.Generator
Picture = npt.NDArray[np.uint8]

_STATIONS: Array = np.array([-2.0, 0.3, 1.0, 1.8, 3, 4.5, 7, 10, 14, 20, 28, 40, 58, 85])
_PAINT = np.array([205.0, 205.0, 198.0])
_DASH, _PERIOD = 3.0, 9.0
_PAVEMENT = 2.6


@dataclass(frozen=True)
class Scenery:
    """What stands still.

    Attributes:
        blocks: Pose (FRAMES, 3), size and look of houses, trees and poles.
        patches: s and d from and to of patches of the road, (n, 4).
        patch_colour: Brightness added to the road, (n,).
        road: Colour of the road, RGB.
        verge: Colour of the ground beside it, RGB.
        pavement: Colour of the pavement, RGB.
        marked: Whether the lanes are marked.
    """

    blocks: list[tuple[Array, Size, Part]]
    patches: Array
    patch_colour: Array
    road: Array
    verge: Array
    pavement: Array
    marked: bool


def draw_scenery(rng: Rng, road: Road, ego: Agent) -> Scenery:
    """Draws what stands beside the road as far as the ego vehicle gets."""
    far = road.progress(float(ego.pose[-1, 0]), float(ego.pose[-1, 1])) + 90
    blocks = []
    for sign, edge in ((1.0, road.edge_right), (-1.0, road.edge_left)):
        s = rng.uniform(-8, 6)
        built_up = rng.random() < 0.6
        while s < far:
            house = built_up and rng.random() < 0.75
            length = rng.uniform(8, 18) if house else rng.uniform(0.3, 3.0)
            clear = (
                road.crossing is None or abs(s + length / 2 - road.crossing) > length / 2 + road.crossing_width / 2 + 3
            )
            if clear:
                blocks.append(block(rng, road, s + length / 2, sign, edge, length, house=house))
            s += length + (rng.uniform(0.5, 5) if house else rng.uniform(4, 16))
    count = int(far / 2.2)
    along, across = rng.uniform(-5, far, count), rng.uniform(road.edge_left, road.edge_right, count)
    ends = along + rng.uniform(0.4, 4.0, count), across + rng.uniform(0.15, 1.6, count)
    patches = np.stack([along, ends[0], across, ends[1]], 1)
    grey = rng.uniform(62, 120)
    verge = np.array([90.0, 110, 62]) if rng.random() < 0.5 else np.full(3, rng.uniform(90, 140))
    return Scenery(
        blocks,
        patches,
        rng.uniform(8, 20, count) * rng.choice([-1, 1], count, p=[0.7, 0.3]),
        np.array([grey, grey, grey + 3]),
        verge * rng.uniform(0.8, 1.1),
        np.full(3, rng.uniform(120, 165)),
        bool(rng.random() < 0.93),
    )


def block(
    rng: Rng, road: Road, s: float, sign: float, edge: float, length: float, *, house: bool
) -> tuple[Array, Size, Part]:
    """Draws a house, a tree or a pole beside the road: its pose (3,) x, z, heading, its size and its looks."""
    if house:
        size = Size(length, rng.uniform(6, 10), rng.uniform(4, 13))
        away = _PAVEMENT + rng.uniform(0.8, 5) + size.width / 2
        tone = rng.uniform(90, 200)
        colour = tuple(float(c) for c in np.clip(tone + rng.uniform(-30, 30, 3), 30, 235))
    else:
        size = Size(length, max(length * 0.9, 0.25), rng.uniform(2.5, 7))
        away = rng.uniform(0.6, 4.0) + size.width / 2
        green = np.array([rng.uniform(40, 80), rng.uniform(70, 110), rng.uniform(30, 60)])
        colour = tuple(green if length > 0.8 else np.full(3, rng.uniform(70, 130)))
    place = road.to_ground(np.array(s), np.array(edge + sign * away))
    part = Part((-0.5, 0.5), (-0.5, 0.5), (0.0, size.height), (float(colour[0]), float(colour[1]), float(colour[2])))
    return np.broadcast_to(place, (FRAMES, 3)), size, part


def draw_ground(picture: Picture, camera: Camera, road: Road, scenery: Scenery, frame: int) -> None:
    """Draws ground, pavement, road, intersection and marks into a picture that shows sky."""
    horizon = int(np.clip(camera.horizon + camera.tilt[frame, 1], 0, HEIGHT))
    picture[horizon:] = scenery.verge.astype(np.uint8)
    here = road.progress(float(camera.place[frame, 0]), float(camera.place[frame, 1]))
    s = here + _STATIONS
    ribbon(picture, camera, road, s, road.edge_left - _PAVEMENT, road.edge_right + _PAVEMENT, frame, scenery.pavement)
    if road.crossing is not None:
        half = road.crossing_width / 2
        quad(picture, camera, road, (road.crossing - half, road.crossing + half, -70, 70), frame, scenery.road)
    ribbon(picture, camera, road, s, road.edge_left, road.edge_right, frame, scenery.road)
    near = (scenery.patches[:, 0] < here + 32) & (scenery.patches[:, 1] > here)
    for patch, change in zip(scenery.patches[near], scenery.patch_colour[near], strict=True):
        quad(picture, camera, road, (patch[0], patch[1], patch[2], patch[3]), frame, scenery.road + change)
    if scenery.marked:
        draw_marks(picture, camera, road, here, frame)


def draw_marks(picture: Picture, camera: Camera, road: Road, here: float, frame: int) -> None:
    """Draws edge lines, dashes between lanes and stop lines."""
    gap = (1e9, 1e9) if road.crossing is None else (road.crossing - 1, road.crossing + 1)
    half = road.crossing_width / 2 - 0.5
    for d in (road.edge_left + 0.25, road.right * road.lane_width - 0.08):
        for start in np.arange(np.floor(here / 6) * 6, here + 66, 6):
            if not gap[0] - half - 6 < start < gap[1] + half:
                quad(picture, camera, road, (start, start + 6, d - 0.07, d + 0.07), frame, _PAINT)
    for lane in range(1 - road.left, road.right):
        d = lane * road.lane_width
        for start in np.arange(np.floor(here / _PERIOD) * _PERIOD, here + 60, _PERIOD):
            length = _PERIOD if lane == 0 and road.left else _DASH
            if not gap[0] - half - length < start < gap[1] + half:
                quad(picture, camera, road, (start, start + length, d - 0.07, d + 0.07), frame, _PAINT)
    if road.crossing is not None:
        line = road.crossing - road.crossing_width / 2 - 1.2
        if here - 1 < line < here + 50:
            quad(picture, camera, road, (line, line + 0.4, 0.0, road.right * road.lane_width), frame, _PAINT)


def quad(
    picture: Picture,
    camera: Camera,
    road: Road,
    sides: tuple[float, float, float, float],
    frame: int,
    colour: Array,
) -> None:
    """Fills a patch of the road from s0 to s1 and d0 to d1 in a picture (H, W, 3) with a colour (3,)."""
    s0, s1, d0, d1 = sides
    corners = road.to_ground(np.array([s0, s1, s1, s0]), np.array([d0, d0, d1, d1]))
    on_ground(picture, camera, corners, frame, colour)


def ribbon(
    picture: Picture, camera: Camera, road: Road, s: Array, d0: float, d1: float, frame: int, colour: Array
) -> None:
    """Fills the strip between two lines along the road, at places s (n,), with a colour (3,)."""
    left, right = road.to_ground(s, np.full_like(s, d0)), road.to_ground(s, np.full_like(s, d1))
    for i in range(len(s) - 1):
        on_ground(picture, camera, np.stack([left[i], left[i + 1], right[i + 1], right[i]]), frame, colour)


def on_ground(picture: Picture, camera: Camera, corners: Array, frame: int, colour: Array) -> None:
    """Fills a polygon on the ground, corners (n, 2) x, z in metres, with a colour (3,), where it is ahead."""
    view = camera.to_view(corners[:, :2], frame)
    if (view[:, 1] > 0.4).any():
        points = np.zeros((len(view), 3))
        points[:, 0], points[:, 2] = view[:, 0], view[:, 1]
        fill_polygon(picture, camera, points, frame, colour)
