"""Pictures of block masks, read back pixel by pixel."""

import sys

import numpy as np
import pytest
import torch

from mmattn.kernels import BlockIndex
from mmattn.viz.block_mask import draw_block_index, draw_block_indices

WHITE, HIDDEN, PARTIAL, FULL = (255, 255, 255), (253, 236, 208), (230, 159, 0), (0, 84, 147)
SMALL = {"q_block": 16, "k_block": 16}


def count(picture: np.ndarray, colour: tuple[int, int, int], box: tuple[int, int, int, int] | None = None) -> int:
    top, bottom, left, right = box or (0, picture.shape[0], 0, picture.shape[1])
    return int((picture[top:bottom, left:right] == colour).all(axis=-1).sum())


def mask_area(picture: np.ndarray) -> tuple[int, int, int, int]:
    """The rectangle inside the frame: between the longest black lines."""
    dark = (picture < 40).all(axis=-1)
    rows, columns = (np.flatnonzero(dark.sum(axis) > 0.5 * dark.shape[axis]) for axis in (1, 0))
    return rows[0] + 2, rows[-1] - 1, columns[0] + 2, columns[-1] - 1


def test_a_causal_mask_is_full_below_the_diagonal_blocks_and_cut_on_them():
    picture = draw_block_index(BlockIndex.causal(64, **SMALL), max_pixels=800)
    top, bottom, left, right = mask_area(picture)
    area = (bottom - top) * (right - left)
    # 6 of 16 blocks are full; the 4 on the diagonal keep 136 of 256 pairs each.
    assert count(picture, FULL, (top, bottom, left, right)) / area == pytest.approx(6 / 16, abs=0.03)
    assert count(picture, PARTIAL, (top, bottom, left, right)) / area == pytest.approx(4 / 16 * 136 / 256, abs=0.02)
    assert count(picture, HIDDEN, (top, bottom, left, right)) / area == pytest.approx(4 / 16 * 120 / 256, abs=0.02)


def test_queries_go_down_and_keys_go_right():
    mask = torch.tensor([[False, True], [False, False]])
    picture = draw_block_index(BlockIndex.from_mask(mask, **SMALL))
    top, bottom, left, right = mask_area(picture)
    middle, centre = (top + bottom) // 2, (left + right) // 2
    assert count(picture, FULL, (top, middle - 2, centre + 2, right)) > 0.9 * (middle - 2 - top) * (right - centre - 2)
    assert count(picture, FULL, (top, bottom, left, centre - 2)) == 0
    assert count(picture, FULL, (middle + 2, bottom, left, right)) == 0


def test_large_masks_are_drawn_block_by_block():
    picture = draw_block_index(BlockIndex.causal(4096, q_block=512, k_block=512))
    box = mask_area(picture)
    area = (box[1] - box[0]) * (box[3] - box[2])
    assert count(picture, PARTIAL, box) / area == pytest.approx(8 / 64, abs=0.02)
    assert count(picture, HIDDEN) == 0


def test_each_head_and_batch_item_has_its_own_picture_and_padding_cuts_blocks():
    mask = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    mask[1, 0] = True
    valid = torch.ones(2, 32, dtype=torch.bool)
    valid[1, 8:] = False
    index = BlockIndex.from_mask(mask, k_valid=valid, **SMALL)
    assert count(draw_block_index(index, head=0, batch=0), FULL) == 0
    assert count(draw_block_index(index, head=1, batch=1), FULL) == 0
    drawn = draw_block_index(index, head=0, batch=1)
    box = mask_area(drawn)
    area = (box[1] - box[0]) * (box[3] - box[2])
    assert count(drawn, FULL, box) == 0
    assert count(drawn, PARTIAL, box) / area == pytest.approx(8 / 32, abs=0.03)


def test_a_selected_block_that_allows_nothing_is_drawn_as_masked():
    index = BlockIndex.from_mask(torch.ones(4, 4, dtype=torch.bool), q_block=128, k_block=128, causal=True)
    picture = draw_block_index(index)
    box = mask_area(picture)
    area = (box[1] - box[0]) * (box[3] - box[2])
    assert count(picture, HIDDEN, box) / area == pytest.approx(6 / 16, abs=0.03)


@pytest.mark.parametrize(("q_len", "k_len"), [(64, 64), (32, 512), (512, 32), (20000, 20000)])
def test_the_longer_side_has_the_pixels_that_were_asked_for(q_len: int, k_len: int):
    picture = draw_block_index(BlockIndex.causal(q_len, k_len), max_pixels=500)
    assert picture.dtype == np.uint8
    assert abs(max(picture.shape[:2]) - 500) <= 1
    assert picture.shape[2] == 3


def test_several_masks_share_a_picture_and_a_legend():
    indices = {"causal": BlockIndex.causal(64, **SMALL), "dense": BlockIndex.all_blocks(64, **SMALL)}
    picture = draw_block_indices(indices, max_pixels=800)
    middle = picture.shape[1] // 2
    assert count(picture[:, :middle], PARTIAL) > 0
    assert count(picture[: -picture.shape[0] // 5, middle:], PARTIAL) == 0
    assert count(picture[:, middle:], FULL) > count(picture[:, :middle], FULL) > 0


def test_the_same_mask_gives_the_same_picture():
    index = BlockIndex.sliding_window(20, 80, sinks=2, **SMALL)
    assert np.array_equal(draw_block_index(index), draw_block_index(index))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": 4}, "got head=4; the index has 2"),
        ({"batch": -1}, "got batch=-1; the index has 1"),
        ({"max_pixels": 10}, "max_pixels=10"),
    ],
    ids=["head", "batch", "size"],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, int], message: str):
    index = BlockIndex.from_mask(torch.ones(2, 2, 2, dtype=torch.bool), **SMALL)
    with pytest.raises(ValueError, match=message):
        draw_block_index(index, **options)


def test_a_missing_matplotlib_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mmattn\[train\]'") as error:
        draw_block_index(BlockIndex.causal(64, **SMALL))
    assert error.value.name == "matplotlib"


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="got 0 indices"):
        draw_block_indices({})
