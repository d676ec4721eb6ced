"""Text on pictures, with the font that comes with Pillow: no system fonts, the same pixels everywhere."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Color", "check_picture", "draw_text", "label", "text_size"]

Color = tuple[int, int, int]
UInt8Array = npt.NDArray[np.uint8]


def check_picture(image: UInt8Array) -> None:
    """Checks that ``image`` is ``uint8`` RGB, ``(H, W, 3)``, and not empty.

    Raises:
        ValueError: If it is not.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"Expected a uint8 RGB picture (H, W, 3), got {image.dtype} {image.shape}.")


def text_size(text: str, size: int = 14) -> tuple[int, int]:
    """Returns width and height in pixels that ``text`` takes at font size ``size``, line gap included."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)), ascent + descent


def draw_text(
    image: UInt8Array,
    text: str,
    xy: tuple[int, int],
    *,
    color: Color = (20, 20, 24),
    size: int = 14,
    anchor: str = "la",
) -> UInt8Array:
    """Returns a copy of ``image`` with ``text`` at pixel ``xy``.

    Args:
        image: ``uint8`` RGB, ``(H, W, 3)``.
        text: One line; what falls outside the picture is cut.
        xy: Column and row of the anchor.
        color: RGB.
        size: Font size in pixels.
        anchor: Which point of the text lies at ``xy``, in Pillow's two letters: ``la`` is the top left, ``lm`` the
            middle of the left side, ``mm`` the centre.

    Raises:
        ValueError: ``image`` is not ``uint8`` RGB.
    """
    check_picture(image)
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text(xy, text, fill=color, font=_font(size), anchor=anchor)
    return np.array(picture)


def label(
    image: UInt8Array, text: str, *, size: int = 14, color: Color = (20, 20, 24), background: Color = (255, 255, 255)
) -> UInt8Array:
    """Returns a picture with text in a strip above it; text that is too wide is shortened with an ellipsis.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``; the result is higher by the strip.
        text: One line.
        size: Of the letters, in pixels.
        color: RGB of the text.
        background: RGB of the strip.
    """
    width = image.shape[1]
    height = text_size(text, size)[1] + size // 2
    strip = np.full((height, width, 3), background, dtype=np.uint8)
    strip = draw_text(strip, _shortened(text, width, size), (0, height // 2), color=color, size=size, anchor="lm")
    return np.concatenate([strip, image])


def _shortened(text: str, width: int, size: int) -> str:
    if text_size(text, size)[0] <= width:
        return text
    while text and text_size(text + "\u2026", size)[0] > width:
        text = text[:-1]
    return text + "\u2026"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # A size makes Pillow return its built-in TrueType font instead of the bitmap one.
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("This build of Pillow has no FreeType support. Install the Pillow wheel from PyPI.")
    return font
