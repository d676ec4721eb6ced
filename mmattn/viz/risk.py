"""Risk over a video: boxes coloured by attention, a gauge, the curve of the last seconds, and all three on one frame.

Blue is calm, vermilion is an alert (told apart with every common colour-vision deficiency), and nothing is said by
colour alone: attention also widens a box's line, the threshold is a dashed line, and an alert has a frame and a word.
Drawn with Pillow, deterministic, no system fonts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mmattn.viz.heatmap import colormap_table
from mmattn.viz.text import Color, check_picture, draw_text, text_size

__all__ = ["draw_boxes", "gauge", "overlay_risk", "risk_strip"]

UInt8Array = npt.NDArray[np.uint8]

CALM: Color = (86, 180, 233)
ALERT: Color = (230, 99, 22)
_PANEL: Color = (24, 26, 30)
_NOTE: Color = (240, 228, 66)
_SOFT: Color = (96, 102, 112)
_INK: Color = (236, 238, 240)
# The dark quarter of the colours would not show on a night picture.
_LOWEST_LEVEL = 72
_SMOOTH = 3
_PANEL_HEIGHT = 112
_GAUGE_WIDTH = 150
_BAND = 6


def draw_boxes(
    image: UInt8Array, boxes: npt.ArrayLike, weights: npt.ArrayLike, captions: Sequence[str] = ()
) -> UInt8Array:
    """Returns a copy of a picture with boxes whose colour and line width follow their weights.

    The box of the largest weight has the brightest colour; the strongest is drawn last, on top.

    Args:
        image: ``uint8`` RGB, ``(H, W, 3)``.
        boxes: ``(n, 4)`` x1, y1, x2, y2, pixels.
        weights: ``(n,)``, not negative; only their ratios count.
        captions: A word for each box, or none.

    Raises:
        ValueError: Shapes do not fit, or a weight is negative or not finite.
    """
    corners, values = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(weights, np.float64).reshape(-1)
    check_picture(image)
    if len(corners) != len(values) or (captions and len(captions) != len(values)):
        raise ValueError(f"Got {len(corners)} boxes, {len(values)} weights and {len(captions)} captions.")
    if not np.isfinite(values).all() or (values < 0).any() or not np.isfinite(corners).all():
        raise ValueError("Weights must be finite and not negative, and boxes finite.")
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    shares = values / values.max() if values.size and values.max() > 0 else values
    scale = max(image.shape[:2]) / 640
    for i in np.argsort(shares, kind="stable"):
        color = attention_color(float(shares[i]))
        width = max(1, round((1 + 2.5 * float(shares[i])) * scale))
        x1, y1, x2, y2 = corners[i].tolist()
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        draw.rectangle(tuple(v + d for v, d in zip(box, (-1, -1, 1, 1), strict=True)), outline=_PANEL, width=width + 2)
        draw.rectangle(box, outline=color, width=width)
    drawn: UInt8Array = np.array(picture)
    for i in np.argsort(shares, kind="stable"):
        if captions and captions[i]:
            at = (round(min(corners[i, 0], corners[i, 2])) + 3, round(min(corners[i, 1], corners[i, 3])) + 2)
            drawn = draw_text(drawn, captions[i], at, color=_INK, size=12)
    return drawn


def attention_color(share: float) -> Color:
    """Returns the colour of a weight that is ``share`` of the largest one."""
    level = _LOWEST_LEVEL + round((255 - _LOWEST_LEVEL) * min(max(share, 0.0), 1.0))
    red, green, blue = colormap_table("inferno")[level].tolist()
    return red, green, blue


def gauge(
    risk: float, *, threshold: float | None = None, is_alert: bool = False, size: tuple[int, int] = (112, 150)
) -> UInt8Array:
    """Draws a half-circle filled up to the risk, with the number in it.

    Args:
        risk: In [0, 1].
        threshold: Marked on the circle.
        is_alert: Draw it in the colour of an alert.
        size: Height and width, pixels.

    Returns:
        ``uint8`` RGB ``(H, W, 3)``.

    Raises:
        ValueError: The risk is outside [0, 1].
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk must be in [0, 1], got {risk}.")
    height, width = size
    large = Image.new("RGB", (width * _SMOOTH, height * _SMOOTH), _PANEL)
    draw = ImageDraw.Draw(large)
    radius = min(width / 2 - 12, height - 40) * _SMOOTH
    middle, base = width * _SMOOTH / 2, (height - 24) * _SMOOTH
    circle = (middle - radius, base - radius, middle + radius, base + radius)
    thickness = max(round(radius / 4), 1)
    draw.arc(circle, 180, 360, fill=_SOFT, width=thickness)
    if risk > 0:
        draw.arc(circle, 180, 180 + 180 * risk, fill=ALERT if is_alert else CALM, width=thickness)
    if threshold is not None:
        angle = math.pi * (1 + threshold)
        ends = [(middle + r * math.cos(angle), base + r * math.sin(angle)) for r in (0.66 * radius, 1.1 * radius)]
        draw.line(ends, fill=_INK, width=_SMOOTH * 2)
    small = np.asarray(large.resize((width, height), Image.Resampling.LANCZOS))
    numbered = draw_text(small, f"{risk:.2f}", (width // 2, height - 30), color=_INK, size=20, anchor="mm")
    return draw_text(numbered, "risk", (width // 2, height - 10), color=_SOFT_TEXT, size=11, anchor="mm")


_SOFT_TEXT: Color = (164, 170, 180)


def risk_strip(
    times: npt.ArrayLike,
    risks: npt.ArrayLike,
    *,
    now: float,
    seconds: float = 10.0,
    threshold: float | None = None,
    alerts: Sequence[float] = (),
    size: tuple[int, int] = (112, 480),
) -> UInt8Array:
    """Draws the curve of the last seconds; its right edge is now.

    Args:
        times: ``(T,)`` seconds, ascending; those outside the window are left out.
        risks: ``(T,)`` in [0, 1].
        now: The moment at the right edge, seconds.
        seconds: Length of the window.
        threshold: Drawn as a dashed line.
        alerts: Moments of alerts, drawn as vertical lines with a mark.
        size: Height and width, pixels.

    Returns:
        ``uint8`` RGB, ``(*size, 3)``.

    Raises:
        ValueError: Shapes differ, or the window has no length.
    """
    moments, values = np.asarray(times, np.float64), np.asarray(risks, np.float64)
    if moments.shape != values.shape or moments.ndim != 1 or not seconds > 0:
        raise ValueError(f"Got times {moments.shape}, risks {values.shape} and a window of {seconds} s.")
    height, width = size
    large = Image.new("RGB", (width * _SMOOTH, height * _SMOOTH), _PANEL)
    draw = ImageDraw.Draw(large)
    left, right, top, bottom = 8 * _SMOOTH, (width - 8) * _SMOOTH, 16 * _SMOOTH, (height - 20) * _SMOOTH

    def place(time: float, value: float) -> tuple[float, float]:
        return right - (now - time) / seconds * (right - left), bottom - value * (bottom - top)

    shown = (moments >= now - seconds) & (moments <= now) & np.isfinite(values)
    points = [place(t, v) for t, v in zip(moments[shown].tolist(), values[shown].clip(0, 1).tolist(), strict=True)]
    draw.line([(left, bottom), (right, bottom)], fill=_SOFT, width=_SMOOTH)
    for time in alerts:
        if now - seconds <= time <= now:
            x = place(time, 0)[0]
            draw.line([(x, top), (x, bottom)], fill=ALERT, width=2 * _SMOOTH)
            mark = 5 * _SMOOTH
            draw.polygon([(x - mark, top - mark), (x + mark, top - mark), (x, top + mark)], fill=ALERT)
    if threshold is not None:
        y, dash = place(now, threshold)[1], 6 * _SMOOTH
        for x in np.arange(left, right, 2 * dash).tolist():
            draw.line([(x, y), (min(x + dash, right), y)], fill=_INK, width=_SMOOTH)
    if len(points) > 1:
        draw.line(points, fill=CALM, width=2 * _SMOOTH, joint="curve")
    if points:
        x, y = points[-1]
        dot = 4 * _SMOOTH
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=_INK)
    strip = np.asarray(large.resize((width, height), Image.Resampling.LANCZOS))
    strip = draw_text(strip, f"last {seconds:g} s", (8, height - 10), color=_SOFT_TEXT, size=11, anchor="lm")
    return draw_text(strip, f"{now:.1f} s", (width - 8, height - 10), color=_SOFT_TEXT, size=11, anchor="rm")


def overlay_risk(
    image: UInt8Array,
    boxes: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    times: npt.ArrayLike,
    risks: npt.ArrayLike,
    now: float,
    risk: float,
    threshold: float,
    alerts: Sequence[float] = (),
    captions: Sequence[str] = (),
    alert_seconds: float = 1.0,
    note: str = "",
) -> UInt8Array:
    """Returns a frame with its boxes, and below it gauge and curve.

    Args:
        image: ``uint8`` RGB, ``(H, W, 3)``, at least 320 wide.
        boxes: ``(n, 4)`` pixels.
        weights: ``(n,)`` attention.
        times: ``(T,)`` seconds of the curve.
        risks: ``(T,)`` risks.
        now: Time of this frame, seconds.
        risk: Risk at this frame, in [0, 1].
        threshold: Of the alerts.
        alerts: Moments of alerts; during ``alert_seconds`` after one the frame says so.
        captions: A word for each box, or none.
        alert_seconds: How long an alert is shown.
        note: A few words at the bottom of the picture, such as why not to trust it.

    Returns:
        ``uint8`` RGB, ``(H + 112, W, 3)``.

    Raises:
        ValueError: The picture is too narrow; else as the functions this is made of.
    """
    check_picture(image)
    width = image.shape[1]
    if width < 320:
        raise ValueError(f"The picture is {width} pixels wide, expected at least 320. Enlarge it first.")
    is_alert = any(0 <= now - moment < alert_seconds for moment in alerts)
    drawn = draw_boxes(image, boxes, weights, captions)
    if is_alert:
        drawn[:_BAND], drawn[-_BAND:], drawn[:, :_BAND], drawn[:, -_BAND:] = ALERT, ALERT, ALERT, ALERT
        size = 22 if width >= 480 else 14
        wide, tall = text_size("ALERT", size)
        drawn[_BAND : tall + 2 * _BAND, _BAND : wide + 3 * _BAND] = ALERT
        drawn = draw_text(drawn, "ALERT", (2 * _BAND, _BAND + 2), color=(255, 255, 255), size=size)
    if note:
        wide, tall = text_size(note, 14)
        drawn[-tall - 2 * _BAND :, : wide + 3 * _BAND] = _PANEL
        drawn = draw_text(drawn, note, (2 * _BAND, len(drawn) - tall - _BAND), color=_NOTE, size=14)
    left = gauge(risk, threshold=threshold, is_alert=is_alert, size=(_PANEL_HEIGHT, _GAUGE_WIDTH))
    rest = (_PANEL_HEIGHT, width - _GAUGE_WIDTH)
    right = risk_strip(times, risks, now=now, threshold=threshold, alerts=alerts, size=rest)
    return np.concatenate([drawn, np.concatenate([left, right], axis=1)])
