"""FlexAttention under our block masks. Its compiler takes seconds per kind of mask, so the cases are few."""

import pytest
import torch
from torch import Tensor

from mmattn.kernels import BlockIndex, attention
from mmattn.kernels.backends import flex, reference

SMALL = {"q_block": 32, "k_block": 32}


def inputs(index: BlockIndex, batch: int, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch, heads, index.q_len, 16, generator=generator)
    k, v = (torch.randn(batch, kv_heads, index.k_len, 16, generator=generator) for _ in range(2))
    return q, k, v


def padded_per_head() -> BlockIndex:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(4, 3, 4, generator=generator) < 0.6
    mask[0, 0] = False  # a block row that attends nothing
    valid = torch.rand(2, 110, generator=generator) < 0.7
    return BlockIndex.from_mask(mask, 90, 110, k_valid=valid, causal=True, window=60, sinks=3, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "batch", "heads", "kv_heads"),
    [
        pytest.param(BlockIndex.causal(70, 80, **SMALL), 1, 2, 2, id="causal"),
        pytest.param(BlockIndex.causal(130, 150, **SMALL), 1, 2, 2, id="causal, longer: compiled already"),
        pytest.param(padded_per_head(), 2, 4, 2, id="everything at once"),
    ],
)
def test_outputs_are_those_of_the_definition(index: BlockIndex, batch: int, heads: int, kv_heads: int):
    q, k, v = inputs(index, batch, heads, kv_heads)
    out, lse = flex.block_sparse_attention(q, k, v, index, scale=0.3)
    expected, _ = reference.block_sparse_attention(q.double(), k.double(), v.double(), index, scale=0.3)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=1e-4)
    assert lse is None


def test_gradients_are_refused_with_the_way_out():
    q, k, v = inputs(BlockIndex.causal(32, **SMALL), 1, 1, 1)
    with pytest.raises(ValueError, match=r"backend 'flex' is forward only; use backend='auto'"):
        flex.block_sparse_attention(q.requires_grad_(), k, v, BlockIndex.causal(32, **SMALL), scale=1.0)


def test_lse_is_refused_with_the_way_out():
    q, k, v = inputs(BlockIndex.causal(32, **SMALL), 1, 1, 1)
    with pytest.raises(ValueError, match=r"backend 'flex' does not return lse; use backend='auto'"):
        attention(q, k, v, causal=True, return_lse=True, backend="flex")


def test_nothing_to_attend_needs_no_compiler():
    q, k, v = inputs(BlockIndex.all_blocks(32, 0, **SMALL), 1, 1, 1)
    out, _ = flex.block_sparse_attention(q, k, v, BlockIndex.all_blocks(32, 0, **SMALL), scale=1.0)
    assert torch.equal(out, torch.zeros(1, 1, 32, 16))
