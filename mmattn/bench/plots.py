"""Pictures of measurements: time against length on logarithmic axes."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmattn.media.files import atomic_path

__all__ = ["loglog_slope", "plot_scaling"]

# Okabe and Ito's palette: told apart with every common form of colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"


def loglog_slope(points: Sequence[tuple[float, float]]) -> float:
    """Returns the least-squares exponent `p` of ``time ~ length ** p``; 1 is linear, 2 quadratic.

    Raises:
        ValueError: With fewer than two points.

    >>> loglog_slope([(1024, 1.0), (2048, 2.0), (4096, 4.0)])
    1.0
    """
    if len(points) < 2:
        raise ValueError(f"got {len(points)} point(s); a slope needs at least 2")
    x = [math.log(length) for length, _ in points]
    y = [math.log(seconds) for _, seconds in points]
    return round(statistics.linear_regression(x, y).slope, 6)


def plot_scaling(
    path: Path, series: Mapping[str, Sequence[tuple[float, float]]], *, title: str, xlabel: str = "tokens"
) -> None:
    """Writes a PNG of time against length, one line per series, each labelled with its slope.

    Args:
        path: File to write; its folder is made if needed.
        series: Name -> points ``(length, seconds)``, at least two each.
        title: One line above the picture.
        xlabel: What the length counts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        label = f"{name} (slope {loglog_slope(points):.2f})"
        axes.loglog(x, y, marker=_MARKERS[i % len(_MARKERS)], color=_COLOURS[i % len(_COLOURS)], label=label)
    lengths = sorted({length for points in series.values() for length, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{n / 1024:g}k" if n >= 1024 else f"{n:g}" for n in lengths])
    axes.minorticks_off()
    axes.set(title=title, xlabel=xlabel, ylabel="seconds")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
