"""Prefix linear attention: modes agree, a stream may be cut anywhere, the prefix is seen from everywhere."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.kernels.linear.prefix import prefix_linear_attention, prefix_linear_attention_step

B, H, D, V = 2, 3, 4, 5


def tokens(length: int, prefix: int, seed: int = 0) -> dict[str, Tensor]:
    """Non-negative features, so that no normaliser is 0; float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int, width: int) -> Tensor:
        return torch.rand(B, H, n, width, generator=generator, dtype=torch.float64)

    sizes = {"q": (length, D), "k": (length, D), "v": (length, V), "k_prefix": (prefix, D), "v_prefix": (prefix, V)}
    return {name: draw(*size) for name, size in sizes.items()}


def quadratic(q: Tensor, k: Tensor, v: Tensor, k_prefix: Tensor, v_prefix: Tensor) -> Tensor:
    """The definition, with all scores."""
    scores = torch.cat([q @ k_prefix.transpose(-1, -2), (q @ k.transpose(-1, -2)).tril()], dim=-1)
    return scores @ torch.cat([v_prefix, v], dim=2) / scores.sum(dim=-1, keepdim=True)


def close(left: object, right: object, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("mode", "chunk_size"), [("naive", 64), ("chunk", 1), ("chunk", 4), ("chunk", 64), ("auto", 5)]
)
@pytest.mark.parametrize(("length", "prefix"), [(13, 6), (13, 13), (7, 0), (1, 1)])
def test_every_mode_is_the_definition_with_its_gradients(mode: str, chunk_size: int, length: int, prefix: int) -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in tokens(length, prefix).items()}
    out, state = prefix_linear_attention(**inputs, mode=mode, chunk_size=chunk_size)
    expected = quadratic(**inputs)
    close(out, expected)
    weight = torch.randn_like(out)
    found, wanted = (torch.autograd.grad((x * weight).sum(), list(inputs.values())) for x in (out, expected))
    close(found, wanted)
    keys, values = (torch.cat([inputs[f"{n}_prefix"], inputs[n]], dim=2) for n in ("k", "v"))
    close(state[..., :-1], keys.transpose(-1, -2) @ values)
    close(state[..., -1], keys.sum(dim=2))


def test_the_initial_state_has_a_gradient() -> None:
    inputs = tokens(4, 2)
    _, state = prefix_linear_attention(**inputs)

    def run(start: Tensor) -> tuple[Tensor, ...]:
        return prefix_linear_attention(*(inputs[n] for n in ("q", "k", "v")), initial_state=start, chunk_size=3)

    assert torch.autograd.gradcheck(run, state.requires_grad_())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 9), st.lists(st.integers(0, 15), max_size=4), st.integers(1, 20), st.sampled_from(["naive", "chunk"])
)
def test_a_stream_may_be_cut_anywhere_after_its_prefix(
    prefix: int, cuts: list[int], chunk_size: int, mode: str
) -> None:
    inputs = tokens(15, prefix)
    whole, end = prefix_linear_attention(**inputs)
    state, outs = None, []
    for start, stop in pairwise([0, *sorted(cuts), 15]):
        part = {name: inputs[name][:, :, start:stop] for name in ("q", "k", "v")}
        if state is None:
            part |= {name: inputs[name] for name in ("k_prefix", "v_prefix")}
        out, state = prefix_linear_attention(**part, initial_state=state, mode=mode, chunk_size=chunk_size)
        outs.append(out)
    close(torch.cat(outs, dim=2), whole)
    close(state, end)


def test_steps_are_the_whole_and_leave_their_state_alone() -> None:
    inputs = tokens(6, 3)
    whole, end = prefix_linear_attention(**inputs)
    empty = {name: inputs[name][:, :, :0] for name in ("q", "k", "v")}
    _, state = prefix_linear_attention(**empty, k_prefix=inputs["k_prefix"], v_prefix=inputs["v_prefix"])
    outs = []
    for t in range(6):
        before = state.clone()
        out, after = prefix_linear_attention_step(*(inputs[n][:, :, t] for n in ("q", "k", "v")), state)
        assert torch.equal(state, before)
        outs.append(out)
        state = after
    close(torch.stack(outs, dim=2), whole)
    close(state, end)


def test_all_tokens_see_the_whole_prefix_and_nothing_else_of_the_future() -> None:
    inputs = tokens(8, 5)
    out, _ = prefix_linear_attention(**inputs)
    last = {**inputs, "v_prefix": inputs["v_prefix"].clone()}
    last["v_prefix"][:, :, 4] += 1.0
    assert (prefix_linear_attention(**last)[0] - out).abs().amin(dim=(0, 1, 3)).min() > 1e-3
    later = {**inputs, "v": inputs["v"].clone()}
    later["v"][:, :, 6:] += 1.0
    close(prefix_linear_attention(**later)[0][:, :, :6], out[:, :, :6], 0.0)


@pytest.mark.parametrize("mode", ["naive", "chunk"])
def test_masked_tokens_are_as_good_as_absent(mode: str) -> None:
    inputs = tokens(9, 4)
    mask = torch.ones(B, 9, dtype=torch.bool)
    mask[:, :3] = False
    for tensor in inputs.values():
        tensor[:, :, :3] = torch.nan  # what stands there must not matter
    out, state = prefix_linear_attention(**inputs, mask=mask, prefix_mask=mask[:, :4], mode=mode, chunk_size=4)
    short = {n: t[:, :, 3:] for n, t in inputs.items()}
    alone, end = prefix_linear_attention(**short, mode=mode)
    close(out[:, :, 3:], alone)
    close(state, end)


def test_packed_sequences_have_prefixes_of_their_own() -> None:
    lengths, inputs = [4, 0, 7], [tokens(n, 3, seed) for seed, n in enumerate((4, 0, 7))]
    packed = {n: torch.cat([x[n][:1] for x in inputs], dim=2) for n in ("q", "k", "v")}
    prefixes = {n: torch.cat([x[n][:1] for x in inputs]) for n in ("k_prefix", "v_prefix")}
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    out, states = prefix_linear_attention(**packed, **prefixes, cu_seqlens=bounds, chunk_size=4)
    for n, x in enumerate(inputs):
        alone, end = prefix_linear_attention(**{name: t[:1] for name, t in x.items()})
        close(out[:, :, bounds[n] : bounds[n + 1]], alone)
        close(states[n : n + 1], end)


def test_layouts_and_half_precision() -> None:
    inputs = tokens(12, 5)
    out, state = prefix_linear_attention(**inputs)
    swapped = {n: t.transpose(1, 2) for n, t in inputs.items()}
    close(prefix_linear_attention(**swapped, layout="bthd")[0].transpose(1, 2), out)
    half, half_state = prefix_linear_attention(**{n: t.bfloat16() for n, t in inputs.items()})
    assert half.dtype == torch.bfloat16
    assert half_state.dtype == torch.float32
    close(half.double(), out, 2e-2)
    close(half_state.double(), state, 5e-2)


def test_nothing_gives_nothing() -> None:
    out, state = prefix_linear_attention(**tokens(0, 3))
    assert out.shape == (B, H, 0, V)
    close(state[..., -1], tokens(0, 3)["k_prefix"].sum(dim=2))
    assert prefix_linear_attention(*(t[:0] for t in tokens(4, 2).values()))[0].shape == (0, H, 4, V)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_prefix": None}, "k_prefix and v_prefix go together, got one of them"),
        ({"k": torch.zeros(B, H, 4, D + 1)}, r"like k and v except for their length, got k \(2, 3, 4, 5\)"),
        ({"v_prefix": torch.zeros(B, H, 3, V)}, r"k_prefix \(2, 3, 2, 4\), v_prefix \(2, 3, 3, 5\)"),
        ({"v_prefix": torch.zeros(B, H, 2, V + 1)}, r"v_prefix \(2, 3, 2, 6\)"),
        (
            {"initial_state": torch.zeros(B, H, D, V)},
            r"initial_state must be .* = \(2, 3, 4, 6\) .* got \(2, 3, 4, 5\)",
        ),
        ({"mask": torch.ones(B, 4)}, r"mask must be bool \(B, T\) = \(2, 4\), got torch.float32"),
        ({"prefix_mask": torch.ones(B, 4, dtype=torch.bool)}, r"prefix_mask must be bool \(B, M\) = \(2, 2\)"),
        (
            {"k_prefix": None, "v_prefix": None, "prefix_mask": torch.ones(B, 2, dtype=torch.bool)},
            "prefix_mask is of k_prefix and v_prefix, got it without them",
        ),
        ({"mode": "fast"}, "mode must be 'auto', 'naive' or 'chunk', got 'fast'"),
        ({"layout": "tbhd"}, "layout must be 'bhtd' or 'bthd', got 'tbhd'"),
        ({"chunk_size": 0}, "chunk_size must be at least 1 token, got 0"),
    ],
)
def test_what_does_not_fit_is_explained(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prefix_linear_attention(**{**tokens(4, 2), **change})
