"""attention(): the CPU path against the float64 definition, outputs, log-sum-exps and gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmattn.kernels import BlockIndex, attention
from tests.kernels.masks import block_indices


def _inputs(seed: int, q_len: int, k_len: int, *, batch=1, heads=2, kv_heads=2, dim=8, out_dim=8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((heads, q_len, dim), (kv_heads, k_len, dim), (kv_heads, k_len, out_dim))
    return [torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _results(inputs: list[Tensor], backend: str, dtype: torch.dtype, **options: Any) -> dict[str, Tensor]:
    """Returns out, lse and the gradients of a loss on both, rows with lse = -inf left out of it."""
    q, k, v = (x.to(dtype).requires_grad_() for x in inputs)
    out, lse = attention(q, k, v, return_lse=True, backend=backend, **options)
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in (out, lse)]
    loss = (out * weights[0]).sum() + (lse.masked_fill(lse == -torch.inf, 0.0) * weights[1]).sum()
    grads = torch.autograd.grad(loss, (q, k, v))
    return {"out": out.detach(), "lse": lse.detach(), **dict(zip(("dq", "dk", "dv"), grads, strict=True))}


def _assert_like_the_definition(
    inputs: list[Tensor], dtype: torch.dtype = torch.float64, tolerance: float = 1e-11, **options: Any
) -> None:
    expected = _results(inputs, "reference", torch.float64, **options)
    actual = _results(inputs, "cpu", dtype, **options)
    for name, value in expected.items():
        scale = 1.0 if name in ("out", "lse") or not value.numel() else max(1.0, float(value.abs().max()))
        got = actual[name].double()
        torch.testing.assert_close(
            got, value, atol=tolerance * scale, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


LENGTHS = [(1, 1), (1, 67), (37, 37), (100, 100), (45, 130), (131, 47), (257, 300)]


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 20}, {"window": 9}], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda pair: f"{pair[0]}x{pair[1]}")
def test_built_in_masks(lengths: tuple[int, int], options: dict[str, Any]) -> None:
    _assert_like_the_definition(_inputs(0, *lengths), **options)


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_query_heads_share_key_heads(kv_heads: int, per_head: bool) -> None:
    mask = torch.rand(8 if per_head else 1, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    blocks = BlockIndex.from_mask(mask, 45, 50, q_block=16, k_block=16, causal=True)
    _assert_like_the_definition(_inputs(2, 45, 50, batch=2, heads=8, kv_heads=kv_heads), blocks=blocks)


@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=str)
@pytest.mark.parametrize("out_dim", [8, 5])
def test_dense_attention_shares_key_heads(options: dict[str, Any], out_dim: int) -> None:
    _assert_like_the_definition(_inputs(17, 33, 33, batch=2, heads=6, kv_heads=2, out_dim=out_dim), **options)


@pytest.mark.parametrize("out_dim", [3, 8, 12])
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_value_dimension_may_differ(out_dim: int, per_head: bool) -> None:
    mask = torch.rand(2 if per_head else 1, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    blocks = BlockIndex.from_mask(mask, 45, 50, q_block=16, k_block=16)
    _assert_like_the_definition(_inputs(3, 45, 50, out_dim=out_dim), blocks=blocks)


@settings(max_examples=60, deadline=None)
@given(block_indices(), st.integers(0, 2**16))
def test_any_index(index: BlockIndex, seed: int) -> None:
    heads = max(2, index.index.shape[1])
    inputs = _inputs(seed, index.q_len, index.k_len, batch=2, heads=heads, kv_heads=1, dim=4, out_dim=4)
    _assert_like_the_definition(inputs, blocks=index)


@pytest.mark.parametrize(
    "blocks",
    [
        BlockIndex.sliding_window(100, 700, sinks=5, q_block=32, k_block=32),
        BlockIndex.sliding_window(33, 700, 900, q_block=128, k_block=64),
        BlockIndex.sliding_window(300, 700, causal=False, q_block=32, k_block=32),
        BlockIndex.documents(torch.tensor([0, 130, 131, 500, 700]), causal=False, q_block=64, k_block=32),
        BlockIndex.documents(torch.tensor([0, 350, 700]), torch.tensor([0, 20, 600]), window=40, sinks=2),
        BlockIndex.scales([1, 4, 9, 16, 25, 36, 64, 100, 169, 256], q_block=32, k_block=32),
        BlockIndex.scales([1, 4, 9, 16, 25, 36, 64, 100, 169, 256], first=8),
        BlockIndex.causal(700) | BlockIndex.scales([100, 600]),
    ],
    ids=["sinks", "longer_keys", "future", "documents", "cross_documents", "scales", "cached_scales", "prefix_lm"],
)
def test_patterns(blocks: BlockIndex) -> None:
    _assert_like_the_definition(_inputs(4, blocks.q_len, blocks.k_len, batch=2), blocks=blocks)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 2)], ids=["shared", "per_batch", "per_head"])
def test_padding_differs_between_batch_items(shape: tuple[int, int]) -> None:
    valid = torch.rand(2, 90, generator=torch.Generator().manual_seed(5)) < 0.7
    valid[1, 32:64] = False
    mask = torch.rand(*shape, 5, 3, generator=torch.Generator().manual_seed(6)) < 0.7
    blocks = BlockIndex.from_mask(mask, 70, 90, q_block=16, k_block=32, k_valid=valid, causal=True)
    _assert_like_the_definition(_inputs(7, 70, 90, batch=2), blocks=blocks)


@pytest.mark.parametrize("limit", [1, 100_000])
def test_work_cut_into_small_calls_gives_the_same(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattn.kernels.backends.cpu_runs._BAND_BYTES", limit)
    monkeypatch.setattr("mmattn.kernels.backends.cpu_gather._CHUNK_BYTES", limit)
    mask = torch.rand(2, 2, 10, 10, generator=torch.Generator().manual_seed(1)) < 0.5
    for blocks in (
        BlockIndex.sliding_window(100, 640, q_block=64, k_block=64),
        BlockIndex.from_mask(mask, q_block=64, k_block=64, causal=True),
    ):
        _assert_like_the_definition(_inputs(15, 640, 640, batch=2, kv_heads=1), blocks=blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_narrow_dtypes_keep_their_accuracy(dtype: torch.dtype, per_head: bool) -> None:
    mask = torch.rand(2 if per_head else 1, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    blocks = BlockIndex.from_mask(mask, 150, 150, q_block=32, k_block=32, causal=True)
    inputs = [x.to(dtype).double() for x in _inputs(8, 150, 150, dim=16, out_dim=16)]
    tolerance = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    _assert_like_the_definition(inputs, dtype, tolerance, blocks=blocks)
    out, lse = attention(*(x.to(dtype) for x in inputs), blocks, return_lse=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_empty_rows_give_zero_and_no_gradient(backend: str, per_head: bool) -> None:
    mask = torch.tensor([[True, False], [False, False]]).expand(2 if per_head else 1, 2, 2)
    blocks = BlockIndex.from_mask(mask, q_block=4, k_block=4, causal=True, k_valid=torch.arange(8)[None] > 0)
    q, k, v = (x.requires_grad_() for x in _inputs(9, 8, 8))
    out, lse = attention(q, k, v, blocks, return_lse=True, backend=backend)
    empty = [0, 4, 5, 6, 7]
    assert torch.equal(out[:, :, empty], torch.zeros_like(out[:, :, empty]))
    assert bool((lse[:, :, empty] == -torch.inf).all())
    assert bool(lse[:, :, 1:4].isfinite().all())
    # Even an infinite or undefined gradient must not leak out of an empty row.
    grad_lse = torch.zeros_like(lse).masked_fill(lse == -torch.inf, torch.nan)
    grads = torch.autograd.grad((out, lse), (q, k, v), (torch.ones_like(out), grad_lse))
    assert torch.equal(grads[0][:, :, empty], torch.zeros_like(grads[0][:, :, empty]))
    assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("lengths", [(0, 5), (5, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 3}], ids=str)
def test_no_queries_or_no_keys(lengths: tuple[int, int], backend: str, options: dict[str, Any]) -> None:
    q, k, v = (x.requires_grad_() for x in _inputs(10, *lengths))
    out, lse = attention(q, k, v, return_lse=True, backend=backend, **options)
    assert torch.equal(out, torch.zeros(1, 2, lengths[0], 8, dtype=torch.float64))
    assert torch.equal(lse, torch.full((1, 2, lengths[0]), -torch.inf, dtype=torch.float64))
    (grad,) = torch.autograd.grad(out.sum(), q)
    assert torch.equal(grad, torch.zeros_like(q))


def test_future_keys_change_nothing_under_a_causal_mask() -> None:
    q, k, v = _inputs(11, 90, 90)
    before = attention(q, k, v, causal=True, window=30)
    k[:, :, 60:], v[:, :, 60:] = 7.0, -7.0
    after = attention(q, k, v, causal=True, window=30)
    assert torch.equal(before[:, :, :60], after[:, :, :60])
    assert not torch.equal(before[:, :, 60:], after[:, :, 60:])


def test_strided_inputs_are_taken_as_they_are() -> None:
    inputs = _inputs(12, 150, 150)
    token_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    channel_first = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in inputs]
    for blocks in (BlockIndex.sliding_window(20, 150), BlockIndex.from_mask(torch.ones(2, 2, 2) > 0, 150, 150)):
        expected = _results(inputs, "cpu", torch.float64, blocks=blocks)
        for strided in (token_first, channel_first):
            torch.testing.assert_close(_results(strided, "cpu", torch.float64, blocks=blocks), expected)


def test_scale_and_temperature() -> None:
    q, k, v = _inputs(13, 20, 20)
    torch.testing.assert_close(attention(q, k, v, scale=0.5), attention(q * 0.5, k, v, scale=1.0))
    torch.testing.assert_close(attention(q, k, v), attention(q, k, v, scale=8**-0.5))


@pytest.mark.parametrize("scale", [0.0, -0.7, 3.0])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 4}], ids=str)
def test_any_scale(scale: float, options: dict[str, Any]) -> None:
    _assert_like_the_definition(_inputs(16, 20, 20), scale=scale, **options)


@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_gradcheck(per_head: bool) -> None:
    mask = torch.rand(2 if per_head else 1, 2, 2, generator=torch.Generator().manual_seed(1)) < 0.8
    blocks = BlockIndex.from_mask(mask, 5, 6, q_block=3, k_block=3, causal=True)
    inputs = [x.requires_grad_() for x in _inputs(14, 5, 6, dim=3, out_dim=2)]
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, blocks), inputs)


class _LargestTensor(TorchDispatchMode):
    """Notes the most bytes that any operation's result occupies."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.nbytes = max(self.nbytes, value.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("kind", ["window", "random", "causal", "documents", "sinks"])
def test_nothing_of_size_queries_times_keys_is_allocated(kind: str) -> None:
    length, dim = 4096, 16
    q, k, v = (torch.randn(1, 2, length, dim).requires_grad_() for _ in range(3))
    random = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.05
    options: dict[str, Any] = {
        "window": {"causal": True, "window": 64},
        "causal": {"causal": True},
        "random": {"blocks": BlockIndex.from_mask(random, causal=True)},
        "documents": {"blocks": BlockIndex.documents(torch.arange(0, length + 1, 256))},
        "sinks": {"blocks": BlockIndex.sliding_window(64, length, sinks=4)},
    }[kind]
    with _LargestTensor() as largest:
        attention(q, k, v, **options).sum().backward()
    # 16 MB would be one byte per pair; float scores would be 64 MB a head.
    assert q.nbytes <= largest.nbytes <= 2 << 20


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"q": (2, 5, 8)}, {}, r"must be \(B, H, T, D\), got q \(2, 5, 8\)"),
        ({"k": (1, 2, 6, 4)}, {}, "share the head dimension"),
        ({"v": (1, 2, 5, 8)}, {}, "share heads and length"),
        ({"q": (2, 2, 5, 8)}, {}, "share the batch size"),
        ({"q": (1, 3, 5, 8)}, {}, "multiple of that of key heads"),
        ({}, {"blocks": BlockIndex.causal(5, 6), "causal": True}, "carry their own predicate"),
        ({}, {"blocks": BlockIndex.causal(5, 6), "window": 2}, "carry their own predicate"),
        ({}, {"blocks": BlockIndex.causal(5, 7)}, "for 5 queries and 7 keys, got 5 and 6"),
        ({}, {"blocks": BlockIndex.from_mask(torch.ones(3, 1, 1) > 0, 5, 6)}, r"3 heads \(1 = shared\)"),
        ({}, {"window": 0}, "window must be at least 1"),
        ({}, {"backend": "gpu"}, "backend must be one of auto, reference, cpu, triton, flex, scored, got 'gpu'"),
    ],
)
def test_impossible_calls_are_explained(change: dict, options: dict[str, Any], message: str) -> None:
    shapes = {"q": (1, 2, 5, 8), "k": (1, 2, 6, 8), "v": (1, 2, 6, 8), **change}
    with pytest.raises(ValueError, match=message):
        attention(*(torch.zeros(shapes[name]) for name in ("q", "k", "v")), **options)


def test_dtypes_must_agree_and_be_floating() -> None:
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="one floating dtype"):
        attention(x, x.double(), x)
    with pytest.raises(ValueError, match="one floating dtype"):
        attention(x.int(), x.int(), x.int())


def test_an_empty_batch() -> None:
    inputs = _inputs(3, 64, 64, batch=0)
    _assert_like_the_definition(inputs, blocks=BlockIndex.sliding_window(20, 64, q_block=16, k_block=16, sinks=1))
