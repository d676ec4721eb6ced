"""What holds for every linear kernel: one definition, many ways to compute it."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.linear.kernels import (
    GATED,
    KERNELS,
    H,
    K,
    Kernel,
    V,
    assert_same,
    initial_state,
    inputs,
    part,
    with_gradients,
)

every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


@every_kernel
@pytest.mark.parametrize("decay", [0.1, 30.0], ids="decay {}".format)
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 50])
def test_chunks_agree_with_the_definition_gradients_included(kernel: Kernel, tokens: int, decay: float) -> None:
    tensors, state = inputs(kernel, 2, tokens, decay=decay), initial_state(kernel, 2)
    expected = with_gradients(kernel, tensors, state, mode="naive")
    assert_same(with_gradients(kernel, tensors, state, mode="chunk", chunk_size=16), expected, 1e-11)


@every_kernel
def test_float32_agrees_to_1e_5(kernel: Kernel) -> None:
    tensors, state = inputs(kernel, 1, 150, decay=3.0), initial_state(kernel, 1)
    expected = with_gradients(kernel, tensors, state, mode="naive")
    single = {name: x.float() for name, x in tensors.items()}
    actual = with_gradients(kernel, single, state.float(), mode="chunk")
    assert {x.dtype for x in actual.values()} == {torch.float32}
    assert_same(actual, expected, 1e-5)


@every_kernel
def test_more_tokens_than_a_group_of_chunks(kernel: Kernel) -> None:
    tensors, state = inputs(kernel, 1, 1200, decay=0.2), initial_state(kernel, 1)
    expected = with_gradients(kernel, tensors, state, mode="naive")
    assert_same(with_gradients(kernel, tensors, state, mode="chunk"), expected, 1e-11)


@every_kernel
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_neither_chunk_size_nor_splits_change_the_result(kernel: Kernel, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(1, 40))
    chunk = data.draw(st.integers(1, 50))
    cut = data.draw(st.integers(0, tokens))
    tensors, state = inputs(kernel, 1, tokens, decay=data.draw(st.sampled_from([0.0, 0.5, 60.0]))), None
    expected, final = kernel.run(*tensors.values(), mode="naive")
    first, state = kernel.run(*part(tensors, 0, cut), initial_state=state, mode="chunk", chunk_size=chunk)
    second, state = kernel.run(*part(tensors, cut, tokens), initial_state=state, mode="auto", chunk_size=chunk)
    torch.testing.assert_close(torch.cat([first, second], dim=2), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, final, rtol=1e-9, atol=1e-9)


@every_kernel
def test_gradients_cross_a_split(kernel: Kernel) -> None:
    tensors, start = inputs(kernel, 1, 21), initial_state(kernel, 1)

    def in_two(*arguments: Tensor, initial_state: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        named = dict(zip(tensors, arguments, strict=True))
        first, state = kernel.run(*part(named, 0, 9), initial_state=initial_state, mode="chunk", chunk_size=4)
        second, state = kernel.run(*part(named, 9, 21), initial_state=state, mode="chunk", chunk_size=4)
        return torch.cat([first, second], dim=2), state

    expected = with_gradients(kernel, tensors, start, mode="naive")
    assert_same(with_gradients(kernel._replace(run=in_two), tensors, start), expected, 1e-11)


@every_kernel
def test_steps_are_the_recurrence_and_leave_their_state_alone(kernel: Kernel) -> None:
    tensors, state = inputs(kernel, 2, 6), initial_state(kernel, 2)
    expected, final = kernel.run(*tensors.values(), initial_state=state, mode="naive")
    for t in range(6):
        before = state.clone()
        out, after = kernel.step(*(x if name == "u" else x[:, :, t] for name, x in tensors.items()), state)
        assert torch.equal(state, before)
        torch.testing.assert_close(out, expected[:, :, t])
        state = after
    torch.testing.assert_close(state, final)


@every_kernel
def test_steps_are_differentiable(kernel: Kernel) -> None:
    tensors, state = inputs(kernel, 1, 1), initial_state(kernel, 1)

    def one_step(*arguments: Tensor, initial_state: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        named = zip(tensors, arguments, strict=True)
        out, after = kernel.step(*(x if name == "u" else x[:, :, 0] for name, x in named), initial_state)
        return out[:, :, None], after

    expected = with_gradients(kernel, tensors, state, mode="naive")
    assert_same(with_gradients(kernel._replace(run=one_step), tensors, state), expected, 1e-11)


@every_kernel
def test_steps_are_one_graph_for_the_compiler(kernel: Kernel) -> None:
    tensors, state = inputs(kernel, 2, 1), initial_state(kernel, 2)
    token = [x if name == "u" else x[:, :, 0] for name, x in tensors.items()]
    compiled = torch.compile(kernel.step, backend="eager", fullgraph=True)
    for ours, expected in zip(compiled(*token, state), kernel.step(*token, state), strict=True):
        torch.testing.assert_close(ours, expected)


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_the_future_changes_nothing(kernel: Kernel, mode: str) -> None:
    tensors, other = inputs(kernel, 1, 30), inputs(kernel, 1, 30, seed=5)
    mixed = {
        name: x if name == "u" else torch.cat([x[:, :, :11], other[name][:, :, 11:]], dim=2)
        for name, x in tensors.items()
    }
    options: dict[str, Any] = {"mode": mode, "chunk_size": 8}
    out, changed = (kernel.run(*x.values(), **options)[0] for x in (tensors, mixed))
    torch.testing.assert_close(changed[:, :, :11], out[:, :, :11], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(changed[:, :, 11:], out[:, :, 11:])


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_gradcheck(kernel: Kernel, mode: str) -> None:
    tensors, state = inputs(kernel, 1, 5), initial_state(kernel, 1)
    leaves = [x.requires_grad_() for x in (*tensors.values(), state)]

    def run(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        return kernel.run(*arguments[:-1], initial_state=arguments[-1], mode=mode, chunk_size=2)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    if mode == "naive":
        assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@every_kernel
def test_the_other_layout_is_the_same_transposed(kernel: Kernel) -> None:
    tensors = inputs(kernel, 2, 20)
    expected, final = kernel.run(*tensors.values())
    other = [x if name == "u" else x.transpose(1, 2).contiguous() for name, x in tensors.items()]
    out, state = kernel.run(*other, layout="bthd")
    assert out.shape == (2, 20, H, V)
    torch.testing.assert_close(out.transpose(1, 2), expected)
    torch.testing.assert_close(state, final)


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_padding_changes_nothing_and_gives_zeros(kernel: Kernel, mode: str) -> None:
    tensors, state = inputs(kernel, 1, 20, decay=2.0), initial_state(kernel, 1)
    real = torch.rand(1, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    # What stands at padding must not matter, not even that it is not a number.
    padded = {
        name: x if name == "u" else x.masked_fill(~real.view(1, 1, 20, *[1] * (x.ndim - 3)), torch.nan)
        for name, x in tensors.items()
    }
    padded |= {name: padded[name].nan_to_num(nan=3.0) for name in {"g", "g1", "w"} & {*padded}}  # not a log-decay
    kept = [x if name == "u" else x[:, :, real[0]] for name, x in tensors.items()]
    expected, final = kernel.run(*kept, initial_state=state, mode=mode, chunk_size=8)
    out, after = kernel.run(*padded.values(), initial_state=state, mode=mode, chunk_size=8, mask=real)
    torch.testing.assert_close(out[:, :, real[0]], expected)
    torch.testing.assert_close(after, final)
    assert out[:, :, ~real[0]].abs().max() == 0
    if kernel is not KERNELS["normalized"]:  # whose feature map comes before the mask
        finite = with_gradients(kernel, tensors, state, mode=mode, chunk_size=8, mask=real)
        assert_same(with_gradients(kernel, padded, state, mode=mode, chunk_size=8, mask=real), finite, 1e-12)


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_tensors_without_gradients_take_nothing_from_those_with(kernel: Kernel, mode: str) -> None:
    tensors, state = inputs(kernel, 1, 20), initial_state(kernel, 1)
    expected = with_gradients(kernel, tensors, state, mode="naive")
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(expected[name].shape, generator=generator, dtype=torch.float64) for name in ("out", "final")]
    for name in (*tensors, "state"):
        leaves = {n: x.clone().requires_grad_(n == name) for n, x in {**tensors, "state": state}.items()}
        results = kernel.run(*[leaves[n] for n in tensors], initial_state=leaves["state"], mode=mode, chunk_size=8)
        pairs = [(x, weight) for x, weight in zip(results, weights, strict=True) if x.requires_grad]
        torch.autograd.backward(*map(list, zip(*pairs, strict=True)))
        grads = {f"grad {n}": x.grad for n, x in leaves.items() if x.grad is not None}
        assert_same(grads, {f"grad {name}": expected[f"grad {name}"]}, 1e-11)
        assert len(grads) == 1


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_packed_sequences_may_all_be_empty(kernel: Kernel, mode: str) -> None:
    tensors, states = inputs(kernel, 1, 0), initial_state(kernel, 2)
    results = with_gradients(kernel, tensors, states, mode=mode, cu_seqlens=torch.tensor([0, 0, 0]))
    assert results["out"].shape == (1, H, 0, V)
    assert torch.equal(results["final"], states)


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_packed_sequences_are_sequences_of_their_own(kernel: Kernel, mode: str) -> None:
    borders = [0, 1, 1, 18, 20, 37, 40]
    tensors, states = inputs(kernel, 1, 40), initial_state(kernel, 6)

    def one_by_one(*arguments: Tensor, initial_state: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        named = dict(zip(tensors, arguments, strict=True))
        results = [
            kernel.run(*part(named, borders[n], borders[n + 1]), initial_state=initial_state[n : n + 1], **options)
            for n in range(6)
        ]
        outs, finals = zip(*results, strict=True)
        return torch.cat(outs, dim=2), torch.cat(finals)

    expected = with_gradients(kernel._replace(run=one_by_one), tensors, states, mode="naive")
    options: dict[str, Any] = {"mode": mode, "chunk_size": 8, "cu_seqlens": torch.tensor(borders)}
    assert_same(with_gradients(kernel, tensors, states, **options), expected, 1e-11)


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_no_tokens_and_no_batch_are_no_special_cases(kernel: Kernel, mode: str) -> None:
    state = initial_state(kernel, 2)
    results = with_gradients(kernel, inputs(kernel, 2, 0), state, mode=mode)
    assert results["out"].shape == (2, H, 0, V)
    assert torch.equal(results["final"], state)
    assert results["grad state"].abs().min() > 0
    out, final = kernel.run(*inputs(kernel, 0, 7).values(), mode=mode)
    assert out.shape == (0, H, 7, V)
    assert final.shape == (0, H, K, kernel.state_width)


@every_kernel
@pytest.mark.parametrize("mode", ["naive", "chunk"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_inputs_keep_a_float32_state(kernel: Kernel, mode: str, dtype: torch.dtype) -> None:
    tensors, state = inputs(kernel, 1, 30, dtype=dtype), initial_state(kernel, 1, dtype=torch.float32)
    out, final = kernel.run(*tensors.values(), initial_state=state, mode=mode)
    assert (out.dtype, final.dtype) == (dtype, torch.float32)
    if kernel is not KERNELS["normalized"]:  # whose feature map itself runs in half precision
        expected, exact = kernel.run(*(x.float() for x in tensors.values()), initial_state=state, mode="naive")
        torch.testing.assert_close(final, exact, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)


@every_kernel
def test_autocast_does_not_lower_the_precision_of_the_state(kernel: Kernel) -> None:
    tensors, state = inputs(kernel, 1, 30, dtype=torch.float32), initial_state(kernel, 1, dtype=torch.float32)
    expected = with_gradients(kernel, tensors, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(with_gradients(kernel, tensors, state), expected, 1e-6)


@every_kernel
def test_strided_inputs_give_the_same_result(kernel: Kernel) -> None:
    tensors = inputs(kernel, 2, 20)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in tensors.values()]
    assert not strided[0].is_contiguous()
    for ours, expected in zip(kernel.run(*strided), kernel.run(*tensors.values()), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("kernel", GATED.values(), ids=GATED)
@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_positive_gates_are_refused(kernel: Kernel, mode: str) -> None:
    tensors = inputs(kernel, 1, 10)
    name = next(iter({"g", "g1", "w"} & {*tensors}))
    tensors[name].flatten()[3] = 0.25
    with pytest.raises(ValueError, match=r"logarithm of a decay and must be <= 0, got values up to 0\.25.*logsigmoid"):
        kernel.run(*tensors.values(), mode=mode)


@pytest.mark.parametrize("kernel", GATED.values(), ids=GATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_infinite_decay_forgets_everything(kernel: Kernel, dtype: torch.dtype) -> None:
    tensors, state = inputs(kernel, 1, 30, dtype=dtype), initial_state(kernel, 1, dtype=torch.float32)
    name = next(iter({"g", "g1", "w"} & {*tensors}))
    tensors[name][:, :, 13] = -torch.inf
    results = with_gradients(kernel, tensors, state, mode="chunk", chunk_size=16)
    assert all(x.isfinite().all() for x in results.values())
    assert results["grad state"].abs().max() > 0
    later, final = kernel.run(*part(tensors, 13, 30), mode="chunk")
    skip = 1 if kernel is KERNELS["rwkv6"] else 0  # whose query sees the state before the decay
    torch.testing.assert_close(results["out"][:, :, 13 + skip :], later[:, :, skip:], rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(results["final"], final, rtol=1e-4, atol=1e-5)
