"""Curves as pictures: a score over time, how scores of two groups are spread, whether probabilities mean what they say.

Drawn with Matplotlib's Agg canvas.

Figures are made without pyplot, so nothing is kept between calls and threads do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["plot_curve", "plot_histogram", "plot_reliability"]

UInt8Array = npt.NDArray[np.uint8]

# Blue, vermilion and the greys around them: told apart with every common colour-vision deficiency (Okabe and Ito).
_BLUE, _VERMILION, _INK, _SOFT, _GRID = "#0072B2", "#D55E00", "#1b1c1e", "#676b72", "#e6e6e2"
_DPI = 100


def plot_curve(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    threshold: float | None = None,
    spread: npt.ArrayLike | None = None,
    events: Mapping[str, float] | None = None,
    xlabel: str = "time (s)",
    ylabel: str = "score",
    title: str = "",
    size: tuple[int, int] = (300, 800),
    ylim: tuple[float, float] | None = (0.0, 1.0),
) -> UInt8Array:
    """Draws one curve, as a risk over seconds.

    Args:
        x: ``(N,)``, increasing.
        y: ``(N,)``; NaN leaves a gap.
        threshold: Drawn as a dashed line; the curve is filled where it is above.
        spread: ``(N,)``, not negative; a band of this half-width is drawn behind the curve.
        events: Name -> position on x, marked by vertical lines, as ``{"accident": 3.2}``.
        xlabel: With its unit.
        ylabel: With its unit if it has one.
        title: Above the plot.
        size: Height and width in pixels.
        ylim: Range of y; widened to what there is, ``None`` takes the range of the data.

    Returns:
        ``uint8`` RGB, ``(*size, 3)``.

    Raises:
        ValueError: x and y differ in length, are empty, or x is not increasing.
        ImportError: Matplotlib is not installed.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.ndim != 1 or xs.shape != ys.shape or xs.size == 0:
        raise ValueError(f"Expected x and y of one length above 0, got {xs.shape} and {ys.shape}.")
    if not np.isfinite(xs).all() or (np.diff(xs) < 0).any() or np.isinf(ys).any():
        raise ValueError("x must be finite and increasing, and y must not be infinite.")
    figure, axes = _axes(size, xlabel, ylabel, title)
    if spread is not None:
        half = np.asarray(spread, dtype=np.float64)
        if half.shape != ys.shape:
            raise ValueError(f"Expected a spread as long as the curve, got {half.shape} and {ys.shape}.")
        axes.fill_between(xs, ys - half, ys + half, color=_BLUE, alpha=0.2, linewidth=0)
    # A single point has no line; a marker shows it.
    axes.plot(xs, ys, color=_BLUE, linewidth=2, solid_capstyle="round", marker="o" if xs.size == 1 else None)
    if threshold is not None:
        above = np.nan_to_num(ys, nan=-np.inf) >= threshold
        axes.fill_between(xs, threshold, ys, where=above, interpolate=True, color=_VERMILION, alpha=0.28, linewidth=0)
        axes.axhline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (5, 4)))
        _note(axes, f"threshold {threshold:.3g}", (1, threshold), axes.get_yaxis_transform(), "right")
    shown = [*xs[[0, -1]].tolist(), *(events or {}).values()]
    margin = (max(shown) - min(shown)) * 0.01 or 0.5
    axes.set_xlim(min(shown) - margin, max(shown) + margin)
    for name, position in (events or {}).items():
        axes.axvline(position, color=_VERMILION, linewidth=1.6)
        _note_beside(axes, name, position, _VERMILION)
    _set_ylim(axes, ys, ylim)
    return _pixels(figure)


def plot_histogram(
    normal: npt.ArrayLike,
    others: npt.ArrayLike = (),
    *,
    threshold: float | None = None,
    labels: tuple[str, str] = ("normal", "anomalous"),
    xlabel: str = "score",
    title: str = "",
    size: tuple[int, int] = (300, 800),
    num_bins: int = 40,
) -> UInt8Array:
    """Draws how the scores of two groups are spread, over common bins.

    Args:
        normal: ``(N,)`` scores of the first group.
        others: ``(M,)`` scores of the second; may be empty, as either may.
        threshold: Drawn as a dashed line.
        labels: Names of the groups.
        xlabel: With its unit if it has one.
        title: Above the plot.
        size: Height and width in pixels.
        num_bins: Bins over the range of all scores.

    Returns:
        ``uint8`` RGB, ``(*size, 3)``.

    Raises:
        ValueError: No scores at all, or some are not finite.
        ImportError: Matplotlib is not installed.
    """
    groups = [np.asarray(group, dtype=np.float64).ravel() for group in (normal, others)]
    scores = np.concatenate(groups)
    if scores.size == 0 or not np.isfinite(scores).all():
        bad = int(scores.size - np.isfinite(scores).sum())
        raise ValueError(f"Expected at least one score, all finite; got {scores.size} of which {bad} are not.")
    figure, axes = _axes(size, xlabel, "count", title)
    edges = np.histogram_bin_edges(scores, bins=num_bins)
    for group, name, color in zip(groups, labels, (_BLUE, _VERMILION), strict=True):
        if group.size:
            text = f"{name} ({group.size})"
            axes.hist(group, bins=edges, color=color, alpha=0.3, linewidth=0)
            axes.hist(group, bins=edges, color=color, histtype="step", linewidth=1.6, label=text)
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (5, 4)))
        _note_beside(axes, f"threshold {threshold:.3g}", threshold, _INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, labelcolor=_INK, loc="best")
    return _pixels(figure)


def plot_reliability(
    edges: npt.ArrayLike,
    counts: npt.ArrayLike,
    confidence: npt.ArrayLike,
    frequency: npt.ArrayLike,
    *,
    xlabel: str = "predicted probability",
    ylabel: str = "how often it happened",
    title: str = "",
    size: tuple[int, int] = (420, 480),
) -> UInt8Array:
    """Draws a reliability diagram: on the dashed diagonal, probabilities mean what they say.

    Args:
        edges: ``(K + 1,)`` borders of the bins, ascending from 0 to 1.
        counts: ``(K,)`` probabilities in each bin, written at its point.
        confidence: ``(K,)`` mean probability of each bin, NaN in an empty one.
        frequency: ``(K,)`` share of positives in each bin, NaN in an empty one.
        xlabel: Of the probabilities.
        ylabel: Of the shares.
        title: Above the plot.
        size: Height and width in pixels.

    Returns:
        ``uint8`` RGB, ``(*size, 3)``.

    Raises:
        ValueError: The lengths do not fit each other.
        ImportError: Matplotlib is not installed.
    """
    borders, amounts = np.asarray(edges, dtype=np.float64), np.asarray(counts)
    means, shares = np.asarray(confidence, dtype=np.float64), np.asarray(frequency, dtype=np.float64)
    if not borders.shape[0] - 1 == amounts.shape[0] == means.shape[0] == shares.shape[0]:
        raise ValueError(f"Got {len(borders)} edges for {len(amounts)}, {len(means)} and {len(shares)} bins.")
    figure, axes = _axes(size, xlabel, ylabel, title)
    used = amounts > 0
    axes.bar(borders[:-1][used], shares[used], np.diff(borders)[used], align="edge", color=_BLUE, alpha=0.22)
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1.2, linestyle=(0, (5, 4)))
    axes.plot(means[used], shares[used], color=_BLUE, linewidth=2, marker="o", markersize=5)
    for x, y, amount in zip(means[used], shares[used], amounts[used], strict=True):
        axes.annotate(str(int(amount)), (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8,
                      color=_SOFT)  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.08)
    return _pixels(figure)


def _axes(size: tuple[int, int], xlabel: str, ylabel: str, title: str) -> tuple[Any, Any]:
    """Returns a figure of ``size`` pixels and its bare axes."""
    height, width = size
    if height < 100 or width < 100:
        raise ValueError(f"size must be at least (100, 100) pixels for the labels to fit, got {size}.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError("Plots need the package 'matplotlib'. Install it with: pip install matplotlib") from error
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, labelcolor=_INK, labelsize=9)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    # Text may hold dollar signs; it is never mathematics here.
    axes.set_xlabel(xlabel, color=_INK, fontsize=10, parse_math=False)
    axes.set_ylabel(ylabel, color=_INK, fontsize=10, parse_math=False)
    if title:
        axes.set_title(title, color=_INK, fontsize=11, fontweight="bold", loc="left", pad=12, parse_math=False)
    return figure, axes


def _note_beside(axes: Any, text: str, position: float, color: str) -> None:
    """Writes at the top of a vertical line, on the side where there is room."""
    low, high = axes.get_xlim()
    align = "right" if position > low + 0.75 * (high - low) else "left"
    _note(axes, text, (position, 1), axes.get_xaxis_transform(), align, color)


def _note(axes: Any, text: str, xy: tuple[float, float], transform: Any, align: str, color: str = _INK) -> None:
    axes.annotate(
        text,
        xy,
        xycoords=transform,
        xytext=(-3 if align == "right" else 4, -2 if xy[1] == 1 else 3),
        textcoords="offset points",
        ha=align,
        va="top" if xy[1] == 1 else "bottom",
        color=color,
        fontsize=9,
        parse_math=False,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
    )


def _set_ylim(axes: Any, values: npt.NDArray[np.float64], ylim: tuple[float, float] | None) -> None:
    present = values[~np.isnan(values)]
    if ylim is None or present.size == 0:
        return
    low, high = min(ylim[0], float(present.min())), max(ylim[1], float(present.max()))
    # A little air, so that a line at the limit is whole.
    axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))


def _pixels(figure: Any) -> UInt8Array:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
