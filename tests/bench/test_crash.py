"""CRASH's benchmarks at sizes that take no time: both forms must say the same."""

import torch

from mmattn.bench import crash as bench
from mmattn.bench import crash_video
from mmattn.bench.timer import Options

QUICK = Options(repeats=1, quick=True)


def test_both_forms_agree_and_a_quick_run_claims_nothing():
    report = bench.forward(QUICK)
    assert report.agrees
    assert report.missed == []
    assert [comparison.peer for _, comparison in report.comparisons] == [
        "frame by frame",
        "ours on torch's own product",
    ] * 2
    assert {case for case, _ in report.comparisons} == {"forward (1, 8, 6, 32)", "forward (10, 8, 6, 32)"}


def test_loss_and_gradient_of_a_training_step_agree():
    report = bench.training(QUICK)
    assert report.agrees
    assert [case for case, _ in report.comparisons] == ["training step (10, 8, 6, 32)"]


def test_a_stream_is_timed_per_frame_and_gives_the_same_scores():
    report = bench.streaming(QUICK)
    (measure,) = report.measures
    assert measure.value > 0
    difference = float(measure.note.rpartition(" ")[2])
    assert difference < 1e-5


def test_the_two_forms_share_their_weights():
    model, peer = bench.build(quick=True)
    assert torch.equal(peer.phi_x[0].weight, model.phi_x.weight)
    assert torch.equal(peer.sp_attention.wv.weight, model.object_attention.value.weight)


def test_a_video_is_worked_off_at_some_rate():
    (measure,) = crash_video.run(QUICK).measures
    assert measure.value > 0
    assert measure.note.startswith("10 frames of 640 x 360")
