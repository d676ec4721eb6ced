"""Speech as a picture: the log-mel spectrum above, which part of the text was read when below.

Drawn with NumPy and Pillow, which takes a few milliseconds where Matplotlib's figures take hundreds: many results are
short, and their pictures must not cost more than their sound. Only the font is Matplotlib's, DejaVu Sans, for it has
the letters of the International Phonetic Alphabet. Nothing is kept between calls but fonts and filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mmattn.viz.heatmap import colormap_table

__all__ = ["log_mel", "plot_speech"]

FloatArray = npt.NDArray[np.float64]
UInt8Array = npt.NDArray[np.uint8]

_INK, _SOFT = "#1b1c1e", "#676b72"
_BANDS = 80
_WINDOW_SECONDS, _HOP_SECONDS = 0.04, 0.01
_RANGE_DB = 70.0
_TICKS_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000)
_PIXELS_PER_SECOND = 150
# All of the following in pixels.
_MEL_HEIGHT = 230
_ROW_HEIGHT = 14  # of a text token
_TEXT_HEIGHTS = (170, 840)
_WIDTHS = (760, 1800)
_MARGIN = 170  # for labels on both sides
_TITLE_HEIGHT, _TOP, _GAP, _BOTTOM = 30, 14, 24, 52
_TICK = 4
_SMALL, _NORMAL, _LARGE, _BOLD = 10, 12, 14, 15


def plot_speech(
    samples: npt.ArrayLike,
    sample_rate: int,
    alignment: npt.ArrayLike,
    symbols: Sequence[str],
    *,
    words: Sequence[str] = (),
    frame_rate: float,
    title: str = "",
) -> UInt8Array:
    """Draws spectrum and alignment over one time axis.

    Args:
        samples: ``(S,)`` floats, S at least 1.
        sample_rate: Hz.
        alignment: ``(M, N)`` weights of M text tokens in N frames, not negative; the largest is the brightest.
        symbols: M, written beside their rows where there is room.
        words: M, the word that each token belongs to, "" for none; neighbours of one word are joined. Written on the
            other side.
        frame_rate: Frames per second.
        title: Above.

    Returns:
        ``uint8`` RGB, ``(H, W, 3)``; larger for more seconds and more tokens, at most about 1200 x 1800.

    Raises:
        ValueError: Shapes do not fit, there is nothing to draw, or numbers are not finite.
        ImportError: Matplotlib is not installed.
    """
    wave, weights = np.asarray(samples, np.float64), np.asarray(alignment, np.float64)
    if wave.ndim != 1 or not wave.size or weights.ndim != 2 or not len(weights):
        raise ValueError(f"Got samples {wave.shape} and an alignment {weights.shape}, expected (S,) and (M, N).")
    if len(symbols) != len(weights) or (words and len(words) != len(weights)):
        raise ValueError(f"Got {len(symbols)} symbols and {len(words)} words for {len(weights)} rows.")
    if not np.isfinite(wave).all() or not np.isfinite(weights).all() or not frame_rate > 0:
        raise ValueError("Samples, weights and rate must be finite, the rate positive.")
    seconds = max(wave.size / sample_rate, weights.shape[1] / frame_rate)
    height = int(np.clip(_ROW_HEIGHT * len(weights), *_TEXT_HEIGHTS))
    width = int(np.clip(_MARGIN + _PIXELS_PER_SECOND * seconds, *_WIDTHS))
    layout = _Layout.of(width, height, symbols, words, bool(title))
    canvas = np.full((layout.lower + height + _BOTTOM, width, 3), 255, np.uint8)
    _paint_mel(canvas, layout, wave, sample_rate, seconds)
    runs = _word_runs(words, height / len(weights))
    _paint_alignment(canvas, layout, weights, frame_rate, seconds, runs)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for top, tall in ((layout.upper, _MEL_HEIGHT), (layout.lower, height)):
        draw.rectangle((layout.left - 1, top - 1, layout.right, top + tall), outline=_SOFT)
    if title:
        draw.text((layout.left, 10), _drawable(title, bold=True), fill=_INK, font=_font(_BOLD, bold=True), anchor="la")
    _label_mel(draw, layout, sample_rate)
    _label_rows(draw, layout, symbols, runs)
    _label_time(draw, layout, seconds)
    for text, top, tall in (
        ("frequency (Hz)", layout.upper, _MEL_HEIGHT),
        ("text, from bottom to top", layout.lower, height),
    ):
        _write_upwards(picture, text, top + tall // 2)
    return np.array(picture)


def log_mel(samples: npt.ArrayLike, sample_rate: int, bands: int = _BANDS) -> npt.NDArray[np.float64]:
    """Returns the power of mel bands in dB, ``(bands, frames)``, a frame every 10 ms under Hann windows of 40 ms.

    The scale is ``2595 log10(1 + f / 700)`` up to half the sample rate.

    Args:
        samples: ``(S,)``.
        sample_rate: Hz.
        bands: Number of bands.
    """
    wave = np.asarray(samples, np.float64)
    size, hop = max(2, round(_WINDOW_SECONDS * sample_rate)), max(1, round(_HOP_SECONDS * sample_rate))
    padded = np.pad(wave, (size // 2, size))
    starts = np.arange(0, max(wave.size, 1), hop)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size + 1)[:-1]
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # (frames, bins)
    return np.asarray(10 * np.log10(np.maximum(_mel_filters(sample_rate, size, bands) @ power.T, 1e-10)))


@cache
def _mel_filters(sample_rate: int, size: int, bands: int) -> FloatArray:
    """Returns triangles over the bins of a transform, ``(bands, bins)``."""
    edges = _to_hertz(np.linspace(0, _to_mel(sample_rate / 2), bands + 2))
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    # At least one bin wide, so that no low band is empty.
    widths = np.maximum(np.diff(edges), sample_rate / size)
    rising = (hertz - edges[1:-1, None]) / widths[:-1, None] + 1
    falling = (edges[1:-1, None] - hertz) / widths[1:, None] + 1
    return np.clip(np.minimum(rising, falling), 0, None)


def _to_mel(hertz: Any) -> Any:
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


def _to_hertz(mel: FloatArray) -> FloatArray:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


class _Layout(NamedTuple):
    """Where the two panels are: columns ``left`` to ``right``, first rows, and the height of the lower one."""

    left: int
    right: int
    upper: int
    lower: int
    height: int

    @classmethod
    def of(cls, width: int, height: int, symbols: Sequence[str], words: Sequence[str], with_title: bool) -> _Layout:
        """Leaves room for the longest labels, but never more than a third of the width on a side."""
        names = [*symbols, "16k"] if height / len(symbols) >= _SMALL else ["16k"]
        before = max(math.ceil(_font(_symbol_size(name)).getlength(_drawable(name))) for name in names)
        after = max((math.ceil(_font(_NORMAL).getlength(_drawable(word))) for word in set(words)), default=0)
        upper = _TOP + (_TITLE_HEIGHT if with_title else 0)
        left = min(_LARGE + 20 + before + 2 * _TICK, width // 3)
        return cls(left, width - min(max(after + 16, 20), width // 3), upper, upper + _MEL_HEIGHT + _GAP, height)


class _Run(NamedTuple):
    """Tokens ``start`` to ``stop`` of one word whose name there is room for."""

    word: str
    start: int
    stop: int


def _word_runs(words: Sequence[str], row_height: float) -> list[_Run]:
    """Returns the words to write, from the bottom up, as many as there is room for."""
    runs: list[_Run] = []
    start, free = 0, -math.inf
    for word, group in groupby(words):
        stop = start + sum(1 for _ in group)
        middle = (start + stop) / 2
        if word and (middle - free) * row_height >= _NORMAL:
            runs.append(_Run(word, start, stop))
            free = middle
        start = stop
    return runs


def _paint_mel(canvas: UInt8Array, layout: _Layout, wave: FloatArray, sample_rate: int, seconds: float) -> None:
    power = log_mel(wave, sample_rate)
    width = max(1, round((layout.right - layout.left) * min(1.0, wave.size / sample_rate / seconds)))
    levels = np.clip((power[::-1] - power.max()) / _RANGE_DB + 1, 0, 1).astype(np.float32)
    large = np.asarray(Image.fromarray(levels).resize((width, _MEL_HEIGHT), Image.Resampling.BILINEAR))
    canvas[layout.upper : layout.upper + _MEL_HEIGHT, layout.left : layout.left + width] = _colored(large)


def _paint_alignment(
    canvas: UInt8Array, layout: _Layout, weights: FloatArray, frame_rate: float, seconds: float, runs: Sequence[_Run]
) -> None:
    # Without frames there is nothing to show but the empty panel.
    shown = weights if weights.shape[1] else np.zeros((len(weights), 1))
    colors = _colored(shown / max(float(shown.max()), 1e-6))
    panel = canvas[layout.lower : layout.lower + layout.height, layout.left : layout.right]
    rows = (np.arange(layout.height)[::-1] + 0.5) * len(shown) / layout.height
    columns = (np.arange(panel.shape[1]) + 0.5) * (seconds * frame_rate / panel.shape[1])
    inside = int(np.count_nonzero(columns < shown.shape[1]))
    panel[:, :inside] = colors[rows.astype(int)[:, None], columns[:inside].astype(int)]
    for border in {run.start for run in runs} | {run.stop for run in runs}:
        row = panel[min(round(layout.height * (1 - border / len(shown))), layout.height - 1)]
        row += ((255 - row) // 5).astype(np.uint8)


def _colored(levels: npt.NDArray[Any]) -> UInt8Array:
    """Returns the colours of numbers; what is outside of [0, 1] has that of the nearest end."""
    return np.asarray(colormap_table("inferno")[np.clip(levels * 255 + 0.5, 0, 255).astype(np.uint8)])


def _label_mel(draw: ImageDraw.ImageDraw, layout: _Layout, sample_rate: int) -> None:
    for hertz in (hertz for hertz in _TICKS_HZ if hertz <= sample_rate / 2):
        # Band i is centred on edge i + 1 of the filters' BANDS + 2.
        place = float(_to_mel(hertz) / _to_mel(sample_rate / 2)) * (_BANDS + 1) - 0.5
        row = layout.upper + round(_MEL_HEIGHT * (1 - place / _BANDS))
        if row >= layout.upper:
            _label_left(draw, layout.left, row, f"{hertz // 1000}k" if hertz >= 1000 else str(hertz), _NORMAL)


def _label_rows(draw: ImageDraw.ImageDraw, layout: _Layout, symbols: Sequence[str], runs: Sequence[_Run]) -> None:
    """Writes symbols on the left if rows are high enough, and words on the right."""
    row_height = layout.height / len(symbols)
    bottom = layout.lower + layout.height
    if row_height >= _SMALL:
        for i, symbol in enumerate(symbols):
            _label_left(draw, layout.left, round(bottom - (i + 0.5) * row_height), symbol, _symbol_size(symbol))
    for run in runs:
        row = bottom - (run.start + run.stop) / 2 * row_height
        draw.text((layout.right + 7, row), _drawable(run.word), fill=_INK, font=_font(_NORMAL), anchor="lm")


def _label_left(draw: ImageDraw.ImageDraw, left: int, row: int, text: str, size: int) -> None:
    draw.line((left - _TICK, row, left - 1, row), fill=_SOFT)
    draw.text((left - 2 * _TICK, row), _drawable(text), fill=_INK, font=_font(size), anchor="rm")


def _label_time(draw: ImageDraw.ImageDraw, layout: _Layout, seconds: float) -> None:
    power = 10.0 ** math.floor(math.log10(seconds / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if seconds / (power * factor) <= 10)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    width, bottom = layout.right - layout.left, layout.lower + layout.height
    for i in range(int(seconds / step + 1e-6) + 1):
        column = layout.left + round(width * min(1.0, i * step / seconds))
        draw.line((column, bottom + 1, column, bottom + _TICK), fill=_SOFT)
        label = f"{i * step:.{decimals}f}"
        draw.text((column, bottom + 7), label, fill=_INK, font=_font(_NORMAL), anchor="ma")
    draw.text((layout.left + width // 2, bottom + 27), "time (s)", fill=_INK, font=_font(_LARGE), anchor="ma")


def _write_upwards(picture: Image.Image, text: str, middle: int) -> None:
    """Writes along the left side, from the bottom up."""
    left, top, right, bottom = _font(_LARGE).getbbox(text)
    flat = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(flat).text((-left, -top), text, fill=255, font=_font(_LARGE))
    upright = flat.transpose(Image.Transpose.ROTATE_90)
    picture.paste(_INK, (8, middle - upright.height // 2), upright)


def _symbol_size(symbol: str) -> int:
    return _NORMAL if len(symbol) < 6 else _SMALL


def _drawable(text: str, *, bold: bool = False) -> str:
    """Returns the text with a question mark for every run of characters that the font has no glyph for."""
    known = _characters(bold)
    runs = groupby(text, key=lambda character: ord(character) in known)
    return "".join("".join(characters) if is_known else "?" for is_known, characters in runs)


@cache
def _characters(bold: bool) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file(bold))).get_charmap())


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_file(bold)), size)


def _font_file(bold: bool) -> Path:
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise ImportError("Plots need the package 'matplotlib'. Install it with: pip install matplotlib") from error
    return Path(get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
