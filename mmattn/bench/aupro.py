"""AUPRO by histograms beside the loop over thresholds that defines it, on maps of Crane's size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.bench.peers.aupro import aupro_threshold_loop
from mmattn.bench.report import Measure, Report
from mmattn.bench.timer import Options, Peer, compare
from mmattn.metrics.aupro import aupro
from mmattn.metrics.ranking import pixel_curve

__all__ = ["make_maps", "run"]

_TARGET = 40.0
_TOLERANCE = 1e-6


def run(options: Options) -> Report:
    """Times 8 maps of 518 x 518 pixels (2 of 64 x 64 when quick)."""
    count, size = (2, 64) if options.quick else (8, 518)
    maps, masks = make_maps(count, size)
    peers = {
        "threshold loop": Peer(lambda: aupro_threshold_loop(maps, masks), target=None if options.quick else _TARGET),
        "threshold loop with numpy.count_nonzero": Peer(
            lambda: aupro_threshold_loop(maps, masks, count=np.count_nonzero)
        ),
    }
    report = Report("aupro")
    opencv_threads = cv2.getNumThreads()
    for threads in options.threads:
        cv2.setNumThreads(threads)
        comparisons = compare(
            lambda: aupro(maps, masks), peers, repeats=options.repeats, threads=threads, tolerance=_TOLERANCE
        )
        report.add(f"{count} maps of {size} x {size}", comparisons)
    cv2.setNumThreads(opencv_threads)
    curve = pixel_curve(maps, masks)
    report.measures.append(Measure("pixel AUROC of these maps", curve.auroc(), note="not a claim: shows the task"))
    report.notes.append("The loop finds regions once, before it starts; published versions often do it per threshold.")
    return report


def make_maps(count: int, size: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Returns smooth maps (N, H, W) in [0, 1] and masks with three regions in three of four pictures."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    maps = rng.random((count, size, size), dtype=np.float32)
    side = size // 9
    for index in range(count):
        for _ in range(3 if index % 4 else 0):
            y, x = rng.integers(0, size - side, 2)
            masks[index, y : y + side, x : x + side] = True
        defect = cv2.GaussianBlur(masks[index].astype(np.float32), (0, 0), size / 58)
        maps[index] = cv2.GaussianBlur(maps[index], (0, 0), 4.0) + 0.1 * defect
    return (maps - maps.min()) / (maps.max() - maps.min()), masks
