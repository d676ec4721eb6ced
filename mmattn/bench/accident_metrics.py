"""The legacy accident metrics by binary search beside the published loop over thresholds, at the size of DAD's test."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mmattn.bench.peers.accident_metrics import legacy_threshold_loop
from mmattn.bench.report import Measure, Report
from mmattn.bench.timer import Options, Peer
from mmattn.metrics.accident import legacy_metrics, video_ap

__all__ = ["make_clips", "run"]

_TARGET = 50.0
_TOLERANCE = 1e-7
_FPS = 20.0


def run(options: Options) -> Report:
    """Times 460 clips of 100 frames (20 of 30 when quick)."""
    count, frames = (20, 30) if options.quick else (460, 100)
    scores, labels, toas = make_clips(count, frames)

    def ours() -> torch.Tensor:
        found = legacy_metrics(scores, labels, toas, _FPS)
        return torch.tensor([found.ap, found.mtta, found.tta_r80, found.p_r80], dtype=torch.float64)

    def loop() -> torch.Tensor:
        return torch.tensor(legacy_threshold_loop(scores, labels, toas, _FPS), dtype=torch.float64)

    peers = {"threshold loop": Peer(loop, target=None if options.quick else _TARGET)}
    report = Report("crash_metrics")
    report.compare(f"{count} clips of {frames} frames", ours, peers, options, tolerance=_TOLERANCE)
    report.measures.append(
        Measure("video AP of these scores", video_ap(scores, labels, toas), note="not a claim: shows the task")
    )
    return report


def make_clips(
    count: int, frames: int, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns risks (N, T) that wander and rise before accidents, labels (N,) with a third of accidents, toas (N,)."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    toas = np.where(labels == 1, int(0.9 * frames), frames + 1)
    remaining = np.maximum(toas[:, None] - np.arange(frames), 0) / frames
    walk = np.cumsum(rng.standard_normal((count, frames)), axis=1) / np.sqrt(frames)
    logits = walk + labels[:, None] * 2.5 * np.exp(-4.0 * remaining) + rng.standard_normal((count, 1)) - 2.0
    return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32), labels, toas
