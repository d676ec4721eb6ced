"""The neural memory: chunks against the token-by-token definition, gradients against autograd, and its laws."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.kernels.memory import (
    Memory,
    MemoryState,
    gated_scan,
    memory_gradients,
    neural_memory,
    neural_memory_step,
    recall,
)

B, H, D = 2, 3, 5
KINDS = ["linear", "deep", "residual"]


def memory(kind: str, seed: int = 0) -> Memory:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.4 * torch.randn(B, H, *shape, generator=generator, dtype=torch.float64)

    if kind == "linear":
        return Memory((draw(D, D),))
    return Memory((draw(D, 7), draw(7, 6), draw(6, D)), draw(D) if kind == "residual" else None)


def tokens(length: int, seed: int = 1) -> list[Tensor]:
    """q, k, v, theta, alpha, eta of moderate size."""
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(B, H, length, D, generator=generator, dtype=torch.float64) for _ in range(3)]
    gates = [high * torch.rand(B, H, length, generator=generator, dtype=torch.float64) for high in (0.1, 0.5, 0.9)]
    return vectors + gates


def close(left: object, right: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


def everything(state: MemoryState) -> list[Tensor]:
    return [*state.memory.tensors(), *state.momentum.tensors()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_stated_loss(kind: str) -> None:
    leaves = [t.requires_grad_() for t in memory(kind).tensors()]
    network = Memory(tuple(leaves)) if kind != "residual" else Memory(tuple(leaves[1:]), leaves[0])
    _, k, v, theta, *_ = tokens(11)
    for reduction, share in (("sum", 1.0), ("mean", 1 / D)):
        loss = (theta * share * (recall(network, k) - v).square().sum(dim=-1)).sum()
        expected = torch.autograd.grad(loss, leaves)
        close(memory_gradients(network, k, v, theta, reduction=reduction).tensors(), expected, 1e-12)


@pytest.mark.parametrize("chunk_size", [1, 4, 13, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_agree_with_the_definition_and_so_do_their_gradients(kind: str, chunk_size: int) -> None:
    results = {}
    weights = [torch.randn(B, H, 13, D, dtype=torch.float64)] + [
        torch.randn_like(t) for t in 2 * memory(kind).tensors()
    ]
    for mode in ("naive", "chunk"):
        inputs = [t.requires_grad_() for t in tokens(13)]
        start, push = memory(kind).map(Tensor.requires_grad_), memory(kind, 5).map(Tensor.requires_grad_)
        initial = MemoryState(start, push, start)
        out, state = neural_memory(*inputs, initial_state=initial, chunk_size=chunk_size, mode=mode)
        outputs = [out, *everything(state)]
        loss = sum((a * b).sum() for a, b in zip(outputs, weights, strict=True))
        results[mode] = outputs, torch.autograd.grad(loss, [*inputs, *start.tensors(), *push.tensors()])
    close(results["chunk"], results["naive"])


def test_the_chunk_form_passes_gradcheck() -> None:
    inputs = [t[:1, :1].clone().requires_grad_() for t in tokens(5)]
    start = memory("residual").map(lambda t: t[:1, :1].clone())

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        out, state = neural_memory(*tensors, initial_state=start, chunk_size=3, mode="chunk")
        return out, *everything(state)

    assert torch.autograd.gradcheck(run, inputs)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 9),
    st.lists(st.integers(0, 17), max_size=4),
    st.sampled_from(["auto", "naive", "chunk"]),
)
def test_a_stream_may_be_cut_anywhere(kind: str, chunk_size: int, cuts: list[int], mode: str) -> None:
    inputs = tokens(17)
    whole, end = neural_memory(*inputs, initial_state=memory(kind), chunk_size=chunk_size)
    edges, state, outs = [0, *sorted(cuts), 17], memory(kind), []
    for start, stop in pairwise(edges):
        part = [t[:, :, start:stop] for t in inputs]
        out, state = neural_memory(*part, initial_state=state, chunk_size=chunk_size, mode=mode)
        outs.append(out)
    close(torch.cat(outs, dim=2), whole)
    close(everything(state), everything(end))
    assert state.offset == end.offset == 17 % chunk_size


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 14), st.integers(1, 8), st.sampled_from(["naive", "chunk"]))
def test_the_future_changes_nothing(position: int, chunk_size: int, mode: str) -> None:
    inputs = tokens(15)
    out, _ = neural_memory(*inputs, initial_state=memory("residual"), chunk_size=chunk_size, mode=mode)
    changed = [torch.cat([t[:, :, :position], 0.5 * t[:, :, position:].flip(2)], dim=2) for t in inputs]
    other, _ = neural_memory(*changed, initial_state=memory("residual"), chunk_size=chunk_size, mode=mode)
    close(other[:, :, :position], out[:, :, :position], 1e-12)


def test_steps_are_the_whole() -> None:
    inputs = tokens(9)
    whole, end = neural_memory(*inputs, initial_state=memory("deep"), chunk_size=4)
    state, outs = MemoryState.start(memory("deep")), []
    for t in range(9):
        out, state = neural_memory_step(*(x[:, :, t] for x in inputs), state, chunk_size=4)
        outs.append(out)
    close(torch.stack(outs, dim=2), whole)
    close(everything(state), everything(end))


def test_a_linear_memory_without_momentum_is_the_delta_rule_with_forgetting() -> None:
    q, k, v, theta, alpha, _ = tokens(12)
    out, _ = neural_memory(q, k, v, theta, alpha, chunk_size=1)
    state, expected = torch.zeros(B, H, D, D, dtype=torch.float64), []
    for t in range(12):
        key, value, rate = k[:, :, t, :, None], v[:, :, t, None], theta[:, :, t, None, None]
        error = key.transpose(-1, -2) @ state - value
        state = (1 - alpha[:, :, t, None, None]) * state - 2 * rate * key @ error
        expected.append((q[:, :, t, None] @ state)[:, :, 0])
    close(out, torch.stack(expected, dim=2), 1e-12)


@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_padding_leaves_memory_and_momentum_as_they_are(mode: str) -> None:
    inputs = tokens(12)
    mask = torch.ones(B, 12, dtype=torch.bool)
    mask[0, 7:], mask[1, 10:] = False, False
    out, state = neural_memory(*inputs, initial_state=memory("residual"), chunk_size=5, mode=mode, mask=mask)
    for row, length in ((0, 7), (1, 10)):
        short = [t[row : row + 1, :, :length] for t in inputs]
        start = memory("residual").map(lambda t, row=row: t[row : row + 1])
        alone, end = neural_memory(*short, initial_state=start, chunk_size=5, mode=mode)
        close(out[row : row + 1, :, :length], alone)
        close([t[row : row + 1] for t in everything(state)], everything(end))


@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_what_stands_at_padding_does_not_matter(mode: str) -> None:
    mask = torch.ones(B, 12, dtype=torch.bool)
    mask[:, 4:7] = False
    results = []
    for filling in (0.0, torch.nan):
        padding = ~mask[:, None]
        inputs = [t.masked_fill(padding if t.ndim == 3 else padding[..., None], filling) for t in tokens(12)]
        leaves = [t.requires_grad_() for t in inputs]
        out, state = neural_memory(*leaves, initial_state=memory("deep"), chunk_size=5, mode=mode, mask=mask)
        sum(t.square().sum() for t in (out, *everything(state))).backward()
        results.append([out, *everything(state), *(t.grad for t in leaves)])
    assert all(t.isfinite().all() for t in results[0])
    close(results[1], results[0], 0.0)


@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_gates_at_their_limits_stay_finite_with_finite_gradients(mode: str) -> None:
    q, k, v, theta, alpha, eta = tokens(40)
    alpha[..., ::3], alpha[..., 1::3], eta[..., ::4], eta[..., 1::4] = 1.0, 0.999999, 0.0, 1.0
    inputs = [t.float().requires_grad_() for t in (q, k, v, theta, alpha, eta)]
    out, _ = neural_memory(*inputs, chunk_size=16, mode=mode)
    gradients = torch.autograd.grad(out.square().sum(), inputs)
    assert all(bool(t.isfinite().all()) for t in (out, *gradients))


def test_forgetting_everything_leaves_the_last_surprise() -> None:
    q, k, v, theta, alpha, _ = tokens(3)
    _, state = neural_memory(q, k, v, theta, torch.ones_like(alpha), initial_state=memory("linear"), chunk_size=3)
    last = [t[:, :, 2:] for t in (k, v, theta)]
    expected = memory_gradients(memory("linear"), *last).map(torch.neg)
    close(state.memory.weights, expected.weights, 1e-12)


def test_half_precision_in_and_out_with_a_state_in_single_precision() -> None:
    inputs = [t.bfloat16() for t in tokens(20)]
    start = memory("residual").map(Tensor.float)
    out, state = neural_memory(*inputs, initial_state=start, chunk_size=8)
    exact, _ = neural_memory(*(t.double() for t in inputs), initial_state=start, chunk_size=8)
    assert out.dtype == torch.bfloat16
    assert all(t.dtype == torch.float32 for t in everything(state))
    close(out.double(), exact, 2e-2)


def test_autocast_does_not_lower_the_precision() -> None:
    inputs, start = [t.float() for t in tokens(20)], memory("deep").map(Tensor.float)
    exact, _ = neural_memory(*inputs, initial_state=start, chunk_size=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = neural_memory(*inputs, initial_state=start, chunk_size=8)
    close(out, exact, 1e-5)


def test_layouts_and_strides_do_not_matter() -> None:
    inputs = tokens(10)
    out, _ = neural_memory(*inputs, initial_state=memory("deep"), chunk_size=4)
    swapped = [t.transpose(1, 2).contiguous() for t in inputs]
    other, _ = neural_memory(*swapped, initial_state=memory("deep"), chunk_size=4, layout="bthd")
    close(other.transpose(1, 2), out, 1e-12)
    strided = [t.repeat_interleave(2, dim=2)[:, :, ::2] for t in inputs]
    close(neural_memory(*strided, initial_state=memory("deep"), chunk_size=4)[0], out, 1e-12)


def test_nothing_changes_nothing() -> None:
    out, state = neural_memory(*tokens(0), initial_state=memory("residual"))
    assert out.shape == (B, H, 0, D)
    close(state.memory.tensors(), memory("residual").tensors(), 0.0)
    empty, _ = neural_memory(*(t[:0] for t in tokens(4)))
    assert empty.shape == (0, H, 4, D)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**16))
def test_the_scan_is_its_recurrence(steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gates = torch.rand(2, steps, generator=generator, dtype=torch.float64).round(decimals=1)  # with exact 0 and 1
    x, state = (torch.randn(2, *n, 3, generator=generator, dtype=torch.float64) for n in ((steps,), ()))
    result, expected = gated_scan(gates, x, state), []
    for step in range(steps):
        state = gates[:, step, None] * state + x[:, step]
        expected.append(state)
    close(result, torch.stack(expected, dim=1) if expected else x, 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(B, H, 4, D + 1)}, r"q \(2, 3, 4, 6\), k \(2, 3, 4, 5\)"),
        ({"q": torch.zeros(4), "layout": "bthd"}, r"q, k, v must be \(B, T, H, D\) .* got q \(4,\)"),
        ({"v": torch.zeros(B, H, 4, D, dtype=torch.int64)}, r"v must be floating point, got torch.int64"),
        ({"theta": torch.zeros(B, H, 3)}, r"theta must be \(B, H, T\) = \(2, 3, 4\), got \(2, 3, 3\)"),
        ({"mask": torch.ones(B, 4)}, r"mask must be bool \(B, T\) = \(2, 4\), got torch.float32"),
        ({"chunk_size": 0}, "chunk_size must be at least 1 token, got 0"),
        ({"mode": "fast"}, "mode must be 'auto', 'naive' or 'chunk', got 'fast'"),
        ({"layout": "tbhd"}, "layout must be 'bhtd' or 'bthd', got 'tbhd'"),
        ({"initial_state": Memory((torch.zeros(B, H, D, 7), torch.zeros(B, H, 6, D)))}, "fit each other, got"),
        ({"initial_state": Memory((torch.zeros(H, D, D),))}, r"\(B, H, U, W\) with B, H = \(2, 3\)"),
        ({"initial_state": Memory((torch.zeros(B, H, D, D),), torch.zeros(B, H, 2))}, "adds its input to its output"),
        ({"initial_state": MemoryState(*3 * [memory("linear")], 6), "chunk_size": 4}, "token 6 of its chunk"),
    ],
)
def test_what_does_not_fit_is_explained(change: dict[str, object], message: str) -> None:
    arguments = dict(zip(("q", "k", "v", "theta", "alpha", "eta"), tokens(4), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        neural_memory(**arguments)
