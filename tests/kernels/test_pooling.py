"""pool and select: segment representatives and block selection."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.kernels import BlockIndex, pool, select

X = torch.tensor([1.0, 3.0, 2.0, 6.0, 4.0]).view(1, 1, 5, 1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [2, 4, 4]),
        ("sum", [4, 8, 4]),
        ("sqrt", [4 / 2**0.5, 8 / 2**0.5, 4]),
        ("max", [3, 6, 4]),
        ("last", [3, 6, 4]),
    ],
)
@pytest.mark.parametrize("segments", [2, torch.tensor([[0, 2, 4, 5]])], ids=["blocks", "boundaries"])
def test_pooling_uses_the_true_length_of_the_tail(
    mode: str, expected: list[float], segments: int | torch.Tensor
) -> None:
    torch.testing.assert_close(pool(X, segments, mode).flatten(), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("mode", ["mean", "sum", "sqrt", "max", "last"])
def test_an_empty_segment_gives_zero_and_outer_tokens_are_left_out(mode: str) -> None:
    result = pool(X, torch.tensor([[1, 2, 2, 4]]), mode).flatten()
    assert result[:2].tolist() == [3.0, 0.0]
    assert result[2].item() == pytest.approx({"mean": 4, "sum": 8, "sqrt": 8 / 2**0.5, "max": 6, "last": 6}[mode])


@pytest.mark.parametrize("segments", [2, torch.tensor([[0, 2, 4, 5]])], ids=["blocks", "boundaries"])
def test_weights_are_softmaxed_inside_each_segment(segments: int | torch.Tensor) -> None:
    weights = torch.tensor([0.0, 3.0, 1.0, 1.0, 100.0]).view(1, 1, 5).log()
    result = pool(X, segments, weights=weights)
    torch.testing.assert_close(result.flatten(), torch.tensor([3.0, 4.0, 4.0]))


def test_boundaries_differ_between_batch_items() -> None:
    x = torch.arange(8.0).view(2, 1, 4, 1)
    assert pool(x, torch.tensor([[0, 1, 4], [0, 3, 4]])).flatten().tolist() == [0.0, 2.0, 5.0, 7.0]


@pytest.mark.parametrize("mode", ["mean", "sqrt", "max", "last"])
def test_pooling_is_differentiable_in_both_forms(mode: str) -> None:
    x = torch.randn(2, 2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    bounds = torch.tensor([[0, 3, 6, 7]]).expand(2, -1)
    assert torch.autograd.gradcheck(lambda value: pool(value, bounds, mode), x)
    torch.testing.assert_close(pool(x, bounds, mode), pool(x, 3, mode))


def test_long_sequences_keep_their_precision() -> None:
    x = torch.full((1, 1, 200_000, 1), 0.1)
    bounds = torch.tensor([[0, 199_990, 200_000]])
    assert pool(x, bounds)[0, 0, 1, 0].item() == pytest.approx(0.1, rel=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.ones(1, 1, 4096, 1, dtype=torch.bfloat16)
    assert pool(x, 4096, "sum").item() == 4096.0


SCORES = torch.tensor([[0.0, 9.0, 9.0, 9.0], [1.0, 1.0, 9.0, 9.0], [2.0, 1.0, 2.0, 9.0], [4.0, 3.0, 5.0, 1.0]])[
    None, None
]


def _rows(index: BlockIndex) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in index.mask()[0, 0]]


def test_topk_takes_eligible_blocks_only_and_lower_ids_on_ties() -> None:
    index = select(SCORES, topk=2, q_block=4, k_block=4)
    assert _rows(index) == [[0], [0, 1], [0, 2], [0, 2]]
    assert index.causal


def test_topk_without_causality_ranks_all_blocks() -> None:
    assert _rows(select(SCORES, topk=1, causal=False, q_block=4, k_block=4)) == [[1], [2], [3], [2]]


def test_forced_blocks_use_up_the_budget_first() -> None:
    keep = BlockIndex.from_mask(torch.eye(4, dtype=torch.bool), q_block=4, k_block=4)
    assert _rows(select(SCORES, topk=2, keep=keep, q_block=4, k_block=4)) == [[0], [0, 1], [0, 2], [2, 3]]
    assert _rows(select(SCORES, topk=0, keep=keep, q_block=4, k_block=4)) == [[0], [1], [2], [3]]


def test_the_budget_may_differ_from_row_to_row() -> None:
    budget = torch.tensor([1, 0, 3, 1])
    assert _rows(select(SCORES, topk=budget, q_block=4, k_block=4)) == [[0], [], [0, 1, 2], [2]]


@pytest.mark.parametrize(("crossing", "expected"), [("include", [0, 1]), ("exclude", [0])])
def test_coverage_stops_at_the_crossing_block(crossing: str, expected: list[int]) -> None:
    scores = torch.tensor([0.5, 0.3, 0.2]).log()[None, None, None]
    index = select(scores, coverage=0.6, causal=False, q_block=4, k_block=4, crossing=crossing)
    assert _rows(index) == [expected]


def test_full_coverage_takes_every_eligible_block_and_nothing_else() -> None:
    scores = SCORES.masked_fill(SCORES == 4.0, -torch.inf)
    assert _rows(select(scores, coverage=1.0, q_block=4, k_block=4)) == [[0], [0, 1], [0, 1, 2], [1, 2, 3]]


def test_threshold_is_inclusive() -> None:
    assert _rows(select(SCORES, threshold=2.0, q_block=4, k_block=4)) == [[], [], [0, 2], [0, 1, 2]]


def test_a_row_without_eligible_blocks_selects_nothing() -> None:
    scores = torch.full((1, 1, 1, 3), -torch.inf)
    for rule in ({"topk": 2}, {"coverage": 0.9}, {"threshold": -1e9}):
        assert _rows(select(scores, causal=False, q_block=4, k_block=4, **rule)) == [[]]


def test_eligibility_follows_true_lengths() -> None:
    # 5 queries over 9 keys: query 4 is the last, aligned to key 8, so row 1 sees blocks 0 .. 2; row 0 ends at key 7.
    index = select(torch.zeros(1, 1, 2, 3), topk=3, q_block=4, k_block=4, q_len=5, k_len=9)
    assert _rows(index) == [[0, 1], [0, 1, 2]]
    assert (index.q_len, index.k_len) == (5, 9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(0, 6))
def test_topk_is_the_head_of_a_stable_sort(seed: int, k: int) -> None:
    scores = torch.randint(0, 4, (2, 1, 3, 6), generator=torch.Generator().manual_seed(seed)).float()
    chosen = select(scores, topk=k, causal=False, q_block=1, k_block=1).mask()
    for b, row in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        best = sorted(range(6), key=lambda c: (-scores[b, 0, row, c].item(), c))[:k]
        assert chosen[b, 0, row].nonzero()[:, 0].tolist() == sorted(best)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of topk"),
        ({"topk": 1, "coverage": 0.5}, "exactly one of topk"),
        ({"topk": 1, "crossing": "maybe"}, "crossing must be"),
        ({"topk": 1, "keep": BlockIndex.dense(8, q_block=2, k_block=2)}, "another grid"),
        ({"coverage": 1.5}, "coverage must be"),
    ],
)
def test_unclear_selections_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(torch.zeros(1, 1, 2, 2), q_block=4, k_block=4, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], 2), r"x must be \(B, H, T, D\)"),
        ((X, 0), "at least 1 token"),
        ((X, 2, "median"), "mode must be one of"),
        ((X, torch.tensor([[0, 6]])), r"within 0 \.\. 5"),
        ((X, torch.tensor([[3, 1]])), "must ascend"),
        ((X, torch.tensor([0, 5])), r"boundaries must be \(B, n \+ 1\)"),
    ],
)
def test_unclear_segments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(*arguments)


def test_weights_must_match_the_tokens() -> None:
    with pytest.raises(ValueError, match=r"weights must be \(B, H, T\)"):
        pool(X, 2, weights=torch.zeros(1, 1, 4))
