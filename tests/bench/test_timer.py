"""The protocol of fair timing."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.bench.timer import (
    Agreement,
    Comparison,
    Peer,
    Timing,
    agreement,
    compare,
    interleave,
    num_threads,
    peak_extra_bytes,
)


def test_runs_are_taken_in_turn_after_the_warm_up():
    order: list[str] = []
    runs = {"a": lambda: order.append("a") or 0.0, "b": lambda: order.append("b") or 0.0}
    timings = interleave(runs, repeats=3, warmup=1)
    assert "".join(order) == "abababab"
    assert len(timings["a"].seconds) == len(timings["b"].seconds) == 3


def test_the_protocol_refuses_no_runs_at_all():
    with pytest.raises(ValueError, match="repeats=0"):
        interleave({}, repeats=0)


def test_median_and_interquartile_range_are_those_of_the_textbook():
    timing = Timing((4.0, 1.0, 3.0, 2.0, 5.0))
    assert timing.median == 3.0
    assert timing.iqr == 2.0
    assert Timing((2.0,)).iqr == 0.0


def test_ratio_of_medians_and_pairwise_ratio_are_reported_separately():
    # A machine that slows down to half its speed after the first round moves the medians, not the pairs.
    comparison = Comparison("peer", 1, Timing((1.0, 2.0, 2.0)), Timing((3.0, 6.0, 6.0)), None, target=2.5)
    assert comparison.ratio == 3.0
    assert comparison.pairwise_ratio == 3.0
    assert comparison.met is True


def test_a_fast_but_wrong_result_does_not_meet_its_target():
    wrong = Agreement(max_abs=1.0, max_rel=0.5, tolerance=1e-4)
    assert Comparison("peer", 1, Timing((1.0,)), Timing((9.0,)), wrong, target=2.0).met is False


def test_outputs_are_compared_before_anything_is_timed():
    calls: list[str] = []

    def run(name: str, value: float) -> float:
        calls.append(name)
        return value

    ours = functools.partial(run, "ours", 1.0)
    peers = {"right": Peer(functools.partial(run, "right", 1.0)), "dense": Peer(lambda: 7.0, same_result=False)}
    right, dense = compare(ours, peers, repeats=2, warmup=0)
    assert calls[:2] == ["ours", "right"]
    assert right.agreement is not None
    assert right.agreement.max_abs == 0.0
    assert dense.agreement is None


def test_agreement_counts_equal_infinities_as_equal_and_one_sided_nan_as_wrong():
    inf = float("inf")
    assert agreement(torch.tensor([-inf, 2.0]), torch.tensor([-inf, 2.0])).max_abs == 0.0
    assert not agreement(torch.tensor([float("nan")]), torch.tensor([1.0])).ok
    assert not agreement(torch.tensor([-inf, 2.0]), torch.tensor([0.0, 2.0])).ok


def test_agreement_names_the_shapes_that_differ():
    with pytest.raises(ValueError, match=r"ours \[\(2,\)\], the peer's \[\(3,\)\]"):
        agreement(torch.zeros(2), torch.zeros(3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20))
def test_relative_difference_does_not_depend_on_the_scale(values: list[float]):
    x = torch.tensor(values, dtype=torch.float64)
    y = x + 0.125
    assert agreement(x, y).max_rel == pytest.approx(agreement(4 * x, 4 * y).max_rel)


def test_number_of_threads_is_restored_after_an_error():
    before = torch.get_num_threads()
    inside: list[int] = []

    def fail() -> None:
        with num_threads(before + 1):
            inside.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [before + 1]
    assert torch.get_num_threads() == before


def build_run_of(megabytes: int):
    def run() -> torch.Tensor:
        scratch = torch.ones(megabytes * 2**18)  # float32
        return scratch[:1].clone()

    return run


def test_peak_memory_counts_what_a_run_frees_again():
    extra = peak_extra_bytes(functools.partial(build_run_of, 192))
    assert 0.9 * 192 * 2**20 < extra < 1.3 * 192 * 2**20


def end_the_process():
    raise SystemExit(3)


def test_a_measuring_process_that_dies_is_reported():
    with pytest.raises(RuntimeError, match="ended with code 3"):
        peak_extra_bytes(end_the_process)
