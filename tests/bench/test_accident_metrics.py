"""The benchmark of the accident metrics runs, and both sides of it agree."""

import numpy as np

from mmattn.bench.accident_metrics import make_clips, run
from mmattn.bench.timer import Options
from mmattn.metrics.accident import video_ap


def test_benchmark_compares_equal_results() -> None:
    report = run(Options(repeats=1, quick=True))
    assert report.agrees
    assert [(case, c.peer) for case, c in report.comparisons] == [("20 clips of 30 frames", "threshold loop")]


def test_benchmark_clips_are_a_task_between_chance_and_perfection_and_follow_their_seed() -> None:
    scores, labels, toas = make_clips(90, 50, seed=3)
    assert (scores.shape, labels.sum(), set(toas)) == ((90, 50), 30, {45, 51})
    assert 0.4 < video_ap(scores, labels, toas) < 0.95
    assert (make_clips(90, 50, seed=3)[0] == scores).all()
    assert not np.isin(scores, (0.0, 1.0)).any()
