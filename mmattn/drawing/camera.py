"""Light and camera: what happens to a drawing before it becomes a photograph.

Source of the ranges: ordinary industrial and hand-held pictures; no dataset was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.drawing.fields import SIZE, Array, Rng, fractal

__all__ = ["Light", "draw_light", "photograph", "photograph_again"]


@dataclass(frozen=True)
class Light:
    """Illumination and colour response shared by a picture and its damaged twin.

    Attributes:
        gain: Brightness factor per pixel and channel, (S, S, 3).
        gamma: Exponent of the tone curve.
        saturation: 1 keeps the colours, 0 makes the picture grey.
        blur: Standard deviation of the lens blur, in pixels.
        noise: Standard deviation of the sensor noise, in [0, 1] units.
        quality: JPEG quality, 1 to 95, or 0 for none.
    """

    gain: Array
    gamma: float
    saturation: float
    blur: float
    noise: float
    quality: int


def draw_light(rng: Rng) -> Light:
    """Draws the conditions of one exposure."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    slope = rng.uniform(-0.5, 0.5, 2)
    field = 1 + slope[0] * x + slope[1] * y
    if rng.random() < 0.3:
        spot = rng.uniform(-0.6, 0.6, 2)
        field = field + rng.uniform(0.1, 0.5) * np.exp(
            -((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / rng.uniform(0.02, 0.3)
        )
    if rng.random() < 0.2:
        angle = rng.uniform(0, 2 * np.pi)
        side = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(-0.3, 0.3)
        field = field * (1 - rng.uniform(0.1, 0.4) / (1 + np.exp(side * rng.uniform(10, 60))))
    if rng.random() < 0.3:
        field = field * (1 - rng.uniform(0.2, 0.9) * (x * x + y * y))
    if rng.random() < 0.2:
        field = field * (1 + rng.uniform(0.05, 0.2) * (fractal(rng, 120, 2) - 0.5))
    gain = rng.uniform(0.6, 1.2) * field[..., None] * rng.uniform(0.92, 1.08, 3)
    return Light(
        gain=gain.astype(np.float32),
        gamma=float(rng.uniform(0.75, 1.35)),
        saturation=0.0 if rng.random() < 0.15 else float(rng.uniform(0.4, 1.1)),
        blur=float(rng.uniform(0.3, 1.3)) if rng.random() < 0.6 else 0.0,
        noise=float(rng.uniform(0.0, 0.035)) * float(rng.random() < 0.8),
        quality=int(rng.integers(45, 96)) if rng.random() < 0.7 else 0,
    )


def photograph(rng: Rng, picture: Array, light: Light) -> npt.NDArray[np.uint8]:
    """Exposes a drawing (S, S, 3) in about [0, 1]; returns uint8 RGB of the same size."""
    lit = cv2.pow(np.clip(picture, 0, 1), light.gamma) * light.gain
    grey = lit.mean(-1, keepdims=True)
    lit = grey + (lit - grey) * np.float32(light.saturation)
    if light.blur > 0:
        lit = cv2.GaussianBlur(lit, (0, 0), light.blur)
    if light.noise > 0:
        shape = (SIZE, SIZE, 1) if light.saturation == 0 else (SIZE, SIZE, 3)
        lit = lit + light.noise * rng.standard_normal(shape, dtype=np.float32)
    pixels = (np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8)
    if light.quality:
        packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, light.quality])[1]
        pixels = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(pixels)


def photograph_again(rng: Rng, picture: Array, light: Light) -> npt.NDArray[np.uint8]:
    """Adds a little blur and noise to a photograph (S, S, 3) in about [0, 1]; returns uint8 RGB of the same size."""
    if light.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), light.blur * 0.6)
    picture = picture + 0.5 * light.noise * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
