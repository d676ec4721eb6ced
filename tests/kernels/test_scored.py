"""attention() with bias, ALiBi slopes, softcap and a learned scale: values and all gradients against dense float64."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmattn.kernels import BlockIndex, attention
from mmattn.kernels.score_terms import aligned_positions
from tests.kernels.masks import block_indices

CASES = int(os.environ.get("MMATTN_FUZZ", "40"))
NAMES = ("q", "k", "v", "bias", "alibi_slopes", "scale")


def definition(t: dict[str, Tensor], mask: Tensor, distance: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Attention as the page writes it, head by head of keys repeated; rows without keys give 0 and -inf."""
    group = t["q"].shape[1] // t["k"].shape[1]
    keys, values = (t[name].repeat_interleave(group, dim=1) for name in ("k", "v"))
    scores = torch.einsum("bhid,bhjd->bhij", t["q"], keys) * t["scale"].reshape(1, -1, 1, 1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if "alibi_slopes" in t:
        scores = scores - t["alibi_slopes"].reshape(-1, scores.shape[1], 1, 1) * distance
    if "bias" in t:
        scores, mask = scores + t["bias"], mask & (t["bias"] != -torch.inf)
    empty = ~mask.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~mask, -torch.inf).masked_fill(empty, 0.0)
    weights = scores.softmax(dim=-1).masked_fill(empty, 0.0)
    lse = scores.logsumexp(dim=-1).masked_fill(empty[..., 0], -torch.inf)
    return torch.einsum("bhij,bhjd->bhid", weights, values), lse


def loss(out: Tensor, lse: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (out, lse)]
    return (out * weights[0]).sum() + (lse.masked_fill(lse == -torch.inf, 0.0) * weights[1]).sum()


def tensors(seed: int, q_len: int, k_len: int, *, heads=(2, 2), batch=1, bias=(1, 1, 1, 1), terms=NAMES, dim=4) -> dict:
    """Random float64 operands; ``bias`` says which of its dimensions are full."""
    generator = torch.Generator().manual_seed(seed)
    full = (batch, heads[0], q_len, k_len)
    shapes = {
        "q": (batch, heads[0], q_len, dim),
        "k": (batch, heads[1], k_len, dim),
        "v": (batch, heads[1], k_len, 3),
        "bias": tuple(n if wide else 1 for n, wide in zip(full, bias, strict=True)),
        "alibi_slopes": (heads[0],),
        "scale": (heads[0],),
    }
    made = {n: torch.randn(shapes[n], generator=generator, dtype=torch.float64) for n in NAMES if n in terms}
    return {name: x.requires_grad_() for name, x in made.items()}


def check(
    t: dict, blocks: BlockIndex | None, softcap: float | None, *, causal=False, tolerance=1e-10, dtype=None
) -> None:
    """Compares outputs and all gradients of both backends with the definition."""
    q_len, k_len = t["q"].shape[2], t["k"].shape[2]
    mask = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len if causal else k_len)
    mask = mask if blocks is None else blocks.tokens()
    p = aligned_positions(q_len, k_len, torch.device("cpu"), blocks)
    expected = definition(t, mask, (p[:, None] - torch.arange(k_len)).abs(), softcap)
    grads = torch.autograd.grad(loss(*expected), list(t.values()))
    for backend in ("auto", "reference"):
        ours = {name: x.detach().to(dtype or x.dtype).requires_grad_() for name, x in t.items()}
        rest = {name: ours[name] for name in ours if name not in ("q", "k", "v")}
        got = attention(ours["q"], ours["k"], ours["v"], blocks, causal=causal, softcap=softcap, return_lse=True,
                        backend=backend, **rest)  # fmt: skip
        own = torch.autograd.grad(loss(*got), list(ours.values()))
        pairs = [*zip(("out", "lse"), got, expected, strict=True), *zip(ours, own, grads, strict=True)]
        for name, value, right in pairs:
            size = 1.0 if name in ("out", "lse") or not right.numel() else max(1.0, float(right.detach().abs().max()))
            torch.testing.assert_close(
                value.double(), right, atol=tolerance * size, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@settings(max_examples=CASES, deadline=None)
@given(block_indices(), st.tuples(*[st.booleans()] * 4), st.data())
def test_any_mask_and_terms_give_the_definition_with_all_gradients(index: BlockIndex, bias: tuple, data) -> None:
    terms = [name for name in NAMES if name in ("q", "k", "v", "scale") or data.draw(st.booleans())]
    softcap = data.draw(st.sampled_from([None, 0.7, 20.0]))
    heads = data.draw(st.sampled_from([(2, 1), (2, 2), (4, 2)])) if index.index.shape[1] == 1 else (2, 1)
    seed = data.draw(st.integers(0, 2**16))
    t = tensors(seed, index.q_len, index.k_len, batch=2, heads=heads, bias=bias, terms=terms)
    if "bias" in t and data.draw(st.booleans()):
        hidden = torch.rand(t["bias"].shape, generator=torch.Generator().manual_seed(seed)) < 0.3
        t["bias"] = t["bias"].detach().masked_fill(hidden, -torch.inf).requires_grad_()
    check(t, index, softcap)


@pytest.mark.parametrize("causal", [False, True], ids=["dense", "causal"])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 30), (40, 40), (20, 45), (45, 20), (0, 5), (5, 0)], ids=str)
def test_dense_and_causal_masks_of_any_lengths(causal: bool, lengths: tuple[int, int], monkeypatch) -> None:
    monkeypatch.setattr("mmattn.kernels.score_pieces._ROWS", 7)
    check(tensors(1, *lengths, heads=(4, 2)), None, 2.0, causal=causal)


@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_work_cut_into_small_pieces_gives_the_same(per_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattn.kernels.backends.scored._PIECE_BYTES", 1)
    mask = torch.rand(2 if per_head else 1, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    check(tensors(2, 45, 50), BlockIndex.from_mask(mask, 45, 50, q_block=16, k_block=16, causal=True), 3.0)
    check(tensors(3, 20, 20), None, None, causal=True)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-5), (torch.float16, 6e-3), (torch.bfloat16, 4e-2)], ids=["float32", "float16", "bfloat16"],
)  # fmt: skip
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_narrow_dtypes_keep_their_accuracy(dtype: torch.dtype, tolerance: float, per_head: bool) -> None:
    mask = torch.rand(2 if per_head else 1, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    blocks = BlockIndex.from_mask(mask, 150, 150, q_block=32, k_block=32, causal=True)
    t = tensors(8, 150, 150, terms=("q", "k", "v", "bias", "alibi_slopes", "scale"), dim=16)
    t = {name: x.detach().to(dtype).double() for name, x in t.items()}
    # Powers of two: the product with q is exact, and what is measured is the kernel.
    t |= {"scale": torch.tensor([0.25, 0.5], dtype=torch.float64), "alibi_slopes": torch.tensor([0.5, 0.125]).double()}
    check({name: x.requires_grad_() for name, x in t.items()}, blocks, 5.0, dtype=dtype, tolerance=tolerance)
    x = torch.zeros(1, 1, 4, 8, dtype=dtype)
    out, lse = attention(x, x, x, bias=torch.zeros(4, 4), return_lse=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)


def test_slopes_count_distances_from_the_end_and_inside_documents() -> None:
    q = torch.zeros(1, 1, 2, 4, dtype=torch.float64)
    k = torch.zeros(1, 1, 5, 4, dtype=torch.float64)
    slopes = torch.tensor([1.0], dtype=torch.float64)
    weights = attention(q, k, torch.eye(5, dtype=torch.float64)[None, None], alibi_slopes=slopes)[0, 0]
    expected = torch.tensor([[-3.0, -2.0, -1.0, 0.0, -1.0], [-4.0, -3.0, -2.0, -1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected.softmax(-1))

    documents = BlockIndex.documents(torch.tensor([0, 1, 2]), torch.tensor([0, 3, 5]), causal=False)
    weights = attention(q, k, torch.eye(5, dtype=torch.float64)[None, None], documents, alibi_slopes=slopes)[0, 0]
    torch.testing.assert_close(weights[0, :3], torch.tensor([-2.0, -1.0, 0.0], dtype=torch.float64).softmax(-1))
    torch.testing.assert_close(weights[1, 3:], torch.tensor([-1.0, 0.0], dtype=torch.float64).softmax(-1))


def test_slopes_may_differ_between_batch_items() -> None:
    t = tensors(4, 6, 9, batch=2, terms=("q", "k", "v", "scale"))
    slopes = torch.rand(2, 2, dtype=torch.float64)
    options = {"causal": True, "scale": t["scale"]}
    both = attention(t["q"], t["k"], t["v"], alibi_slopes=slopes, **options)
    for b in range(2):
        one = attention(*(t[n][b : b + 1] for n in "qkv"), alibi_slopes=slopes[b], **options)
        torch.testing.assert_close(both[b : b + 1], one)


def test_the_cap_comes_after_the_scale_and_before_the_bias() -> None:
    x = torch.full((1, 1, 2, 1), 10.0, dtype=torch.float64)
    bias = torch.tensor([[0.0, 7.0]], dtype=torch.float64)
    _, lse = attention(x, x, x, scale=2.0, softcap=3.0, bias=bias, return_lse=True)
    capped = 3.0 * torch.tensor(200.0 / 3.0, dtype=torch.float64).tanh()
    torch.testing.assert_close(lse[0, 0], (capped + bias[0]).logsumexp(-1).expand(2))


@pytest.mark.parametrize("shape", [(), (2,), (2, 1, 1), (1, 2, 1, 1), (2, 2, 5, 1)], ids=str)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"softcap": 2.0}], ids=str)
def test_a_learned_scale_keeps_its_gradient(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    t = tensors(5, 5, 7, batch=2, terms=("q", "k", "v"))
    scale = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    grads = []
    for backend in ("auto", "reference"):
        out, lse = attention(*t.values(), scale=scale, return_lse=True, backend=backend, **options)
        grads.append(torch.autograd.grad(loss(out, lse), (scale, *t.values())))
    by_head = scale[:, None, None] if scale.ndim == 1 else scale
    out, lse = attention(t["q"] * by_head, t["k"], t["v"], scale=1.0, return_lse=True, backend="reference", **options)
    grads.append(torch.autograd.grad(loss(out, lse), (scale, *t.values())))
    torch.testing.assert_close(grads[0], grads[2])
    torch.testing.assert_close(grads[1], grads[2])


def test_first_and_second_derivatives_are_right() -> None:
    mask = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(1)) < 0.8
    blocks = BlockIndex.from_mask(mask, 4, 5, q_block=2, k_block=3, causal=True)
    t = list(tensors(6, 4, 5, dim=2).values())

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        out, lse = attention(q, k, v, blocks, bias=bias, alibi_slopes=slopes, scale=scale, softcap=1.5, return_lse=True)
        return out, lse.masked_fill(lse == -torch.inf, 0.0)

    assert torch.autograd.gradcheck(run, t)
    assert torch.autograd.gradgradcheck(run, t)


@pytest.mark.parametrize("via", ["sum", "square"])
def test_a_gradient_penalty_reaches_the_parameters(via: str) -> None:
    t = tensors(7, 6, 6, terms=("q", "k", "v", "bias"))
    found = []
    for backend in ("auto", "reference"):
        weight = torch.eye(4, dtype=torch.float64).requires_grad_()
        out = attention(t["q"] @ weight, t["k"], t["v"], causal=True, bias=t["bias"], softcap=2.0, backend=backend)
        (grad,) = torch.autograd.grad(out.sum() if via == "sum" else out.square().sum(), t["q"], create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), (weight, t["bias"], t["k"])))
    torch.testing.assert_close(*found)


def test_func_grad_gives_the_gradient() -> None:
    t = {name: x.detach() for name, x in tensors(7, 6, 6, terms=("q", "k", "v", "bias")).items()}

    def total(bias: Tensor) -> Tensor:
        return attention(t["q"], t["k"], t["v"], causal=True, bias=bias).square().sum()

    bias = t["bias"].clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(total)(t["bias"]), torch.autograd.grad(total(bias), bias)[0])


def test_autocast_does_not_change_the_dtype_of_sums() -> None:
    t = {name: x.detach().bfloat16() for name, x in tensors(3, 30, 30, terms=("q", "k", "v")).items()}
    bias = torch.randn(30, 30, requires_grad=True)

    def run() -> tuple[Tensor, ...]:
        out, lse = attention(t["q"], t["k"], t["v"], causal=True, bias=bias, return_lse=True)
        return out, lse, *torch.autograd.grad(out.float().square().sum() + lse.sum(), bias)

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run()
    assert [x.dtype for x in found] == [torch.bfloat16, torch.float32, torch.float32]
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_meta_tensors_have_a_result_of_the_right_shape() -> None:
    q, k = torch.empty(2, 4, 5, 8, device="meta"), torch.empty(2, 2, 6, 8, device="meta")
    out, lse = attention(q, k, k, causal=True, softcap=2.0, bias=q.new_empty(5, 6), return_lse=True, backend="scored")
    assert (out.shape, lse.shape, out.device.type) == ((2, 4, 5, 8), (2, 4, 5), "meta")


@pytest.mark.parametrize("dirt", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("kind", ["padding", "causal", "window", "per_head", "bias"])
def test_what_stands_at_hidden_keys_reaches_nothing(kind: str, dirt: float) -> None:
    t = tensors(9, 24, 24, batch=2, heads=(4, 2), terms=("q", "k", "v", "bias", "alibi_slopes"))
    valid = torch.ones(2, 24, dtype=torch.bool)
    valid[:, 18:] = False
    mask = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[:, :, 2] = False
    options: dict[str, Any] = {
        "padding": {"blocks": BlockIndex.all_blocks(24, q_block=8, k_block=16, k_valid=valid)},
        "causal": {"causal": True},
        "window": {"blocks": BlockIndex.sliding_window(4, 24, q_block=8, k_block=8, sinks=1)},
        "per_head": {"blocks": BlockIndex.from_mask(mask, q_block=8, k_block=8)},
        "bias": {},
    }[kind]
    rows = slice(0, 18)  # under causal masks these see no key from 18 on; elsewhere nobody does
    if kind == "bias":
        t["bias"] = t["bias"].detach().masked_fill(~valid[:, None, None], -torch.inf).requires_grad_()
    found = []
    for value in (0.0, dirt):
        k, v = (t[name].detach().clone() for name in ("k", "v"))
        k[:, :, 18:], v[:, :, 18:] = value, value
        inputs = [t["q"], k.requires_grad_(), v.requires_grad_(), t["bias"], t["alibi_slopes"]]
        out, lse = attention(
            *inputs[:3], bias=inputs[3], alibi_slopes=inputs[4], softcap=3.0, return_lse=True, **options
        )
        out, lse = out[:, :, rows], lse[:, :, rows]
        grads = torch.autograd.grad(loss(out, lse), inputs)
        # Where later rows see the dirt, what they share with the first ones is lost: 0 times NaN.
        found.append((out, lse, grads[0][:, :, rows], *(() if kind in ("causal", "window") else grads[1:])))
    assert all(bool((x.isfinite() | (x == -torch.inf)).all()) for x in found[1])
    torch.testing.assert_close(*found)


def test_a_value_that_is_seen_and_not_finite_shows() -> None:
    t = tensors(9, 6, 6, terms=("q", "k", "v", "bias"))
    v = t["v"].detach().clone()
    v[0, 0, 3, 1] = torch.nan
    out = attention(t["q"], t["k"], v, causal=True, bias=t["bias"])
    expected = torch.zeros(out.shape, dtype=torch.bool)
    expected[0, 0, 3:, 1] = True
    assert torch.equal(out.isnan(), expected)


def test_rows_that_see_nothing_give_zero_and_no_gradient() -> None:
    t = tensors(10, 8, 8, terms=("q", "k", "v", "bias"))
    blocks = BlockIndex.from_mask(torch.tensor([[True, False], [False, False]]), q_block=4, k_block=4, causal=True,
                                  k_valid=torch.arange(8)[None] > 0)  # fmt: skip
    out, lse = attention(t["q"], t["k"], t["v"], blocks, bias=t["bias"], softcap=2.0, return_lse=True)
    empty = [0, 4, 5, 6, 7]
    assert torch.equal(out[:, :, empty], torch.zeros_like(out[:, :, empty]))
    assert bool((lse[:, :, empty] == -torch.inf).all())
    # Neither an undefined gradient nor an undefined query leaks out of an empty row.
    grad_lse = torch.zeros_like(lse).masked_fill(lse == -torch.inf, torch.nan)
    t["q"] = t["q"].detach().index_fill(2, torch.tensor(empty), torch.nan).requires_grad_()
    out, lse = attention(t["q"], t["k"], t["v"], blocks, bias=t["bias"], softcap=2.0, return_lse=True)
    grads = torch.autograd.grad((out, lse), list(t.values()), (torch.ones_like(out), grad_lse))
    assert torch.equal(grads[0][:, :, empty], torch.zeros_like(grads[0][:, :, empty]))
    assert torch.equal(grads[3][:, :, empty], torch.zeros_like(grads[3][:, :, empty]))
    assert all(bool(grad.isfinite().all()) for grad in grads)


class _Sizes(TorchDispatchMode):
    """Notes the most bytes that any operation's result occupies, and the work of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.bmm.default:
            self.products += args[0].numel() * args[1].shape[-1]
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.nbytes = max(self.nbytes, value.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("kind", ["causal", "window", "per_head"])
def test_memory_is_bounded_and_unselected_blocks_are_skipped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattn.kernels.backends.scored._PIECE_BYTES", 1 << 20)
    length, dim = 2048, 16
    q, k, v = (torch.randn(1, 2, length, dim).requires_grad_() for _ in range(3))
    slopes = torch.tensor([0.5, 0.25], requires_grad=True)
    per_head = torch.eye(16, dtype=torch.bool).expand(2, -1, -1).clone()
    per_head[1] = per_head[1].roll(-1, dims=1)
    options: dict[str, Any] = {
        "causal": {"causal": True},
        "window": {"blocks": BlockIndex.sliding_window(64, length)},
        "per_head": {"blocks": BlockIndex.from_mask(per_head)},
    }[kind]
    with _Sizes() as sizes:
        attention(q, k, v, alibi_slopes=slopes, softcap=5.0, **options).sum().backward()
    # 4 MB would be one byte per pair; float scores are 16 MB a head.
    assert q.nbytes <= sizes.nbytes <= 1 << 20
    dense = 7 * 2 * length * length * dim  # two products forward, five backward
    assert sizes.products <= dense * {"causal": 0.57, "window": 2 / 16, "per_head": 1 / 16}[kind]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": torch.zeros(5, 6, dtype=torch.bool)}, r"got a bool mask; .* BlockIndex\.from_mask"),
        ({"bias": torch.zeros(5, 6, dtype=torch.int64)}, "bias must be floating, got torch.int64"),
        ({"bias": torch.zeros(6, 5)}, r"bias must be broadcastable to \(B, H, Tq, Tk\) = \(1, 2, 5, 6\), got \(6, 5\)"),
        ({"bias": torch.zeros(2)}, r"one number per head is \(H, 1, 1\)"),
        ({"alibi_slopes": torch.zeros(3)}, r"alibi_slopes must be \(H,\) or \(B, H\) with B 1, H 2, got \(3,\)"),
        ({"softcap": 0.0}, "softcap must be a positive number, or None for no cap"),
        ({"softcap": float("nan")}, "softcap must be a positive number"),
        ({"scale": torch.zeros(3)}, r"scale must be a number, \(\) or \(H,\), or broadcastable"),
        ({"scale": torch.tensor(1)}, "scale must be floating, got torch.int64"),
        ({"blocks": torch.ones(5, 6, dtype=torch.bool)}, r"BlockIndex\.from_mask\(mask, q_block=1, k_block=1\).*bias="),
        ({"bias": torch.zeros(5, 6, device="meta")}, "bias is on meta, q on cpu"),
        ({"bias": torch.zeros(5, 6), "backend": "cpu"}, "backend 'cpu' knows no bias; use backend='auto'"),
        ({"softcap": 2.0, "backend": "flex"}, "backend 'flex' knows no softcap"),
    ],
)  # fmt: skip
def test_impossible_calls_are_explained(options: dict[str, Any], message: str) -> None:
    q, k = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 6, 8)
    with pytest.raises(ValueError, match=message):
        attention(q, k, k, **options)
