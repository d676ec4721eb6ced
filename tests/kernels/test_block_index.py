"""BlockIndex: the mask it means, its constructors, its algebra, its errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmattn.kernels import BlockIndex
from tests.kernels.masks import block_indices, pairwise


@settings(max_examples=30, deadline=None)
@given(block_indices())
def test_the_token_mask_is_the_pairwise_definition(index: BlockIndex) -> None:
    assert torch.equal(index.dense().expand(pairwise(index).shape), pairwise(index))


@settings(max_examples=30, deadline=None)
@given(block_indices())
def test_full_blocks_are_those_that_allow_every_pair(index: BlockIndex) -> None:
    tokens = index.dense()
    partial_count, partial, full_count, full = index.split
    for b in range(tokens.shape[0]):
        for h in range(tokens.shape[1]):
            at = (min(b, partial_count.shape[0] - 1), h)
            for row in range(index.num_q_blocks):
                rows = tokens[b, h, row * index.q_block : (row + 1) * index.q_block]
                blocks = [rows[:, c * index.k_block : (c + 1) * index.k_block] for c in range(index.num_k_blocks)]
                is_full = [c for c, block in enumerate(blocks) if bool(block.all())]
                is_partial = [c for c, block in enumerate(blocks) if bool(block.any()) and not bool(block.all())]
                assert full[*at, row, : full_count[*at, row]].tolist() == is_full
                listed = partial[*at, row, : partial_count[*at, row]].tolist()
                # Padding can empty a block that positions allow; such a block may stay listed as partial.
                assert set(is_partial) <= set(listed)
                assert index.k_valid is not None or listed == is_partial


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_intersection_allows_what_both_allow(data: st.DataObject) -> None:
    lengths = (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)))
    left, right = data.draw(block_indices(lengths)), data.draw(block_indices(lengths, shared=True))
    assert torch.equal((left & right).dense(), left.dense() & right.dense())


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_union_allows_what_either_allows(data: st.DataObject) -> None:
    lengths = (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)))
    left, right = (data.draw(block_indices(lengths, shared=True, padded=False)) for _ in range(2))
    assert torch.equal((left | right).dense(), left.dense() | right.dense())


def test_union_of_per_head_indices_with_one_predicate() -> None:
    masks = torch.rand(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    left, right = (BlockIndex.from_mask(m, q_block=2, k_block=2, causal=True) for m in masks)
    assert torch.equal((left | right).dense(), left.dense() | right.dense())


@settings(max_examples=20, deadline=None)
@given(block_indices())
def test_transposition_lists_the_query_blocks_of_every_key_block(index: BlockIndex) -> None:
    count, ids = index.transpose()
    mask = index.mask()
    for b, h, column in torch.cartesian_prod(*(torch.arange(n) for n in count.shape)).reshape(-1, 3).tolist():
        assert ids[b, h, column, : count[b, h, column]].tolist() == mask[b, h, :, column].nonzero()[:, 0].tolist()


@settings(max_examples=20, deadline=None)
@given(block_indices())
def test_an_index_survives_saving_and_moving(index: BlockIndex) -> None:
    assert BlockIndex.from_tensors(index.to_tensors()) == index
    assert index.to("cpu") == index


def test_an_index_is_saved_as_plain_tensors(tmp_path) -> None:
    index = BlockIndex.documents(torch.tensor([0, 3, 9]), q_block=2, k_block=2, window=2, sinks=1)
    save_file(index.to_tensors(), tmp_path / "index.safetensors")
    assert BlockIndex.from_tensors(load_file(tmp_path / "index.safetensors")) == index


def test_repeated_and_unsorted_ids_are_counted_once() -> None:
    index = BlockIndex(torch.tensor([[[4, 1]]]), torch.tensor([[[[2, 0, 2, 0], [1, 9, 9, 9]]]]), 4, 4, 8, 12)
    assert index.count.tolist() == [[[2, 1]]]
    assert index.index.tolist() == [[[[0, 2], [1, 0]]]]
    assert index.count.dtype == index.index.dtype == torch.int32


def test_slicing_keeps_the_chosen_batch_items_and_heads() -> None:
    mask = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    valid = torch.tensor([[True] * 10, [True] * 7 + [False] * 3])
    index = BlockIndex.from_mask(mask, q_block=2, k_block=2, k_valid=valid)
    assert torch.equal(index[1].dense(), index.dense()[1:])
    assert torch.equal(index[:, 1:3].dense(), index.dense()[:, 1:3])
    assert torch.equal(index[-1, -1].dense(), index.dense()[-1:, -1:])


def test_equality_compares_the_fields() -> None:
    assert BlockIndex.causal(5, q_block=2, k_block=2) == BlockIndex.causal(5, q_block=2, k_block=2)
    assert BlockIndex.causal(5, q_block=2, k_block=2) != BlockIndex.dense(5, q_block=2, k_block=2)
    assert BlockIndex.causal(5, q_block=2, k_block=2) != "causal"


def test_density_is_the_share_of_selected_blocks() -> None:
    assert BlockIndex.causal(8, q_block=2, k_block=2).density() == 10 / 16
    assert BlockIndex.dense(8, q_block=2, k_block=2).density() == 1.0


def test_causal_is_aligned_to_the_bottom_right() -> None:
    assert BlockIndex.causal(2, 4, q_block=2, k_block=2).dense()[0, 0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert BlockIndex.causal(4, 2, q_block=2, k_block=2).dense()[0, 0].int().tolist() == [
        [0, 0],
        [0, 0],
        [1, 0],
        [1, 1],
    ]


def test_a_window_keeps_the_sinks() -> None:
    mask = BlockIndex.sliding_window(2, 6, sinks=1, q_block=2, k_block=2).dense()[0, 0]
    assert [row.nonzero()[:, 0].tolist() for row in mask] == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]


def test_blocks_that_a_window_hides_are_not_selected() -> None:
    index = BlockIndex.sliding_window(2, 8, q_block=2, k_block=2)
    assert index.count.flatten().tolist() == [1, 2, 2, 2]


def test_scales_see_themselves_and_earlier_scales() -> None:
    mask = BlockIndex.scales([1, 2, 3], q_block=2, k_block=4).dense()[0, 0]
    assert mask.sum(-1).tolist() == [1, 3, 3, 6, 6, 6]
    cached = BlockIndex.scales([1, 2, 3], first=1, q_block=2, k_block=4)
    assert (cached.q_len, cached.k_len) == (5, 6)
    assert torch.equal(cached.dense()[0, 0], mask[1:])


def test_blockrank_documents_see_the_instruction_and_the_query_sees_all() -> None:
    valid = torch.ones(1, 4, 2, dtype=torch.bool)
    valid[0, 2, 0] = False
    mask = BlockIndex.blockrank(4, 2, valid).dense()[0, 0]
    rows = [row.nonzero()[:, 0].tolist() for row in mask]
    assert rows == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1], [0, 1, 5], [0, 1, 2, 3, 5, 6], [0, 1, 2, 3, 5, 6, 7]]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4),
    st.booleans(),
    st.integers(-1, 4),
    st.integers(-1, 4),
)
def test_cumulative_lengths_mean_what_flash_attention_means(lengths, causal: bool, left: int, right: int) -> None:
    cu_q, cu_k = (torch.tensor([0, *n]).cumsum(0).int() for n in zip(*lengths, strict=True))
    index = BlockIndex.from_cu_seqlens(cu_q, cu_k, causal=causal, window_size=(left, right), q_block=2, k_block=3)
    expected = torch.zeros(int(cu_q[-1]), int(cu_k[-1]), dtype=torch.bool)
    for n, (q_len, k_len) in enumerate(lengths):
        for i in range(q_len):
            p = i + k_len - q_len  # bottom-right aligned in the sequence
            first = 0 if left < 0 else max(0, p - left)
            last = k_len - 1 if right < 0 else min(k_len - 1, p + right)
            last = min(last, p) if causal else last
            expected[int(cu_q[n]) + i, int(cu_k[n]) + first : int(cu_k[n]) + max(first, last + 1)] = True
    assert torch.equal(index.dense()[0, 0], expected)


def test_flattened_ids_are_read_per_head() -> None:
    index = BlockIndex.from_flat([[0, 3, 3], [2]], 4, q_block=2, k_block=2, causal=False)
    assert index.mask()[0].int().tolist() == [[[1, 0], [0, 1]], [[0, 0], [1, 0]]]
    padded = BlockIndex.from_flat(torch.tensor([[0, 3], [2, -1]]), 4, q_block=2, k_block=2, causal=False)
    assert padded == index


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (0, [[2, 3, 4, 5], [2, 3, 4, 5]]),
        (1, [[2, 3, 4], [2, 3, 4, 5]]),
        (2, [[2, 3, 4, 5], [3, 4, 5]]),
        (3, [[2, 3, 4], [3, 4, 5]]),
    ],
    ids=["full", "causal", "inverse", "both"],
)
def test_slice_types(kind: int, rows: list[list[int]]) -> None:
    index = BlockIndex.from_slices(
        torch.tensor([[1, 3]]), torch.tensor([[2, 6]]), torch.tensor([kind]), 4, 6, q_block=2
    )
    assert [row.nonzero()[:, 0].tolist() for row in index.dense()[0, 0]] == [[], *rows, []]


def test_what_is_derived_is_computed_once() -> None:
    index, calls = BlockIndex.causal(4), []
    for _ in range(2):
        assert index.derived("key", lambda: calls.append(1) or "value") == "value"
    assert calls == [1]
    assert index.split is index.split


ROW = torch.zeros(1, 1, 1, 1, dtype=torch.int32)
ONE = torch.ones(1, 1, 1, dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "fields", "message"),
    [
        ((ONE, ROW, 0, 4, 4, 4), {}, "q_block must be a positive"),
        ((ONE, ROW, 4, 4, 8, 4), {}, "makes 2 query blocks, count has 1"),
        ((ONE, ROW[0], 4, 4, 4, 4), {}, "count must be"),
        ((ONE * 2, ROW, 4, 4, 4, 4), {}, "count must be between 0 and kmax 1"),
        ((ONE, ROW + 1, 4, 4, 4, 4), {}, r"must be in 0 \.\. 0, got 1 \.\. 1"),
        ((ONE, ROW, 4, 4, 4, 4), {"window": 0}, "window must be at least 1"),
        ((ONE, ROW, 4, 4, 4, 4), {"sinks": -1}, "sinks must not be negative"),
        ((ONE, ROW, 4, 4, 4, 4), {"cu_q": torch.tensor([0, 4])}, "both cu_q and cu_k"),
        ((ONE, ROW, 4, 4, 4, 4), {"cu_q": torch.tensor([0, 3]), "cu_k": torch.tensor([0, 4])}, "rise from 0 to 4"),
        ((ONE, ROW, 4, 4, 4, 4), {"k_valid": torch.ones(1, 3, dtype=torch.bool)}, r"k_valid must be bool \(B, 4\)"),
        ((ONE, ROW, 4, 4, 4, 4), {"spans": torch.zeros(1, 3, 2)}, r"spans must be \(S, 4, 2\)"),
    ],
)
def test_fields_that_do_not_fit_are_named(arguments: tuple, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockIndex(*arguments, **fields)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BlockIndex.from_mask(torch.ones(2, 2)), "mask must be bool"),
        (lambda: BlockIndex.from_mask(torch.ones(2, 2, dtype=torch.bool), 4, 6, q_block=2, k_block=2), "make 3 blocks"),
        (lambda: BlockIndex.from_flat([[4]], 4, q_block=2, k_block=2), "must be below 2"),
        (lambda: BlockIndex.from_cu_seqlens(torch.tensor([0, 4]), window_size=(-2, 0)), "-1 for no limit, got"),
        (lambda: BlockIndex.scales([1, 0]), "at least 1 token"),
        (lambda: BlockIndex.blockrank(1, 4), "got 1 block"),
        (lambda: BlockIndex.from_slices(*torch.tensor([[[0, 2]], [[0, 2]]]), torch.tensor([4])), "slice types must be"),
        (lambda: BlockIndex.dense(4) & BlockIndex.dense(5), "can not be combined"),
        (lambda: _per_head() | BlockIndex.causal(4, q_block=2, k_block=2), "shared by batch and heads"),
        (lambda: BlockIndex.dense(2, k_valid=torch.ones(1, 2) > 0) | BlockIndex.dense(2), "same k_valid"),
    ],
)
def test_impossible_requests_are_explained(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def _per_head() -> BlockIndex:
    return BlockIndex.from_mask(torch.ones(2, 2, 2, dtype=torch.bool), q_block=2, k_block=2)
