"""Draws the pictures of a generated clip: sky, ground, road, scenery and road users, far to near.

Edges are anti-aliased at sub-pixel accuracy: the growth of a distant box is a fraction of a pixel per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.camera import HEIGHT, WIDTH
from mmattn.video.crash.synthetic.drawing.scenery import draw_ground, draw_scenery
from mmattn.video.crash.synthetic.drawing.shapes import Part, Solid, faces, fill_polygon, parts_of, solid
from mmattn.video.crash.synthetic.drawing.weather import Weather, draw_weather, expose, mist, mist_rows
from mmattn.video.crash.synthetic.world.camera import Camera
from mmattn.video.crash.synthetic.world.clips import DrawnClip
from mmattn.video.crash.synthetic.world.physics import FRAMES, Agent, Array

__all__ = ["decode", "render"]

Picture = npt.NDArray[np.uint8]

_SHADOW = np.array([34.0, 34.0, 38.0])
_BRAKE, _HEAD, _TAIL = np.array([255.0, 34.0, 24.0]), np.array([255.0, 250.0, 225.0]), np.array([120.0, 8.0, 6.0])
_BLACK = np.zeros(3)
_BACK, _FARTHEST = -3.0, 110.0


@dataclass(frozen=True)
class Drawn:
    """A thing with its solids, and how far away it is in each frame."""

    solids: list[Solid]
    distance: Array
    agent: Agent | None


def render(clip: DrawnClip) -> list[bytes]:
    """Returns the pictures of a clip as FRAMES JPEG files of WIDTH x HEIGHT; the same ones every time.

    JPEG is the compression the camera itself applies; :func:`decode` makes arrays of them.
    """
    rng = np.random.default_rng([clip.seed, 2])
    weather = draw_weather(rng)
    scenery = draw_scenery(rng, clip.road, clip.agents[0])
    things = [prepare(clip.camera, agent, parts_of(agent, rng)) for agent in clip.agents[1:]]
    things += [
        Drawn([solid(clip.camera, pose, size, part)], distance_of(clip.camera, pose), None)
        for pose, size, part in scenery.blocks
    ]
    rows = mist_rows(weather)
    files = []
    for frame in range(FRAMES):
        picture = sky(clip.camera, weather, frame)
        draw_ground(picture, clip.camera, clip.road, scenery, frame)
        misted = picture * rows + (weather.air * (0.6 if weather.light == "night" else 1.0)) * (1 - rows)
        horizon = int(np.clip(clip.camera.horizon + clip.camera.tilt[frame, 1], 1, HEIGHT - 1))
        picture[horizon:] = misted[horizon:].astype(np.uint8)
        glow = np.zeros_like(picture)
        shining = False
        for thing in sorted(things, key=lambda thing: -thing.distance[frame]):
            if _BACK < thing.distance[frame] < _FARTHEST:
                shining |= draw_thing(picture, glow, clip.camera, thing, weather, frame, shining)
        files.append(expose(picture, glow if shining else None, weather, rng))
    return files


def decode(files: Sequence[bytes]) -> Picture:
    """Returns JPEG files as pictures, uint8 RGB (T, H, W, 3)."""
    pictures = [np.asarray(cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_COLOR), np.uint8) for f in files]
    return np.ascontiguousarray(np.stack(pictures)[..., ::-1])


def prepare(camera: Camera, agent: Agent, parts: list[Part]) -> Drawn:
    """Places a road user in all frames."""
    pose = agent.pose[: 2 * FRAMES : 2]
    return Drawn([solid(camera, pose, agent.size, part) for part in parts], distance_of(camera, pose), agent)


def distance_of(camera: Camera, pose: Array) -> Array:
    """Returns how far ahead of the camera something with poses (T, 3) is in each frame, metres (T,)."""
    offset, yaw = pose[:, :2] - camera.place[:, :2], camera.place[:, 2]
    ahead: Array = offset[:, 0] * np.sin(yaw) + offset[:, 1] * np.cos(yaw)
    return ahead


def sky(camera: Camera, weather: Weather, frame: int) -> Picture:
    """Returns a picture with nothing but sky."""
    horizon = camera.horizon + camera.tilt[frame, 1]
    up = np.clip((horizon - np.arange(HEIGHT)) / 60.0, 0.0, 1.0)[:, None]
    column = weather.air * (1 - up) + weather.zenith * up
    return np.tile(np.clip(column, 0, 255).astype(np.uint8)[:, None], (1, WIDTH, 1))


def draw_thing(
    picture: Picture, glow: Picture, camera: Camera, thing: Drawn, weather: Weather, frame: int, behind: bool
) -> bool:
    """Draws the solids of a thing and returns whether anything shines now.

    Args:
        picture: Changed in place.
        glow: What shines, changed in place; the light behind a face is taken away.
        camera: The camera.
        thing: What to draw.
        weather: Light and weather.
        frame: Number of the frame.
        behind: Whether anything shines already.
    """
    distance = float(thing.distance[frame])
    if thing.agent is not None:
        ground = thing.solids[0].points[frame][[0, 1, 3, 2]].copy()
        ground[:, 1] = 0.01
        fill_polygon(picture, camera, ground, frame, mist(weather, _SHADOW, distance))
    night = weather.light == "night"
    # Lamps and what sits on a face come last; boxes of one thing go from far to near.
    order = sorted(thing.solids, key=lambda s: (s.part.only is not None, -float(s.points[frame, :, 2].mean())))
    for item in order:
        for points, shade in faces(item, frame):
            shining = lamp(thing.agent, item, frame, night)
            base = np.array(item.part.colour)
            fill_polygon(picture, camera, points, frame, mist(weather, np.clip(base * shade, 0, 255), distance))
            if shining is not None:
                behind = True
                fill_polygon(glow, camera, points, frame, mist_glow(weather, shining, distance))
            elif behind:
                fill_polygon(glow, camera, points, frame, _BLACK)
    return behind


def lamp(agent: Agent | None, item: Solid, frame: int, night: bool) -> Array | None:
    """Returns the light of a lamp, RGB (3,), or None for what does not shine."""
    if agent is None or not item.part.glow or agent.parked:
        return None
    if item.part.glow == "brake":
        if agent.braking[2 * frame]:
            return _BRAKE
        return _TAIL if night else None
    return _HEAD if night else None


def mist_glow(weather: Weather, colour: Array, distance: float) -> Array:
    """Returns a lamp's colour (3,) as it arrives; lamps reach farther than what they light."""
    return colour * float(np.exp(-max(distance, 0.0) / (3 * weather.visibility)))
