"""The linear-attention benchmark's closures and its peer, at sizes that take no time."""

import torch

from mmattn.bench import linear as bench
from mmattn.bench.peers.linear import gla_recurrence, gla_recurrence_step
from mmattn.bench.timer import Options, Peer, compare
from mmattn.kernels.linear import gated_linear_attention, gated_linear_attention_step


def test_chunks_and_the_recurrence_agree_forward_and_backward() -> None:
    tensors = bench.inputs(100)
    for make in (bench.forward, bench.forward_backward):
        peers = {"recurrence": Peer(make(gla_recurrence, tensors))}
        (row,) = compare(make(gated_linear_attention, tensors), peers, repeats=1, warmup=0)
        assert row.agreement is not None
        assert row.agreement.max_rel < 1e-5


def test_all_ways_of_decoding_agree() -> None:
    ours = bench.decode(gated_linear_attention_step)()
    for step in (gla_recurrence_step, bench.recurrence_of_one_token):
        torch.testing.assert_close(bench.decode(step)(), ours, rtol=1e-4, atol=1e-5)


def test_a_forward_and_backward_run_returns_output_and_four_gradients() -> None:
    run = bench.forward_backward(gated_linear_attention, bench.inputs(32))
    assert [x.shape[-1] for x in run()] == [128, 64, 64, 128, 64]  # type: ignore[union-attr]


def test_a_quick_run_agrees_everywhere_and_claims_nothing() -> None:
    report = bench.run(Options(repeats=1, quick=True))
    assert report.agrees
    assert report.missed == []
    assert len(report.measures) == 3
