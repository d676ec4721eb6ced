"""Speech as a picture: the log-mel spectrum above, which part of the text was read when below.

Drawn with Matplotlib's Agg canvas, whose font has the letters of the International Phonetic Alphabet. Figures are made
without pyplot, so nothing is kept between calls and threads do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["log_mel", "plot_speech"]

UInt8Array = npt.NDArray[np.uint8]

_INK, _SOFT = "#1b1c1e", "#676b72"
_DPI = 100
_BANDS = 80
_WINDOW_SECONDS, _HOP_SECONDS = 0.04, 0.01
_RANGE_DB = 70.0
_TICKS_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000)
_MEL_HEIGHT = 230
_ROW_HEIGHT = 14  # of a text token, pixels
_TEXT_HEIGHTS = (170, 840)
_WIDTHS = (760, 1800)
_PIXELS_PER_SECOND = 150
_MARGIN = 170  # for labels, pixels


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
    figure, (upper, lower) = _panels(width, (_MEL_HEIGHT, height), title)
    _draw_mel(upper, wave, sample_rate)
    # Without frames there is nothing to show but the empty panel.
    shown = weights if weights.shape[1] else np.zeros((len(weights), 1))
    extent = (0.0, shown.shape[1] / frame_rate, 0.0, float(len(weights)))
    lower.imshow(shown, origin="lower", aspect="auto", extent=extent, cmap="inferno", vmin=0, interpolation="nearest",
                 vmax=max(float(shown.max()), 1e-6))  # fmt: skip
    _label_rows(lower, symbols, words, height / len(weights))
    lower.set_ylim(0, len(weights))
    lower.set_xlim(0, seconds)
    lower.set_xlabel("time (s)", color=_INK, fontsize=10)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


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
    edges = _to_hertz(np.linspace(0, _to_mel(sample_rate / 2), bands + 2))
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    # Triangles at least one bin wide, so that no low band is empty.
    widths = np.maximum(np.diff(edges), sample_rate / size)
    rising = (hertz - edges[1:-1, None]) / widths[:-1, None] + 1
    falling = (edges[1:-1, None] - hertz) / widths[1:, None] + 1
    filters = np.clip(np.minimum(rising, falling), 0, None)
    return np.asarray(10 * np.log10(np.maximum(filters @ power.T, 1e-10)))


def _draw_mel(axes: Any, wave: npt.NDArray[np.float64], sample_rate: int) -> None:
    power = log_mel(wave, sample_rate)
    top = float(power.max())
    extent = (0.0, wave.size / sample_rate, 0.0, float(_BANDS))
    axes.imshow(power, origin="lower", aspect="auto", extent=extent, cmap="inferno", vmin=top - _RANGE_DB, vmax=top)
    ticks = [hertz for hertz in _TICKS_HZ if hertz <= sample_rate / 2]
    # Band i is centred on edge i + 1 of the filters' BANDS + 2.
    places = _to_mel(np.array(ticks, np.float64)) / _to_mel(sample_rate / 2) * (_BANDS + 1) - 0.5
    axes.set_yticks(places, [f"{hertz // 1000}k" if hertz >= 1000 else str(hertz) for hertz in ticks])
    axes.set_ylim(0, _BANDS)
    axes.set_ylabel("frequency (Hz)", color=_INK, fontsize=10)


def _label_rows(axes: Any, symbols: Sequence[str], words: Sequence[str], row_height: float) -> None:
    """Writes symbols on the left if rows are high enough, and words on the right, as many as there is room for."""
    axes.set_ylabel("text, from bottom to top", color=_INK, fontsize=10)
    if row_height >= 10:
        axes.set_yticks(np.arange(len(symbols)) + 0.5)
        for label, symbol in zip(axes.set_yticklabels(symbols), symbols, strict=True):
            label.set(parse_math=False, fontsize=9 if len(symbol) < 6 else 7)
    else:
        axes.set_yticks([])
    start, free = 0, -np.inf
    borders: set[int] = set()
    for word, group in groupby(words):
        count = sum(1 for _ in group)
        middle = start + count / 2
        if word and (middle - free) * row_height >= 12:
            borders |= {start, start + count}
            axes.annotate(word, (1, middle), xycoords=axes.get_yaxis_transform(), xytext=(5, 0), color=_INK,
                          textcoords="offset points", va="center", fontsize=9, parse_math=False)  # fmt: skip
            free = middle
        start += count
    whole_width = axes.get_yaxis_transform()
    axes.hlines(sorted(borders), 0, 1, transform=whole_width, colors="white", linewidth=0.4, alpha=0.35)


def _panels(width: int, heights: tuple[int, int], title: str) -> tuple[Any, Any]:
    """Returns a figure and its two axes, which share the time."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError("Plots need the package 'matplotlib'. Install it with: pip install matplotlib") from error
    total = sum(heights) + (120 if title else 90)
    figure = Figure(figsize=(width / _DPI, total / _DPI), dpi=_DPI, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    for panel in axes:
        panel.tick_params(colors=_SOFT, labelcolor=_INK, labelsize=9)
        panel.spines[:].set_color(_SOFT)
    if title:
        axes[0].set_title(title, color=_INK, fontsize=11, fontweight="bold", loc="left", pad=10, parse_math=False)
    return figure, axes


def _to_mel(hertz: Any) -> Any:
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


def _to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))
