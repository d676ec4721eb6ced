"""The Triton backend against the dense definition, run by `test_triton.py` in a process with ``TRITON_INTERPRET=1``."""

import pytest
import torch
from torch import Tensor

from mmattn.kernels import BlockIndex, attention
from mmattn.kernels.backends import reference

SMALL = {"q_block": 16, "k_block": 16}


def random_blocks(heads: int, q_len: int, k_len: int, q_block: int = 16, k_block: int = 16, **predicate) -> BlockIndex:
    generator = torch.Generator().manual_seed(3)
    shape = (heads, -(-q_len // q_block), -(-k_len // k_block))
    mask = torch.rand(shape, generator=generator) < 0.5
    mask[0, 0] = False  # a whole block row that attends nothing
    return BlockIndex.from_mask(mask, q_len, k_len, q_block=q_block, k_block=k_block, **predicate)


def padding(batch: int, length: int) -> Tensor:
    valid = torch.ones(batch, length, dtype=torch.bool)
    valid[0, length // 2 :] = False
    valid[-1, :3] = False
    return valid


def batched() -> BlockIndex:
    mask = torch.rand(2, 4, 3, 3, generator=torch.Generator().manual_seed(5)) < 0.5
    return BlockIndex.from_mask(mask, 40, 44, **SMALL)


# name -> (index, batch, query heads, key heads, head size, value size)
CASES = {
    "causal with a ragged tail": (BlockIndex.causal(37, **SMALL), 1, 2, 2, 16, 16),
    "causal, more keys than queries": (BlockIndex.causal(20, 45, **SMALL), 1, 2, 1, 16, 16),
    "causal, more queries than keys": (BlockIndex.causal(45, 20, **SMALL), 1, 2, 2, 16, 16),
    "one query": (BlockIndex.causal(1, 40, **SMALL), 2, 2, 1, 16, 16),
    "window with sinks": (BlockIndex.sliding_window(9, 50, sinks=3, **SMALL), 1, 2, 2, 16, 16),
    "window of the past only": (BlockIndex.sliding_window(9, 40, causal=False, **SMALL), 1, 1, 1, 16, 16),
    "documents": (BlockIndex.documents(torch.tensor([0, 13, 14, 40]), **SMALL), 1, 2, 2, 16, 16),
    "scales": (BlockIndex.scales([1, 4, 9, 16], **SMALL), 1, 2, 2, 16, 16),
    "index per head, empty rows": (random_blocks(4, 40, 56), 1, 4, 2, 16, 16),
    "index per head and batch": (batched(), 2, 4, 4, 16, 16),
    "key padding": (random_blocks(2, 40, 40, k_valid=padding(3, 40)), 3, 2, 2, 16, 16),
    "key padding shared by the batch": (
        BlockIndex.all_blocks(20, 40, k_valid=padding(1, 40), **SMALL),
        2,
        1,
        1,
        16,
        16,
    ),
    "odd head sizes": (BlockIndex.causal(33, **SMALL), 1, 2, 2, 20, 9),
    "blocks wider than tiles": (random_blocks(2, 130, 150, 64, 96, causal=True), 1, 2, 2, 16, 16),
    "blocks that are no power of two": (random_blocks(2, 90, 100, 48, 16), 1, 2, 2, 16, 16),
    "no block at all": (BlockIndex.from_mask(torch.zeros(2, 2, dtype=torch.bool), **SMALL), 1, 1, 1, 16, 16),
}


def inputs(case: str, dtype: torch.dtype) -> tuple[BlockIndex, list[Tensor]]:
    index, batch, heads, kv_heads, head_dim, value_dim = CASES[case]
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    q = normal(batch, heads, index.q_len, head_dim)
    k = normal(batch, kv_heads, index.k_len, head_dim)
    v = normal(batch, kv_heads, index.k_len, value_dim)
    return index, [q, k, v]


def gradients(out: Tensor, lse: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(9)
    grad_out = torch.randn(out.shape, generator=generator).to(out.dtype)
    grad_lse = torch.randn(lse.shape, generator=generator).to(lse.dtype)
    return torch.autograd.grad([out, lse], leaves, [grad_out, grad_lse])


HALF_CASES = ("window with sinks", "odd head sizes")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, torch.float32) for case in CASES), *((case, torch.float16) for case in HALF_CASES)],
    ids=[*CASES, *(f"{case}, float16" for case in HALF_CASES)],
)
def test_outputs_and_gradients_are_those_of_the_definition(case: str, dtype: torch.dtype):
    index, tensors = inputs(case, dtype)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected_out, expected_lse = reference.block_sparse_attention(*wide, index, scale=0.25)
    out, lse = attention(*tensors, index, scale=0.25, return_lse=True, backend="triton")

    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    tolerance = {"atol": 2e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 4e-3, "rtol": 4e-3}
    torch.testing.assert_close(out.double(), expected_out, **tolerance)
    torch.testing.assert_close(lse.double(), expected_lse, **tolerance)
    expected = gradients(expected_out, expected_lse, wide)
    for name, ours, theirs in zip("qkv", gradients(out, lse, tensors), expected, strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9)
        assert error < (1e-4 if dtype == torch.float32 else 1e-2), name


@pytest.mark.parametrize(
    ("case", "empty"),
    [
        pytest.param("index per head, empty rows", 16, id="a whole block"),
        pytest.param("causal, more queries than keys", 25, id="part of a block"),
    ],
)
def test_rows_that_attend_nothing_give_zero_minus_infinity_and_zero_gradients(case: str, empty: int):
    index, (q, k, v) = inputs(case, torch.float32)
    out, lse = attention(q, k, v, index, return_lse=True, backend="triton")
    assert out[0, 0, :empty].abs().max() == 0
    assert torch.equal(lse[0, 0, :empty], torch.full((empty,), -torch.inf))
    # The gradient of lse is NaN where lse is -inf, as it is after a logaddexp of two empty rows.
    poison = torch.where(lse == -torch.inf, torch.nan, 1.0)
    grad_q, grad_k, grad_v = torch.autograd.grad([out, lse], [q, k, v], [torch.ones_like(out), poison])
    assert grad_q[0, 0, :empty].abs().max() == 0
    assert all(x.isfinite().all() for x in (grad_q, grad_k, grad_v))


def test_strided_views_need_no_copy_and_give_the_same_result():
    index, (q, k, v) = inputs("causal with a ragged tail", torch.float32)
    views = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert not views[0].is_contiguous()
    expected = attention(q, k, v, index, backend="triton")
    assert torch.equal(attention(*views, index, backend="triton"), expected)


def test_without_an_index_attention_is_dense_or_causal():
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 20, 16, generator=generator) for _ in range(3))
    for causal in (False, True):
        out = attention(q, k, v, causal=causal, backend="triton")
        torch.testing.assert_close(out, attention(q, k, v, causal=causal, backend="reference"), atol=2e-5, rtol=1e-4)


def test_no_keys_and_no_queries_are_no_special_cases():
    _, (q, k, v) = inputs("causal with a ragged tail", torch.float32)
    out, lse = attention(q, k[:, :, :0], v[:, :, :0], return_lse=True, backend="triton")
    assert out.abs().max() == 0
    assert torch.equal(lse, torch.full_like(lse, -torch.inf))
    assert attention(q[:, :, :0], k, v, backend="triton").shape == (1, 2, 0, 16)


def test_bfloat16_is_refused_by_the_interpreter():
    x = torch.zeros(1, 1, 16, 16, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="got bfloat16 under TRITON_INTERPRET=1"):
        attention(x, x, x, backend="triton")


def test_float64_is_refused_with_the_way_out():
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"got torch\.float64.*backend='reference'"):
        attention(x, x, x, backend="triton")


def test_blocks_that_do_not_fit_a_tile_are_refused_with_the_way_out():
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"got blocks of 16 queries x 24 keys.*multiples of 16"):
        attention(x, x, x, BlockIndex.causal(16, q_block=16, k_block=24), backend="triton")


@pytest.mark.parametrize("case", ["window with sinks", "key padding", "index per head and batch"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_masked_reaches_nothing(case: str, bad: float):
    index, tensors = inputs(case, torch.float32)
    spoilt = [x.detach().clone() for x in tensors]
    spoilt[1][:, :, 5] = bad
    spoilt[2][:, :, 5] = torch.nan
    seen = index.tokens()[..., 5].expand(tensors[0].shape[:3])
    expected = attention(*tensors, index, return_lse=True, backend="triton")
    leaves = [x.requires_grad_() for x in spoilt]
    out, lse = attention(*leaves, index, return_lse=True, backend="triton")
    torch.testing.assert_close(out[~seen], expected[0][~seen])
    torch.testing.assert_close(lse[~seen], expected[1][~seen])
    assert not out[seen].isfinite().any()
    grads = [torch.autograd.grad(o[~seen].sum(), x) for o, x in ((expected[0], tensors), (out, leaves))]
    torch.testing.assert_close(grads[1][0][~seen], grads[0][0][~seen])


def test_second_derivatives_are_those_of_the_definition():
    index, (q, k, v) = inputs("causal with a ragged tail", torch.float32)
    found = []
    for backend in ("triton", "reference"):
        (grad,) = torch.autograd.grad(attention(q, k, v, index, backend=backend).sin().sum(), q, create_graph=True)
        found.append(torch.autograd.grad(grad.pow(2).sum(), (q, k, v)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)
