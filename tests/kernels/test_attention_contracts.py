"""What attention() promises beside its numbers: masked places, second derivatives, transforms, compilers, autocast."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmattn.kernels import BlockIndex, attention

T = 40
VALID = torch.arange(T)[None] % 3 != 1
PER_HEAD = torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(5)) < 0.5
MASKS: dict[str, Callable[[], dict[str, Any]]] = {
    "dense": dict,
    "causal": lambda: {"causal": True},
    "window": lambda: {"causal": True, "window": 7},
    "padding": lambda: {"blocks": BlockIndex.all_blocks(T, k_valid=VALID, q_block=16, k_block=16)},
    "causal padding": lambda: {"blocks": BlockIndex.causal(T, k_valid=VALID, q_block=16, k_block=16)},
    "wholly padded blocks": lambda: {
        "blocks": BlockIndex.all_blocks(T, k_valid=torch.arange(T)[None] < 8, q_block=8, k_block=8)
    },
    "blocks per head": lambda: {"blocks": BlockIndex.from_mask(PER_HEAD, T, T, q_block=8, k_block=8, causal=True)},
}


def _inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, T, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def _seen(options: dict[str, Any]) -> Tensor:
    """Bool ``(1, H, T)``: rows that attend key 22, and the mask's pairs."""
    q, k, _ = _inputs()
    marked = torch.zeros(1, 2, T, 1, dtype=torch.float64)
    marked[:, :, 22] = 1.0
    return attention(torch.zeros_like(q), torch.zeros_like(k), marked, backend="reference", **options)[..., 0] > 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["k", "v", "both"])
@pytest.mark.parametrize("mask", list(MASKS)[1:])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_what_is_masked_reaches_nothing(backend: Any, mask: str, where: str, bad: float) -> None:
    options = MASKS[mask]()
    clean, spoilt = _inputs(), _inputs()
    for x, name in zip(spoilt[1:], "kv", strict=True):
        if where in (name, "both"):
            x[:, :, 22] = bad
    seen = _seen(options)
    results = []
    for inputs in (clean, spoilt):
        q, k, v = (x.requires_grad_() for x in inputs)
        out, lse = attention(q, k, v, return_lse=True, backend=backend, **options)
        loss = out[~seen].sum() + lse[~seen & (lse > -torch.inf)].sum()
        results.append((out, lse, *torch.autograd.grad(loss, (q, k, v))))
    for name, got, want in zip(("out", "lse", "dq"), results[1], results[0], strict=False):
        torch.testing.assert_close(got[~seen], want[~seen], msg=lambda m, n=name: f"{n}: {m}")
    others = torch.arange(T) != 22
    for got, want in zip(results[1][3:], results[0][3:], strict=True):
        torch.testing.assert_close(got[:, :, others], want[:, :, others])
    # What is seen is told: it does not become a number.
    assert not results[1][0][seen].isfinite().any()


@pytest.mark.parametrize("mask", list(MASKS))
def test_without_gradients_it_is_kept_out_too(mask: str) -> None:
    options = MASKS[mask]()
    q, k, v = _inputs(torch.float32)
    want = attention(q, k, v, **options)
    v[:, :, 22] = torch.nan
    seen = _seen(options)
    torch.testing.assert_close(attention(q, k, v, **options)[~seen], want[~seen])


def _by_parameters(f: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    (g,) = torch.autograd.grad(f(x @ weight).sum(), x, create_graph=True)
    return torch.autograd.grad(g.pow(2).sum(), weight)[0]


def _by_backward(f: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    f(x @ weight).pow(2).sum().backward(create_graph=True)
    assert x.grad is not None
    return torch.autograd.grad(x.grad.sin().sum(), weight)[0]


def _by_grad_out(f: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    upstream = torch.ones(1, 2, T, 4, dtype=x.dtype, requires_grad=True)
    (g,) = torch.autograd.grad(f(x @ weight), x, upstream, create_graph=True)
    return torch.autograd.grad(g.pow(2).sum(), upstream)[0]


def _by_hvp(f: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    return torch.autograd.functional.hvp(lambda y: f(y @ weight).sin().sum(), x.detach(), torch.ones_like(x))[1]


@pytest.mark.parametrize("way", [_by_parameters, _by_backward, _by_grad_out, _by_hvp])
@pytest.mark.parametrize("mask", list(MASKS))
def test_second_derivatives_are_those_of_the_definition(mask: str, way: Callable[..., Tensor]) -> None:
    results = []
    for backend in ("cpu", "reference"):
        options = MASKS[mask]()
        x, k, v = (y.requires_grad_() for y in _inputs())
        weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()

        def f(q: Tensor, k: Tensor = k, v: Tensor = v, backend: Any = backend, options: Any = options) -> Tensor:
            out, lse = attention(q, k * q.mean(), v, return_lse=True, backend=backend, **options)
            return out + lse.masked_fill(lse == -torch.inf, 0.0)[..., None].sin()

        results.append(way(f, x, weight))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)
    assert bool(results[1].abs().max() > 1e-3)


@pytest.mark.parametrize("scale", [0.5, 0.0, -0.7])
def test_second_derivatives_at_any_scale(scale: float) -> None:
    q, k, v = (x[:, :, :5].requires_grad_() for x in _inputs())
    assert torch.autograd.gradgradcheck(lambda *x: attention(*x, causal=True, scale=scale), (q, k, v))


@pytest.mark.parametrize("mask", ["dense", "causal", "window"])
def test_transforms(mask: str) -> None:
    q, k, v = _inputs(torch.float32)
    options = MASKS[mask]()

    def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, **options)

    want = f(q, k, v)
    leaf = q.clone().requires_grad_()
    (grad,) = torch.autograd.grad(f(leaf, k, v).sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda q: f(q, k, v).sum())(q), grad)
    several = torch.stack([q, q.flip(2)])
    mapped = torch.func.vmap(lambda q: f(q, k, v))(several)
    torch.testing.assert_close(mapped, torch.stack([f(x, k, v) for x in several]))
    assert torch.func.jacrev(lambda q: f(q, k, v)[0, 0, 0])(q).shape == (4, *q.shape)
    for backend in ("eager", "aot_eager"):
        torch.compiler.reset()
        torch.testing.assert_close(torch.compile(f, fullgraph=True, backend=backend)(q, k, v), want)
        leaf = q.clone().requires_grad_()
        torch.compile(f, fullgraph=True, backend=backend)(leaf, k, v).sum().backward()
        torch.testing.assert_close(leaf.grad, grad)
    torch.compiler.reset()
    assert f(*(x.to("meta") for x in (q, k, v))).shape == want.shape
    assert f(*(x.to("meta") for x in (q, k, v))).device.type == "meta"


class _Layer(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, **self.options)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mask", ["dense", "causal", "window"])
def test_export(mask: str, strict: bool) -> None:
    layer = _Layer(**MASKS[mask]())
    q, k, v = _inputs(torch.float32)
    length = torch.export.Dim("length", min=2, max=512)
    program = torch.export.export(layer, (q, k, v), strict=strict, dynamic_shapes=({2: length},) * 3)
    shorter = [x[:, :, :23] for x in (q, k, v)]
    torch.testing.assert_close(program.module()(*shorter), layer(*shorter))


def test_an_index_in_a_compiled_function() -> None:
    q, k, v = _inputs(torch.float32)
    blocks = MASKS["causal padding"]()["blocks"]
    torch.compiler.reset()
    compiled = torch.compile(lambda q, k, v: attention(q, k, v, blocks), backend="eager")
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, blocks))
    torch.compiler.reset()


def test_autocast_is_that_of_sdpa() -> None:
    q, k, v = _inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(q.bfloat16(), k, v, causal=True)
        plain = attention(q, k, v, causal=True)
        sdpa = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert (mixed.dtype, plain.dtype, sdpa.dtype) == (torch.bfloat16,) * 3
    assert torch.equal(mixed, plain)
    torch.testing.assert_close(plain, sdpa, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("mask", list(MASKS))
def test_another_default_device_changes_nothing(mask: str) -> None:
    q, k, v = _inputs(torch.float32)
    want = attention(q, k, v, **MASKS[mask]())
    options = MASKS[mask]()
    with torch.device("meta"):
        got = attention(q, k, v, **options)
    assert torch.equal(got, want)


@pytest.mark.parametrize("mask", list(MASKS))
def test_what_is_returned_may_be_changed_in_place(mask: str) -> None:
    q, k, v = _inputs(torch.float32)
    out, lse = attention(q.requires_grad_(), k, v, return_lse=True, **MASKS[mask]())
    assert not out._is_view()
    assert not lse._is_view()


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_scale_can_be_learned(shape: tuple[int, ...]) -> None:
    q, k, v = _inputs()
    scale = torch.full(shape, 0.4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(attention(q, k, v, scale=scale, causal=True), attention(q, k, v, scale=0.4, causal=True))
    assert torch.autograd.gradcheck(lambda s: attention(q, k, v, scale=s, causal=True), (scale,))


@pytest.mark.parametrize(("change", "message"), [
    ({"blocks": torch.ones(T, T, dtype=torch.bool)}, r"a BlockIndex, got a torch.bool tensor.*from_mask.*bias="),
    ({"blocks": "causal"}, "blocks must be a BlockIndex, got str"),
    ({"window": 2.5}, r"window must be a whole number of keys.*\(left, right\).*got 2.5"),
    ({"scale": torch.ones(3)}, r"scale must be a number, \(\) or \(H,\).*got \(3,\)"),
])  # fmt: skip
def test_impossible_options_are_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*_inputs(), **change)


def test_no_channels_are_explained() -> None:
    q, k, v = _inputs()
    with pytest.raises(ValueError, match="at least one channel"):
        attention(q[..., :0], k[..., :0], v)


def test_an_empty_batch_with_blocks_per_head() -> None:
    q = torch.randn(0, 2, 4, 3, requires_grad=True)
    blocks = BlockIndex.from_mask(torch.ones(1, 2, 2, 2, dtype=torch.bool), 4, 4, q_block=2, k_block=2)
    out = attention(q, q, q, blocks)
    out.sum().backward()
    assert out.shape == (0, 2, 4, 3)
