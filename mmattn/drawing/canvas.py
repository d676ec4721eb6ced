"""Drawing of objects: shapes given in an object's own frame, placed on the picture in perspective.

The frame reaches from -1 to 1 in both directions. One homography per picture turns, scales, shifts and tilts it, so
an object function writes plain geometry and every picture shows it from another side.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.drawing.fields import SIZE, Array, Rng, fractal, tint

__all__ = ["Canvas", "circle", "rectangle"]

_SUBPIXEL_BITS = 4
Points = npt.NDArray[np.float64]


def circle(x: float, y: float, radius: float, corners: int = 40, start: float = 0.0) -> Points:
    """Returns the corners of a regular polygon, (corners, 2); with the default number it looks round."""
    angle = start + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], -1)


def rectangle(x: float, y: float, width: float, height: float, rounding: float = 0.0) -> Points:
    """Returns the outline of a rectangle centred on (x, y) whose corners are rounded by ``rounding``, (n, 2)."""
    half = np.array([width, height]) / 2 - rounding
    corner = circle(0, 0, rounding, 24)
    signs = np.where(corner > 1e-9, 1.0, -1.0) if rounding > 0 else np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    outline = signs * half + (corner if rounding > 0 else 0)
    return outline + np.array([x, y])


class Canvas:
    """A picture and the mask of the object on it.

    Args:
        rng: Source of randomness for the pose.
        background: RGB picture in [0, 1], (S, S, 3).
        reach: Share of half the picture's side that the unit frame covers, drawn between these two.

    Attributes:
        picture: What is drawn so far, (S, S, 3) float32.
        mask: Pixels of the object, (S, S) float32 in [0, 1].
    """

    def __init__(self, rng: Rng, background: Array, reach: tuple[float, float] = (0.55, 0.88)) -> None:
        self.picture = background.copy()
        self.mask: Array = np.zeros((SIZE, SIZE), np.float32)
        angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(*reach) * SIZE / 2
        squeeze = rng.uniform(0.8, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([1.0, squeeze])
        spin = rng.uniform(0, 2 * np.pi)
        turn = turn @ np.array([[np.cos(spin), -np.sin(spin)], [np.sin(spin), np.cos(spin)]])
        centre = SIZE / 2 + rng.uniform(-0.06, 0.06, 2) * SIZE
        self._pose = np.eye(3)
        self._pose[:2, :2] = turn * scale
        self._pose[:2, 2] = centre
        self._pose[2, :2] = rng.uniform(-0.12, 0.12, 2)

    def place(self, points: Points) -> npt.NDArray[np.float64]:
        """Returns pixel positions of points of the object's frame, (n, 2)."""
        lifted = np.concatenate([points, np.ones((len(points), 1))], 1) @ self._pose.T
        return lifted[:, :2] / lifted[:, 2:]

    def fill(self, points: Points, colour: Array, *, cut: bool = False, detail: bool = False) -> None:
        """Fills a polygon.

        Args:
            points: Corners in the object's frame, (n, 2).
            colour: RGB.
            cut: The polygon is an opening: its pixels leave the object's mask.
            detail: The polygon lies on the object and leaves the mask as it is.
        """
        corners = [np.round(self.place(points) * 2**_SUBPIXEL_BITS).astype(np.int32)]
        cv2.fillPoly(self.picture, corners, np.asarray(colour).tolist(), cv2.LINE_AA, _SUBPIXEL_BITS)
        if not detail:
            cv2.fillPoly(self.mask, corners, 0.0 if cut else 1.0, cv2.LINE_AA, _SUBPIXEL_BITS)

    def open(self, points: Points, background: Array) -> None:
        """Cuts an opening through which ``background`` (S, S, 3) is seen."""
        window = np.zeros((SIZE, SIZE), np.float32)
        corners = [np.round(self.place(points) * 2**_SUBPIXEL_BITS).astype(np.int32)]
        cv2.fillPoly(window, corners, 1.0, cv2.LINE_AA, _SUBPIXEL_BITS)
        self.picture += (background - self.picture) * window[..., None]
        self.mask *= 1 - window

    def stroke(self, points: Points, width: float, colour: Array, *, detail: bool = True, closed: bool = False) -> None:
        """Draws a line of ``width`` (object units) through the points; see :meth:`fill` for ``detail``."""
        scale = float(np.sqrt(abs(np.linalg.det(self._pose[:2, :2]))))
        pixels = max(round(width * scale), 1)
        path = [np.round(self.place(points) * 2**_SUBPIXEL_BITS).astype(np.int32)]
        cv2.polylines(self.picture, path, closed, np.asarray(colour).tolist(), pixels, cv2.LINE_AA, _SUBPIXEL_BITS)
        if not detail:
            cv2.polylines(self.mask, path, closed, 1.0, pixels, cv2.LINE_AA, _SUBPIXEL_BITS)

    def text(self, words: Sequence[str], height: float, colour: Array) -> None:
        """Prints lines of text around the object's centre, in perspective."""
        plate = np.zeros((128, 256), np.uint8)
        for row, line in enumerate(words):
            width = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1.1, 3)[0][0]
            left, base = int(128 - width / 2), int(76 + 44 * (row - (len(words) - 1) / 2))
            cv2.putText(plate, line, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 1.1, 255, 3, cv2.LINE_AA)
        frame = np.array([[-2, -1], [2, -1], [2, 1], [-2, 1]]) * height
        source = np.array([[0, 0], [256, 0], [256, 128], [0, 128]], np.float32)
        warp = cv2.getPerspectiveTransform(source, self.place(frame).astype(np.float32))
        ink = cv2.warpPerspective(plate, warp, (SIZE, SIZE)).astype(np.float32) / 255 * self.mask
        self.picture += (colour - self.picture) * ink[..., None]

    def shade(self, rng: Rng, bevel: float, grain: float, background: Array) -> None:
        """Gives the object rounded edges, a surface and a soft shadow on ``background`` (S, S, 3).

        Args:
            rng: Source of randomness.
            bevel: Strength of the lit and the dark edge.
            grain: Strength of the surface noise.
            background: The picture behind the object, without shadow.
        """
        solid = (self.mask > 0.5).astype(np.uint8)
        depth = np.minimum(cv2.distanceTransform(solid, cv2.DIST_L2, 3), rng.uniform(3, 12))
        depth = cv2.GaussianBlur(depth, (0, 0), 1.2)
        angle = rng.uniform(0, 2 * np.pi)
        slope = np.cos(angle) * cv2.Sobel(depth, cv2.CV_32F, 1, 0) + np.sin(angle) * cv2.Sobel(depth, cv2.CV_32F, 0, 1)
        lit = tint(self.picture, np.clip(0.5 + slope / 16, 0, 1).astype(np.float32), bevel)
        lit = tint(lit, fractal(rng, rng.uniform(4, 60), 4), grain)
        move = np.array([[1, 0, rng.uniform(-7, 7)], [0, 1, rng.uniform(-7, 7)]])
        shadow = cv2.warpAffine(self.mask, move, (SIZE, SIZE))
        shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(1.5, 6)) * rng.uniform(0.1, 0.55)
        behind = background * (1 - shadow)[..., None]
        self.picture = (behind + (lit - behind) * self.mask[..., None]).astype(np.float32)
