"""Decays of any size: leaves as large as they may be, and nothing that overflows."""

import pytest
import torch
from torch import Tensor

from mmattn.kernels.linear import gla_chunks
from mmattn.kernels.linear.gla import gated_linear_attention
from tests.kernels.linear.kernels import KERNELS, Kernel, assert_same, initial_state, inputs, part, with_gradients

CHANNELWISE = {name: KERNELS[name] for name in ("gla", "rwkv6")}
channelwise = pytest.mark.parametrize("kernel", CHANNELWISE.values(), ids=CHANNELWISE)


@pytest.mark.parametrize(
    ("decay", "smallest", "leaf"),
    [(0.1, 8, 64), (1.0, 8, 32), (2.0, 8, 16), (5.0, 8, 8), (5.0, 16, 1), (10.0, 8, 1), (10.0, 2, 4), (1e3, 2, 1)],
)
def test_leaves_are_as_large_as_decays_allow(decay: float, smallest: int, leaf: int) -> None:
    decays = gla_chunks._Decays.of(torch.full((3, 64, 2), -decay), exclusive=False, smallest_leaf=smallest)
    assert decays.leaf == leaf
    assert torch.stack([decays.query, decays.key]).max() <= torch.e**20
    torch.testing.assert_close(decays.chunk, torch.full((3, 2), -64 * decay).exp())


@channelwise
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0, 5.0, 40.0, 1000.0], ids="decay {}".format)
@pytest.mark.parametrize("subchunk", [1, 8])
def test_leaves_of_every_size_agree_with_the_definition(kernel: Kernel, decay: float, subchunk: int) -> None:
    tensors, state = inputs(kernel, 1, 100, decay=decay), initial_state(kernel, 1)
    expected = with_gradients(kernel, tensors, state, mode="naive")
    actual = with_gradients(kernel, tensors, state, mode="chunk", chunk_size=64, subchunk_size=subchunk)
    assert_same(actual, expected, 1e-11)


@channelwise
@pytest.mark.parametrize("decay", [1.0, 20.0, 1e4], ids="decay {}".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_extreme_decay_is_finite_and_right(kernel: Kernel, decay: float, dtype: torch.dtype) -> None:
    tensors, state = inputs(kernel, 1, 200, decay=decay, dtype=dtype), initial_state(kernel, 1, dtype=torch.float32)
    actual = with_gradients(kernel, tensors, state, mode="chunk")
    assert all(x.isfinite().all() for x in actual.values())
    wide = {name: x.double() for name, x in tensors.items()}
    out, final = kernel.run(*wide.values(), initial_state=state.double(), mode="naive")
    assert_same({"out": actual["out"]}, {"out": out}, 1e-5 if dtype == torch.float32 else 1e-2)
    assert_same({"final": actual["final"]}, {"final": final}, 1e-5)


def test_a_reset_forgets_the_past_up_to_its_decay() -> None:
    kernel = KERNELS["gla"]
    tensors = inputs(kernel, 1, 90, decay=0.1, dtype=torch.float32)
    tensors["g"][:, :, 40] = -20.0
    out, _ = kernel.run(*tensors.values(), mode="chunk")
    fresh, _ = kernel.run(*part(tensors, 40, 90), mode="chunk")
    torch.testing.assert_close(out[:, :, 40:], fresh, rtol=1e-4, atol=1e-5)


def test_small_gradients_of_gates_do_not_drown_in_large_ones() -> None:
    # All gates are strong: gradients of the gates are of size exp(-25), next to outputs of size 1.
    tensors = inputs(KERNELS["gla"], 1, 30, decay=5.0, dtype=torch.float32)
    tensors["g"] -= 25.0
    state = initial_state(KERNELS["gla"], 1, dtype=torch.float32)
    wide = {name: x.double() for name, x in tensors.items()}
    expected = with_gradients(KERNELS["gla"], wide, state.double(), mode="naive")["grad g"]
    actual = with_gradients(KERNELS["gla"], tensors, state, mode="chunk")["grad g"]
    assert 0 < expected.abs().max() < 1e-10
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_gradients_that_are_not_asked_for_are_not_needed() -> None:
    tensors = inputs(KERNELS["rwkv6"], 1, 20)
    u = tensors["u"].requires_grad_()
    out, _ = KERNELS["rwkv6"].run(*tensors.values(), mode="chunk")
    (ours,) = torch.autograd.grad(out.square().sum(), u)
    out, _ = KERNELS["rwkv6"].run(*tensors.values(), mode="naive")
    (expected,) = torch.autograd.grad(out.square().sum(), u)
    torch.testing.assert_close(ours, expected)


def test_nothing_of_the_size_of_all_states_is_kept_for_the_backward_pass() -> None:
    q, k, v, g = (x.requires_grad_() for x in torch.randn(4, 1, 2, 512, 32).clamp(max=0))
    saved: list[int] = []

    def note(x: Tensor) -> Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        gated_linear_attention(q, k, v, g, mode="chunk")
    states = 2 * 2 * 32 * 32  # the initial ones and those that entered the one group
    assert sum(saved) <= 4 * q.numel() + states
