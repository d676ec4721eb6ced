"""Draws docs/images/accident_metrics.png and prints the table of docs/accident_metrics.md.

Run: python docs/accident_metrics.py
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmattn.media.files import atomic_path
from mmattn.metrics.accident import AccidentReport, ClipScores, accident_report, far_threshold, lead_time
from mmattn.metrics.accident_legacy import legacy_points

FPS, FRAMES, CLIPS = 10.0, 50, 450
PICTURE = Path(__file__).parent / "images" / "accident_metrics.png"
SCORERS = {"chance": (0.0, "#D55E00"), "warns about 1 s ahead": (4.0, "#0072B2")}
"""Name -> (how far the logit rises in the last 1.5 s before an accident, colour)."""


class Clips(NamedTuple):
    """Scores (N, T), labels (N,), times of accident (N,) in frames."""

    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    toas: npt.NDArray[np.int64]

    def threshold(self, rate: float) -> float:
        """Returns the threshold for a false-alarm rate of these clips."""
        return far_threshold(self.scores[self.labels == 0].max(axis=1), rate)


def make_clips(rise: float, seed: int) -> Clips:
    """Returns clips of CCD's length, a third with an accident: each has a level of its own, and wanders around it."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(CLIPS) % 3 == 0).astype(np.int64)
    toas = np.where(labels == 1, rng.integers(16, FRAMES, CLIPS), FRAMES + 1)
    wander = 0.08 * np.cumsum(rng.standard_normal((CLIPS, FRAMES)), axis=1)
    nearness = np.clip(1 - (toas[:, None] - np.arange(FRAMES)) / (1.5 * FPS), 0, 1) * labels[:, None]
    logits = -1.2 + rng.standard_normal((CLIPS, 1)) + wander + rise * nearness
    return Clips(1 / (1 + np.exp(-logits)), labels, toas)


def reports() -> dict[str, AccidentReport]:
    """Returns the metrics of each scorer, the threshold taken from other clips than those it is judged on."""
    return {
        name: accident_report(*make_clips(rise, seed=0), FPS, threshold=make_clips(rise, seed=1).threshold(0.1))
        for name, (rise, _) in SCORERS.items()
    }


def table() -> str:
    """Returns the Markdown table of the page."""
    found = reports()
    rows = [
        ("legacy AP", "legacy_ap", ""),
        ("legacy mTTA", "legacy_mtta", " s"),
        ("legacy TTA@R80", "legacy_tta_r80", " s"),
        ("legacy P@R80", "legacy_p_r80", ""),
        ("video AP", "video_ap", ""),
        ("mAP 0.5/1.0/1.5 s, matched", "nexar_map_matched", ""),
        ("mAP 0.5/1.0/1.5 s, positives only", "nexar_map_positives", ""),
        ("mAUC@0.1 (chance 0.5)", "mauc_far10", ""),
        ("mTTA@0.1", "mtta_far10", " s"),
        ("lead time at 10 % false alarms", "lead_time_far10", " s"),
        ("accidents warned of at that threshold", "recall_far10", ""),
    ]
    lines = [f"| metric | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for title, key, unit in rows:
        lines.append(f"| {title} | {' | '.join(f'{report.scores()[key]:.2f}{unit}' for report in found.values())} |")
    return "\n".join(lines)


def draw(path: Path) -> None:
    """Draws legacy time against recall, and real warning time against the false-alarm rate."""
    figure = Figure(figsize=(9.6, 3.9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rates = np.linspace(0.0, 0.99, 100)
    for name, (rise, colour) in SCORERS.items():
        clips = make_clips(rise, seed=0)
        points = legacy_points(ClipScores.check(*clips))
        seconds = points.relative_time * FRAMES / FPS
        left.plot(points.recall, seconds, color=colour, linewidth=2, label=f"{name}: mTTA {seconds.mean():.2f} s")
        leads = [lead_time(*clips, FPS, threshold=clips.threshold(rate)).mean for rate in rates]
        right.plot(rates, leads, color=colour, linewidth=2, label=name)
    left.set(title="Legacy: mTTA is the mean of this curve", xlabel="recall", ylabel="legacy time to accident (s)")
    right.axvline(0.1, color="#676b72", linewidth=1.2, linestyle=(0, (5, 4)))
    right.set(title="What a driver gets", xlabel="false-alarm rate", ylabel="mean warning, misses 0 (s)")
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    draw(PICTURE)
    print(table())
