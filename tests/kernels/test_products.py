"""Products through oneDNN beside PyTorch's own, gradients included; weights laid out, and when they are let go."""

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.kernels.products import Linear, Precision, StepLinear, linear, stacked, step_product, uses_onednn

needs_onednn = pytest.mark.skipif(
    not uses_onednn(torch.zeros(64, 256), torch.zeros(256, 256)), reason="this build of PyTorch has no oneDNN"
)


def large(*leading: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input, a weight and a bias that are large enough for oneDNN."""
    return torch.randn(*leading, 256, dtype=torch.float32), torch.randn(192, 256), torch.randn(192)


@pytest.mark.parametrize("leading", [(64,), (3, 7), (2, 3, 5)])
def test_product_is_that_of_torch(leading: tuple[int, ...]) -> None:
    x, weight, bias = large(*leading)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), atol=1e-4, rtol=1e-5)


@needs_onednn
def test_large_products_take_onednn_and_small_ones_do_not() -> None:
    assert uses_onednn(torch.zeros(1, 1024), torch.zeros(512, 1024))
    assert not uses_onednn(torch.zeros(1, 256), torch.zeros(256, 256))
    assert not uses_onednn(torch.zeros(64, 256).double(), torch.zeros(256, 256).double())


def test_autocast_and_a_switched_off_library_take_the_product_of_torch() -> None:
    x, weight, _ = large(64)
    with torch.autocast("cpu", torch.bfloat16):
        assert not uses_onednn(x, weight)
        assert linear(x, weight).dtype == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            assert not uses_onednn(x, weight)


@given(
    strided=st.booleans(), transposed=st.booleans(), expanded=st.booleans(), rows=st.sampled_from([16, 33]),
    has_bias=st.booleans(),
)  # fmt: skip
@settings(max_examples=24, deadline=None)
def test_gradients_are_those_of_torch_for_any_layout(
    strided: bool, transposed: bool, expanded: bool, rows: int, has_bias: bool
) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 2, 256, generator=generator)[:, 0] if strided else torch.randn(rows, 256, generator=generator)
    weight = torch.randn(256, 192, generator=generator).T if transposed else torch.randn(192, 256, generator=generator)
    bias = torch.randn(192, generator=generator) if has_bias else None
    upstream = torch.randn(rows, 1, generator=generator).expand(rows, 192) if expanded else torch.randn(rows, 192)
    found = []
    for product in (linear, F.linear):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
        out = product(*leaves)
        found.append((out, *torch.autograd.grad(out, leaves, upstream)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    x, weight, bias = large(64)
    weight.requires_grad_()
    linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(192, 256), atol=1e-4, rtol=1e-4)
    assert x.grad is None
    assert bias.grad is None


def test_double_precision_passes_gradcheck() -> None:
    leaves = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4), (5, 4), (5,))]
    assert torch.autograd.gradcheck(linear, leaves)


def test_a_layer_has_the_parameters_of_torchs_and_stacking_applies_one_each() -> None:
    torch.manual_seed(0)
    ours = [Linear(8, 4), Linear(8, 4)]
    torch.manual_seed(0)
    theirs = [torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)]
    x = torch.randn(2, 3, 8)
    expected = torch.stack([layer(row) for layer, row in zip(theirs, x, strict=True)])
    assert torch.equal(stacked(ours, x), expected)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        stacked(ours, torch.randn(3, 3, 8))


@needs_onednn
def test_a_packed_weight_gives_the_same_product_for_any_number_of_rows() -> None:
    layer = Linear(1024, 600)
    for rows in (1, 7, 20, 300):
        x = torch.randn(rows, 1024)
        layer.packed = None
        with torch.no_grad():
            plain = layer(x)
            layer.pack()
            assert layer.packed is not None
            torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)


def test_small_and_double_weights_are_not_packed() -> None:
    for layer in (Linear(8, 4), Linear(1024, 1024).double()):
        layer.pack()
        assert layer.packed is None
        layer(torch.randn(2, layer.in_features, dtype=layer.weight.dtype))


@needs_onednn
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.train(),
        lambda layer: layer.double().float(),
        lambda layer: layer.load_state_dict({"weight": torch.zeros(1024, 1024), "bias": torch.zeros(1024)}),
    ],
    ids=["train", "to", "load_state_dict"],
)
def test_what_may_change_a_weight_drops_its_packed_form(change: Callable[[Linear], object]) -> None:
    layer = Linear(1024, 1024).eval()
    layer.pack()
    layer.eval()
    assert layer.packed is not None
    change(layer)
    assert layer.packed is None
    x = torch.randn(2, 1024)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)


@needs_onednn
def test_gradients_do_not_go_through_the_packed_form() -> None:
    layer = Linear(1024, 1024).eval()
    layer.pack()
    with torch.no_grad():
        layer.weight.zero_()
    x = torch.randn(2, 1024, requires_grad=True)
    out = layer(x)
    torch.testing.assert_close(out, layer.bias.expand(2, -1), atol=1e-6, rtol=0.0)
    out.sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(1024, -1), atol=1e-5, rtol=1e-5)
    assert torch.equal(x.grad, torch.zeros(2, 1024))


@needs_onednn
def test_a_packed_layer_can_be_copied_and_pickled() -> None:
    layer = Linear(1024, 1024).eval()
    layer.pack()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.packed is None
        assert torch.equal(other.weight, layer.weight)
    assert layer.packed is not None


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("shape", [(1, 1), (13, 40), (7, 341), (300, 256)], ids=str)
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("bfloat16", 5e-3), ("int8", 1.5e-2)])
def test_products_are_those_of_the_weight(
    precision: Precision, error: float, shape: tuple[int, int], rows: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(shape, generator=generator), torch.randn(shape[0], generator=generator)
    x = torch.randn(rows, shape[1], generator=generator)
    for added in (None, bias):
        found = step_product(weight, added, precision)(x)
        assert found.dtype == torch.float32
        assert relative(found, F.linear(x, weight, added)) < error


def test_an_int8_weight_is_off_by_no_more_than_half_a_step_of_its_own_row() -> None:
    weight = torch.tensor([[1.0, -0.5, 0.25, 0.0], [1e-4, 0.0, 5e-5, -1e-4], [0.0, 0.0, 0.0, 0.0]])
    found = step_product(weight, None, "int8")(torch.eye(4)).T
    assert bool(((found - weight).abs() <= weight.abs().amax(1, keepdim=True) / 100).all())
    assert torch.equal(found[2], torch.zeros(4))


def test_weights_made_in_inference_mode_can_be_packed() -> None:
    with torch.inference_mode():
        layer = StepLinear(8, 4)
        layer.pack("bfloat16")
        x = torch.ones(2, 1, 8)
        assert relative(layer(x), F.linear(x, layer.weight, layer.bias)) < 1e-2


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_step_layer_takes_its_layout_for_one_frame_without_gradients(precision: Precision) -> None:
    layer = StepLinear(256, 256)
    x = torch.randn(2, 3, 256)
    layer.pack(precision)
    with torch.no_grad():
        wanted = F.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer(x), wanted)
        assert relative(layer(x[:, :1]), wanted[:, :1]) < 1.5e-2
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x[:, :1]).dtype == torch.bfloat16
        layer.weight.mul_(2.0)
        assert relative(layer(x[:, :1]), F.linear(x[:, :1], layer.weight, layer.bias)) < 1e-5
    assert layer(x[:, :1]).requires_grad
    assert copy.deepcopy(layer).packed is None
    assert pickle.loads(pickle.dumps(layer)).packed is None


@needs_onednn
@torch.no_grad()
def test_a_weight_that_was_written_to_is_not_taken_from_its_copy() -> None:
    layer, x = Linear(1024, 1024), torch.randn(2, 1024)
    layer.pack()
    layer.weight.zero_()
    torch.testing.assert_close(layer(x), layer.bias.expand(2, -1), atol=1e-6, rtol=0.0)
    layer.pack()
    layer.load_state_dict({"weight": torch.ones(1024, 1024), "bias": torch.zeros(1024)}, assign=True)
    torch.testing.assert_close(layer(x), x.sum(1, keepdim=True).expand(2, 1024), atol=1e-3, rtol=1e-4)


def test_a_precision_that_is_none_or_does_not_fit_the_device_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, int8, got 'float8'"):
        step_product(torch.ones(1, 1), None, "float8")
    with pytest.raises(ValueError, match="int8 weights work on the CPU only, got one on meta"):
        step_product(torch.ones(1, 1, device="meta"), None, "int8")
