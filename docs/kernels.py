"""Draws docs/images/kernels.png and prints the table of docs/kernels.md, both from the recorded results.

Run: python docs/kernels.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmattn.media.files import atomic_path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PICTURE = Path(__file__).parent / "images" / "kernels.png"
RECORDED = {"attention": "softmax attention, T = 8192", "linear": "linear in time, T = 2048 unless said"}
COLOURS = {"met": "#0072B2", "missed": "#D55E00", "": "#9aa5b1"}
MEANINGS = {"met": "target met", "missed": "target missed", "": "no target"}


class Row(NamedTuple):
    """One comparison: times in seconds, and whether the target set before measuring was met ("" without one)."""

    case: str
    peer: str
    ours: float
    theirs: float
    target: float | None
    verdict: str

    @property
    def ratio(self) -> float:
        """How many times faster we are; below 1 the other one is."""
        return self.theirs / self.ours


def rows(benchmark: str, threads: int = 1) -> Iterator[Row]:
    """Yields what was recorded with this number of threads, in the order it was measured; nothing is left out."""
    record = json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))
    for entry in record["comparisons"]:
        if entry["threads"] == threads:
            verdict = {None: "", True: "met", False: "missed"}[entry["met"]]
            times = entry["ours"]["median"], entry["theirs"]["median"]
            yield Row(entry["case"], entry["peer"], *times, entry["target"], verdict)


def spoken(seconds: float) -> str:
    """Returns a time with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def table() -> str:
    """Returns the Markdown table of the page."""
    lines = ["| case | against | ours | theirs | ratio | target |", "|---|---|---|---|---|---|"]
    for benchmark in RECORDED:
        for row in rows(benchmark):
            times = f"{spoken(row.ours)} | {spoken(row.theirs)}"
            target = f"{row.target:.3g}x, {row.verdict}" if row.target else ""
            lines.append(f"| {row.case} | {row.peer} | {times} | **{row.ratio:.2f}x** | {target} |")
    return "\n".join(lines)


def draw_ratios(axes: Axes, found: list[Row], title: str) -> None:
    """Draws one bar per comparison, the first on top, from the line at which both are equally fast."""
    places = range(len(found))
    axes.barh(
        places,
        [row.ratio - 1 for row in found],
        left=1.0,
        color=[COLOURS[row.verdict] for row in found],
        height=0.7,
    )
    for place, row in zip(places, found, strict=True):
        text = f"{row.ratio:.2f}x" + (f", missed {row.target:.3g}x" if row.verdict == "missed" else "")
        colour = COLOURS["missed"] if row.verdict == "missed" or row.ratio < 1 else "black"
        axes.text(max(row.ratio, 1) * 1.08, place, text, va="center", fontsize=8, color=colour)
        if row.target:
            axes.plot([row.target] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.4)
    axes.set_yticks(places, [f"{row.case}\nagainst {row.peer}" for row in found], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5, 80)
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5x", "1x", "2x", "5x", "10x", "20x", "50x"], fontsize=8)
    axes.minorticks_off()
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("how many times faster; left of 1x: slower; black mark: target", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(path: Path) -> None:
    """Draws all recorded ratios of one thread."""
    figure = Figure(figsize=(12.0, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (benchmark, title) in zip(figure.subplots(1, 2), RECORDED.items(), strict=True):
        draw_ratios(axes, list(rows(benchmark)), title)
    patches = [Patch(color=COLOURS[verdict], label=text) for verdict, text in MEANINGS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    draw(PICTURE)
    print(table())
