"""Triton's gated linear attention against the definition, run by `test_triton_gla.py` under ``TRITON_INTERPRET=1``."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.kernels.linear.kernels import KERNELS, assert_same, initial_state, inputs, part, with_gradients

GLA = KERNELS["gla"]
CHUNKS: dict[str, Any] = {"mode": "chunk", "backend": "triton"}


@pytest.fixture(autouse=True)
def memory_that_nobody_wrote_is_not_a_number() -> Iterator[None]:
    """Makes what ``torch.empty`` returns visible wherever it is read."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


def definition(tensors: dict[str, Tensor], state: Tensor, **options: Any) -> dict[str, Tensor]:
    wide = {name: x.double() for name, x in tensors.items()}
    return with_gradients(GLA, wide, state.double(), mode="naive", **options)


def assert_agrees(tensors: dict[str, Tensor], state: Tensor, tolerance: float = 5e-6, **options: Any) -> None:
    actual = with_gradients(GLA, tensors, state, **CHUNKS, **options)
    assert {name: x.dtype for name, x in actual.items() if x.dtype != tensors["v"].dtype} == (
        {} if tensors["v"].dtype == torch.float32 else {"final": torch.float32, "grad state": torch.float32}
    )
    options.pop("chunk_size", None)
    assert_same(actual, definition(tensors, state, **options), tolerance)


def single(batch: int, tokens: int, decay: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    return inputs(GLA, batch, tokens, decay=decay, dtype=torch.float32), initial_state(GLA, batch, dtype=torch.float32)


@pytest.mark.parametrize(
    ("chunk_size", "tokens", "batch"),
    [
        pytest.param(16, 37, 1, id="chunks of 16"),
        pytest.param(16, 15, 2, id="a leaf that is not full"),
        pytest.param(32, 33, 1, id="chunks of 32, one token over"),
        pytest.param(64, 75, 1, id="chunks of 64"),
        pytest.param(64, 1, 2, id="one token"),
        pytest.param(1000, 16, 1, id="a chunk longer than all tokens"),
    ],
)
def test_outputs_and_gradients_are_those_of_the_definition(chunk_size: int, tokens: int, batch: int) -> None:
    assert_agrees(*single(batch, tokens), chunk_size=chunk_size)


@pytest.mark.parametrize(
    ("K", "V", "tokens"),
    [pytest.param(40, 72, 20, id="several tiles, none full"), pytest.param(256, 17, 5, id="the widest keys")],
)
def test_widths_need_not_be_those_of_tiles(K: int, V: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = {"q": K, "k": K, "v": V, "g": K}
    tensors = {name: torch.randn(1, 1, tokens, width, generator=generator) for name, width in shapes.items()}
    tensors |= {"k": functional.normalize(tensors["k"], dim=-1), "g": -tensors["g"].abs()}
    assert_agrees(tensors, torch.randn(1, 1, K, V, generator=generator), chunk_size=16)


@pytest.mark.parametrize("decay", [0.0, 40.0, 2000.0], ids="decay {}".format)
def test_any_decay_is_finite_and_right(decay: float) -> None:
    assert_agrees(*single(1, 40, decay), chunk_size=32)


def test_gates_of_minus_1000_and_minus_infinity_cost_their_neighbours_nothing() -> None:
    tensors, state = single(1, 50, 0.1)
    tensors["g"][:, :, 20] = -1000.0  # inside a leaf
    tensors["g"][:, :, 16] = -torch.inf  # the first of a leaf
    tensors["g"][:, :, 47] = -torch.inf  # the last of a leaf
    actual = with_gradients(GLA, tensors, state, **CHUNKS, chunk_size=32)
    assert all(x.isfinite().all() for x in actual.values())
    # The definition itself has no gradient at a gate of -inf; -200 is the same to float64.
    expected = definition({**tensors, "g": tensors["g"].clamp(min=-200)}, state)
    assert_same(actual, expected, 5e-6)


def test_everything_is_forgotten_where_all_gates_are_minus_1000() -> None:
    tensors, state = single(1, 17)
    tensors["g"] = torch.full_like(tensors["g"], -1000.0)
    results = with_gradients(GLA, tensors, state, **CHUNKS)
    own = (tensors["q"] * tensors["k"]).sum(dim=-1, keepdim=True) * tensors["v"] * tensors["q"].shape[-1] ** -0.5
    torch.testing.assert_close(results["out"], own, rtol=1e-5, atol=1e-6)
    assert results["grad g"].abs().max() == results["grad state"].abs().max() == 0


def test_small_gradients_of_gates_do_not_drown_in_large_ones() -> None:
    tensors, state = single(1, 30, 5.0)
    tensors["g"] -= 25.0
    expected = definition(tensors, state)["grad g"]
    actual = with_gradients(GLA, tensors, state, **CHUNKS)["grad g"]
    assert 0 < expected.abs().max() < 1e-10
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_float16_is_only_rounded_on_its_way_in_and_out() -> None:
    assert_agrees(inputs(GLA, 1, 37, dtype=torch.float16), initial_state(GLA, 1, dtype=torch.float32), 6e-4)


def test_half_precision_may_have_gates_of_single_precision() -> None:
    tensors, state = single(1, 20)
    tensors |= {name: tensors[name].half() for name in "qkv"}
    actual = with_gradients(GLA, tensors, state, **CHUNKS)
    assert {name: actual[f"grad {name}"].dtype for name in "qg"} == {"q": torch.float16, "g": torch.float32}
    expected = definition(tensors, state)
    # Nothing but the cotangent of the output was rounded.
    assert_same({"grad g": actual["grad g"]}, {"grad g": expected["grad g"]}, 6e-4)


@pytest.mark.parametrize("cut", [0, 1, 16, 19, 36])
def test_a_carried_state_makes_splits_invisible(cut: int) -> None:
    tensors, state = single(1, 36)
    expected, final = GLA.run(*tensors.values(), initial_state=state, mode="naive")
    first, state = GLA.run(*part(tensors, 0, cut), initial_state=state, **CHUNKS, chunk_size=16)
    second, state = GLA.run(*part(tensors, cut, 36), initial_state=state, **CHUNKS, chunk_size=16)
    torch.testing.assert_close(torch.cat([first, second], dim=2), expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=2e-6)


def test_gradients_cross_a_split() -> None:
    tensors, start = single(1, 21)

    def in_two(*arguments: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(tensors, arguments, strict=True))
        first, state = GLA.run(*part(named, 0, 9), initial_state=initial_state, **CHUNKS)
        second, state = GLA.run(*part(named, 9, 21), initial_state=state, **CHUNKS)
        return torch.cat([first, second], dim=2), state

    assert_same(with_gradients(GLA._replace(run=in_two), tensors, start), definition(tensors, start), 5e-6)


def test_padding_and_packing_are_prepared_as_for_every_kernel() -> None:
    tensors, state = single(1, 24)
    real = torch.rand(1, 24, generator=torch.Generator().manual_seed(0)) < 0.6
    assert_agrees(tensors, state, mask=real)
    assert_agrees(tensors, initial_state(GLA, 3, dtype=torch.float32), cu_seqlens=torch.tensor([0, 3, 3, 24]))


def test_strided_views_need_no_copy_and_give_the_same_result() -> None:
    tensors, _ = single(2, 20)
    expected, final = GLA.run(*tensors.values(), **CHUNKS)
    views = [x.transpose(1, 2).contiguous() for x in tensors.values()]
    out, state = GLA.run(*views, layout="bthd", **CHUNKS)
    assert torch.equal(out.transpose(1, 2), expected)
    assert torch.equal(state, final)
    every_other = [torch.stack([x, x], dim=-1)[..., 0] for x in tensors.values()]
    assert torch.equal(GLA.run(*every_other, **CHUNKS)[0], expected)


def test_no_tokens_and_no_batch_are_no_special_cases() -> None:
    tensors, state = single(2, 0)
    results = with_gradients(GLA, tensors, state, **CHUNKS)
    assert torch.equal(results["final"], state)
    assert results["grad state"].abs().min() > 0
    assert GLA.run(*inputs(GLA, 0, 7, dtype=torch.float32).values(), **CHUNKS)[0].shape == (0, 2, 7, 3)


def test_second_derivatives_are_those_of_the_recurrence() -> None:
    found = []
    for options in (CHUNKS, {"mode": "naive"}):
        leaves = [x.requires_grad_() for x in single(1, 4)[0].values()]
        (grad,) = torch.autograd.grad(GLA.run(*leaves, **options)[0].sin().sum(), leaves[0], create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), leaves))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


def test_nothing_but_the_inputs_is_kept_for_the_backward_pass() -> None:
    saved: list[int] = []
    tensors, state = single(1, 40)

    def note(x: Tensor) -> Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        GLA.run(*(x.requires_grad_() for x in tensors.values()), initial_state=state, **CHUNKS, chunk_size=16)
    assert sum(saved) <= sum(x.numel() for x in tensors.values()) + state.numel()


@pytest.mark.parametrize(
    ("dtype", "width", "message"),
    [
        pytest.param(torch.bfloat16, 16, "interpreter .* computes bfloat16 wrongly", id="bfloat16"),
        pytest.param(torch.float64, 16, r"not torch\.float64\. Use backend='auto' or 'torch'", id="float64"),
        pytest.param(torch.float32, 300, "keys of up to 256 channels, not 300", id="wide"),
    ],
)
def test_what_the_kernels_cannot_take_is_refused_with_the_way_out(dtype: torch.dtype, width: int, message: str) -> None:
    x = torch.zeros(1, 1, 4, width, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        GLA.run(x, x, x, x, **CHUNKS)
