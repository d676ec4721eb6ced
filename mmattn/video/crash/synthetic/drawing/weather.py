"""Light and weather of a generated clip: day, dusk and night; clear, fog and rain; sensor noise and compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.camera import FOCAL, HEIGHT, HORIZON_ROW, WIDTH
from mmattn.video.crash.synthetic.world.physics import Array

__all__ = ["Weather", "draw_weather", "expose", "mist"]

Rng = np.random.Generator
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Weather:
    """Light and air of a clip.

    Attributes:
        light: "day", "dusk" or "night".
        rain: Whether it rains.
        visibility: Distance at which two thirds of the contrast are gone, m.
        air: Colour of the mist and of the sky at the horizon, RGB.
        zenith: Colour of the sky above, RGB.
        ambient: Factor on the brightness of what does not shine.
        warmth: Factors on red, green and blue.
        grain: Fields of sensor noise, (4, HEIGHT, WIDTH, 3); a frame shows one of them, mirrored or not.
        blur: Standard deviation of the lens blur, pixels.
        quality: Of the JPEG compression.
        beam: Light of the own head lamps, (HEIGHT, WIDTH).
    """

    light: str
    rain: bool
    visibility: float
    air: Array
    zenith: Array
    ambient: float
    warmth: Array
    grain: npt.NDArray[np.float32]
    blur: float
    quality: int
    beam: npt.NDArray[np.float32]


def draw_weather(rng: Rng) -> Weather:
    """Draws light and weather: 60 % day, 17 % dusk, 23 % night; a quarter of each in rain, a tenth in fog."""
    light = str(rng.choice(["day", "dusk", "night"], p=[0.6, 0.17, 0.23]))
    rain = bool(rng.random() < 0.25)
    fog = rng.random() < 0.1
    visibility = rng.uniform(45, 90) if fog else rng.uniform(80, 160) if rain else rng.uniform(250, 700)
    if light == "night":
        air, zenith, ambient = rng.uniform(6, 22, 3), rng.uniform(2, 14, 3), rng.uniform(0.16, 0.34)
    elif light == "dusk":
        air, zenith, ambient = np.array([205.0, 150, 125]) * rng.uniform(0.7, 1), np.array([95.0, 105, 150]), 0.55
    else:
        grey = rain or fog or rng.random() < 0.4
        air = np.array([200.0, 205, 210]) * rng.uniform(0.8, 1.1)
        zenith = air * 0.92 if grey else np.array([90.0, 140, 205]) * rng.uniform(0.85, 1.15)
        ambient = rng.uniform(0.7, 0.9) if grey else rng.uniform(0.85, 1.1)
    noise = rng.uniform(4, 8) if light == "night" else rng.uniform(1.5, 5)
    blur = rng.uniform(0.0, 0.5) + (0.35 if rain else 0.0)
    warmth = rng.uniform(0.94, 1.06, 3)
    grain = np.float32(noise) * rng.standard_normal((4, HEIGHT, WIDTH, 3), np.float32)
    quality = int(rng.integers(40, 88))
    return Weather(light, rain, visibility, air, zenith, ambient, warmth, grain, blur, quality, head_lamps(rng))


def head_lamps(rng: Rng) -> npt.NDArray[np.float32]:
    """Returns the light (H, W) that the own head lamps throw, about 1 at its brightest."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    across = np.exp(-(((u - WIDTH / 2) / (WIDTH * rng.uniform(0.24, 0.34))) ** 2))
    below = (v - HORIZON_ROW) / (HEIGHT - HORIZON_ROW)
    down = np.exp(-(((below - 0.12) / np.where(below > 0.12, 0.75, 0.22)) ** 2))
    lit: npt.NDArray[np.float32] = (rng.uniform(0.6, 0.9) * across * down).astype(np.float32)
    return lit


def mist(weather: Weather, colour: Array, distance: float) -> Array:
    """Returns a colour (3,), RGB, as it arrives from a distance in metres."""
    share = float(np.exp(-max(distance, 0.0) / weather.visibility))
    seen: Array = colour * share + weather.air * (1 - share)
    return seen


def mist_rows(weather: Weather) -> npt.NDArray[np.float32]:
    """Returns how much of the ground's colour arrives, by row of the picture, (H, 1, 1)."""
    below = np.maximum(np.arange(HEIGHT) - HORIZON_ROW, 0.8)
    share = np.exp(-FOCAL * 1.3 / below / weather.visibility)
    return share.astype(np.float32)[:, None, None]


def expose(picture: Picture, glow: Picture | None, weather: Weather, rng: Rng) -> bytes:
    """Returns what the camera records, as a JPEG file: lit, with lamps, rain, blur, noise and compression.

    Args:
        picture: Colours by full daylight, (HEIGHT, WIDTH, 3).
        glow: What shines by itself, or None.
        weather: Light and weather.
        rng: Source of randomness.
    """
    scene = picture.astype(np.float32)
    night = weather.light == "night"
    if night:
        scene *= (weather.ambient + weather.beam)[..., None] * weather.warmth.astype(np.float32)
    else:
        scene *= (weather.ambient * weather.warmth).astype(np.float32)
    if glow is not None:
        lamps = glow.astype(np.float32)
        halo = np.asarray(cv2.GaussianBlur(lamps, (0, 0), 2.2 if night else 1.2), np.float32)
        scene = scene + np.float32(1.1) * halo + lamps if night else np.maximum(scene, lamps) + np.float32(0.35) * halo
    if weather.rain:
        rain(scene, weather, rng)
    if weather.blur > 0.2:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), weather.blur), np.float32)
    field = weather.grain[rng.integers(len(weather.grain))]
    scene += field[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])] * rng.choice([-1, 1])
    recorded = np.clip(scene, 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", recorded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, weather.quality])[1]
    return bytes(data)


def rain(scene: npt.NDArray[np.float32], weather: Weather, rng: Rng) -> None:
    """Draws streaks of rain into a scene (H, W, 3), in place."""
    bright = 0.35 * weather.air + 60
    for _ in range(int(rng.integers(25, 70))):
        u, v = rng.uniform(0, WIDTH), rng.uniform(-10, HEIGHT)
        length = rng.uniform(5, 14)
        start, end = (int(u * 16), int(v * 16)), (int((u + 0.12 * length) * 16), int((v + length) * 16))
        red, green, blue = (float(c) for c in bright)
        cv2.line(scene, start, end, (red, green, blue), 1, cv2.LINE_AA, 4)
