"""Lists of block ids and boolean masks: one becomes the other and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn.kernels.block_ids import block_validity, ids_to_mask, keep_ids, mask_to_ids, normalise_ids, transpose_blocks


@given(st.integers(0, 2**12 - 1))
def test_a_mask_becomes_ascending_ids_and_the_same_mask_again(bits: int) -> None:
    mask = torch.tensor([bits >> place & 1 for place in range(12)], dtype=torch.bool).view(3, 4)
    count, ids = mask_to_ids(mask)
    assert count.tolist() == mask.sum(-1).tolist()
    for row, number, allowed in zip(ids.tolist(), count.tolist(), mask, strict=True):
        assert row == allowed.nonzero().flatten().tolist() + [0] * (len(row) - number)
    assert torch.equal(ids_to_mask(count, ids, 4), mask)


def test_normal_ids_are_sorted_without_repetition_and_end_in_zeros() -> None:
    count, ids = normalise_ids(torch.tensor([3, 1]), torch.tensor([[2, 0, 2], [1, 9, 9]]), 3)
    assert count.tolist() == [2, 1]
    assert ids.tolist() == [[0, 2], [1, 0]]
    assert ids.dtype == count.dtype == torch.int32


@pytest.mark.parametrize(
    ("count", "ids", "message"),
    [([4], [[0, 1, 2]], "count must be between 0 and kmax 3, got 4"), ([2], [[0, 3]], "ids must be in 0 .. 2")],
)
def test_counts_and_ids_out_of_range_are_refused(count: list[int], ids: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalise_ids(torch.tensor(count), torch.tensor(ids), 3)


def test_transposition_lists_the_rows_of_every_column() -> None:
    count, ids = transpose_blocks(torch.tensor([[True, False], [True, True]]))
    assert (count.tolist(), ids.tolist()) == ([2, 1], [[0, 1], [1, 0]])


def test_kept_ids_stay_in_order() -> None:
    count, ids = keep_ids(torch.tensor([[5, 7, 9]]), torch.tensor([[True, False, True]]))
    assert (count.tolist(), ids.tolist()) == ([2], [[5, 9]])


def test_a_short_last_block_is_valid_as_a_whole() -> None:
    none_valid, all_valid = block_validity(torch.tensor([[True, False, False, False, True]]), 3, 2)
    assert none_valid.tolist() == [[False, True, False]]
    assert all_valid.tolist() == [[False, False, True]]
