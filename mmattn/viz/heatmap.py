"""Heat maps over pictures: overlay, contours, colour bar, panels side by side.

The default range is fixed, [0, 1]: scaling each map to its own extremes paints something red even on a flawless
picture. Colours come from small tables of our own, so nothing here needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmattn.viz.text import Color, check_picture, draw_text, label, text_size

__all__ = ["Colormap", "colorbar", "colorize", "colormap_table", "contour", "overlay", "side_by_side"]

Colormap = Literal["inferno", "turbo", "jet"]
UInt8Array = npt.NDArray[np.uint8]

# Every eighth colour of inferno (S. van der Walt, N. Smith, CC0) and turbo (A. Mikhailov, Apache-2.0); linear
# interpolation between them is within 2 levels of the full tables.
_ANCHORS = {
    "inferno": """
        000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 56106e 63156e 70196e 7d1e6d 89226a 962766 a32c61 af315b
        bb3654 c63d4d d14545 da4f3c e35932 eb6529 f1721e f67f14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586
        fcffa4""",
    "turbo": """
        30123b 392a73 4040a2 4456c7 466be3 4680f6 4293ff 37a7fa 28bbec 1dccd9 18dcc3 1ee8b0 31f299 4cf97e 6bfe64 8aff4c
        a2fc3c b8f735 cced34 dee037 edd03a f7c03a fdad35 fe982c fb8022 f56818 ec520f e14109 d23105 c12302 ac1701 950d01
        7a0403""",
}


def overlay(
    image: UInt8Array,
    anomaly_map: npt.ArrayLike,
    *,
    vmin: float | None = 0.0,
    vmax: float | None = 1.0,
    alpha: float = 0.5,
    colormap: Colormap = "inferno",
    fade: bool = False,
) -> UInt8Array:
    """Blends a colour-coded map over a picture: ``(1 - alpha) * image + alpha * colour``.

    ``vmin=None, vmax=None, colormap="jet"`` gives the pictures of Crane's release (arXiv:2504.11055): each map scaled
    to its own extremes, JET, equal parts.

    Args:
        image: ``uint8`` RGB, ``(H, W, 3)``.
        anomaly_map: ``(h, w)``, resized bilinearly where its size differs from the picture's.
        vmin: Value of the lowest colour; ``None`` is the map's minimum.
        vmax: Value of the highest colour; ``None`` is the map's maximum. Values outside the range are clipped.
        alpha: Weight of the colours, in [0, 1].
        colormap: "inferno" is readable with colour-vision deficiency and in print; "turbo" and "jet" are not.
        fade: Let the weight grow with the value, from 0 at ``vmin`` to ``alpha`` at ``vmax``, so that the picture stays
            clear where the map is low.

    Returns:
        ``uint8`` RGB, ``(H, W, 3)``.

    Raises:
        ValueError: Wrong shapes, NaN or infinite values in the map, ``vmin >= vmax``, or ``alpha`` outside [0, 1].
    """
    check_picture(image)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}.")
    values = _resized(_checked_map(anomaly_map), image.shape[:2])
    levels = _levels(values, vmin, vmax)
    colors = colormap_table(colormap)[levels].astype(np.float32)
    weight = alpha * (levels[..., None] / np.float32(255) if fade else 1)
    return ((1 - weight) * image.astype(np.float32) + weight * colors).astype(np.uint8)


def colorize(
    anomaly_map: npt.ArrayLike, *, vmin: float | None = 0.0, vmax: float | None = 1.0, colormap: Colormap = "inferno"
) -> UInt8Array:
    """Returns the colours of a map, ``uint8`` RGB ``(H, W, 3)``; a constant map scaled to itself is the lowest colour.

    Raises:
        ValueError: As :func:`overlay`.

    >>> colorize([[0.0, 1.0, 7.0]], colormap="jet").tolist()
    [[[0, 0, 128], [128, 0, 0], [128, 0, 0]]]
    """
    return colormap_table(colormap)[_levels(_checked_map(anomaly_map), vmin, vmax)]


@cache
def colormap_table(colormap: Colormap) -> UInt8Array:
    """Returns the K = 256 colours of a colormap, ``uint8`` RGB ``(K, 3)``, read-only.

    Raises:
        ValueError: No colormap of that name.
    """
    if colormap == "jet":
        table = _jet()
    elif colormap in _ANCHORS:
        anchors = np.array([list(bytes.fromhex(color)) for color in _ANCHORS[colormap].split()])  # (33, 3)
        position = np.linspace(0, 255, len(anchors))
        channels = [np.interp(np.arange(256), position, anchors[:, channel]) for channel in range(3)]
        table = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    else:
        raise ValueError(f"There is no colormap {colormap!r}. Expected one of {', '.join(get_args(Colormap))}.")
    table.flags.writeable = False
    return table


def contour(
    image: UInt8Array, mask: npt.NDArray[np.bool_], color: Color = (120, 251, 120), thickness: int = 2
) -> UInt8Array:
    """Returns a copy of ``image`` with the outer outlines of a mask drawn on it; holes get no outline.

    Args:
        image: ``uint8`` RGB, ``(H, W, 3)``.
        mask: ``(H, W)``, non-zero is inside.
        color: RGB.
        thickness: Width of the line in pixels.

    Raises:
        ValueError: The mask has another size than the picture, or ``thickness`` is below 1.
        ImportError: OpenCV is not installed.
    """
    check_picture(image)
    if mask.shape != image.shape[:2]:
        raise ValueError(f"The mask is {mask.shape}, the picture {image.shape[:2]}. Resize the mask first.")
    if thickness < 1:
        raise ValueError(f"thickness must be at least 1 pixel, got {thickness}.")
    try:
        import cv2
    except ImportError as error:
        raise ImportError("Contours need OpenCV. Install it with: pip install 'mmattn[vision]'") from error
    outlines, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    drawn: UInt8Array = np.ascontiguousarray(image).copy()
    cv2.drawContours(drawn, outlines, -1, color, thickness)
    return drawn


def colorbar(
    height: int, colormap: Colormap = "inferno", vmin: float = 0.0, vmax: float = 1.0, *, num_ticks: int = 5
) -> UInt8Array:
    """Draws a vertical colour bar with labelled ticks on white, highest value on top.

    Args:
        height: Height of the picture in pixels, at least 40.
        colormap: As for :func:`overlay`.
        vmin: Value of the lowest colour.
        vmax: Value of the highest colour.
        num_ticks: Number of labels, evenly spaced over the range; at least 2.

    Returns:
        ``uint8`` RGB, ``(height, W, 3)``; W follows from the labels.

    Raises:
        ValueError: ``height`` below 40, ``num_ticks`` below 2 or ``vmin >= vmax``.
    """
    if height < 40 or num_ticks < 2 or not vmin < vmax:
        raise ValueError(
            f"Expected height >= 40, num_ticks >= 2 and vmin < vmax, got {height}, {num_ticks}, {vmin:g}, {vmax:g}."
        )
    margin, left, width, size = 10, 6, 16, 12
    labels = [f"{value:.3g}" for value in np.linspace(vmin, vmax, num_ticks)]
    total = left + width + 10 + max(text_size(text, size)[0] for text in labels) + 4
    picture: UInt8Array = np.full((height, total, 3), 255, dtype=np.uint8)
    levels = np.rint(np.linspace(255, 0, height - 2 * margin)).astype(int)
    picture[margin:-margin, left : left + width] = colormap_table(colormap)[levels][:, None]
    rows = np.rint(np.linspace(height - margin - 1, margin, num_ticks)).astype(int)
    for row, text in zip(rows.tolist(), labels, strict=True):
        picture[row, left + width : left + width + 5] = 60
        picture = draw_text(picture, text, (left + width + 9, row), size=size, anchor="lm")
    return picture


def side_by_side(
    panels: Sequence[UInt8Array],
    labels: Sequence[str] | None = None,
    *,
    gap: int = 8,
    background: Color = (255, 255, 255),
) -> UInt8Array:
    """Puts pictures in a row, aligned at the top, with a label above each if given.

    Args:
        panels: ``uint8`` RGB pictures of any height and width; at least one.
        labels: One text per panel.
        gap: Pixels between panels.
        background: RGB of gaps and of the space under shorter panels.

    Returns:
        ``uint8`` RGB, ``(H, W, 3)`` with H the largest height.

    Raises:
        ValueError: No panel, or another number of labels than panels.
    """
    if not panels:
        raise ValueError("side_by_side needs at least one panel, got none.")
    for panel in panels:
        check_picture(panel)
    if labels is not None:
        if len(labels) != len(panels):
            raise ValueError(f"Expected one label per panel, got {len(labels)} labels for {len(panels)} panels.")
        panels = [label(panel, text, background=background) for panel, text in zip(panels, labels, strict=True)]
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + gap * (len(panels) - 1)
    row: UInt8Array = np.full((height, width, 3), background, dtype=np.uint8)
    column = 0
    for panel in panels:
        row[: panel.shape[0], column : column + panel.shape[1]] = panel
        column += panel.shape[1] + gap
    return row


def _jet() -> UInt8Array:
    """The trapezoids of JET, rounded half to even as OpenCV's ``COLORMAP_JET`` has them."""
    level = np.arange(256)[:, None]
    centre = np.array([3, 2, 1])  # red, green, blue peak at 3/4, 2/4, 1/4 of the range
    twice = 3 * 255 - np.abs(8 * level - 510 * centre)
    return np.rint(np.clip(twice / 2, 0, 255)).astype(np.uint8)


def _checked_map(anomaly_map: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = np.asarray(anomaly_map, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"Expected a map of shape (H, W), got {values.shape}.")
    if not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise ValueError(f"The map has {count} of {values.size} values that are NaN or infinite; they have no colour.")
    return values


def _levels(values: npt.NDArray[np.float32], vmin: float | None, vmax: float | None) -> UInt8Array:
    low = float(values.min()) if vmin is None else vmin
    high = float(values.max()) if vmax is None else vmax
    if low > high or (low == high and vmin is not None and vmax is not None):
        raise ValueError(f"vmin must be below vmax, got vmin={low:g} and vmax={high:g}.")
    span = high - low if high > low else 1.0
    return (np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8)


def _resized(values: npt.NDArray[np.float32], size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if values.shape == size:
        return values
    height, width = size
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
