"""The AUPRO benchmark runs, and both sides of it agree."""

from mmattn.bench.aupro import make_maps, run
from mmattn.bench.timer import Options
from mmattn.metrics.aupro import label_regions


def test_benchmark_compares_equal_results() -> None:
    report = run(Options(repeats=1, quick=True))
    assert report.agrees
    assert [c.peer for _, c in report.comparisons] == [
        "threshold loop",
        "threshold loop with numpy.count_nonzero",
    ]


def test_benchmark_maps_fill_the_unit_range_and_follow_their_seed() -> None:
    maps, masks = make_maps(4, 90, seed=3)
    assert (maps.min(), maps.max()) == (0.0, 1.0)
    assert [min(label_regions(mask)[1], 1) for mask in masks] == [0, 1, 1, 1]
    assert (make_maps(4, 90, seed=3)[0] == maps).all()
