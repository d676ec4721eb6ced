"""The recurrent mixers (GLA, simple GLA, DeltaNet, RWKV6): what holds for all of them, and what each one is."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.recurrent.deltanet import DeltaNet
from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.attention.recurrent.parts import GatedHeadNorm
from mmattn.attention.recurrent.rwkv6 import Rwkv6
from mmattn.attention.recurrent.simple_gla import SimpleGatedLinearAttention

DIM, TOKENS = 8, 11
BUILD = {
    "gla": lambda **o: GatedLinearAttention(DIM, num_heads=2, gate_low_rank_dim=3, clamp_min=-2.0, **o),
    "gla_conv": lambda **o: GatedLinearAttention(DIM, num_heads=2, use_short_conv=True, conv_size=3, expand_v=1, **o),
    "simple_gla": lambda **o: SimpleGatedLinearAttention(DIM, num_heads=2, **o),
    "simple_gla_plain": lambda **o: SimpleGatedLinearAttention(DIM, num_heads=2, use_short_conv=False, **o),
    "deltanet": lambda **o: DeltaNet(DIM, num_heads=2, use_gate=True, allow_neg_eigval=True, **o),
    "deltanet_plain": lambda **o: DeltaNet(DIM, num_heads=2, use_short_conv=False, expand_k=0.5, **o),
    "rwkv6": lambda **o: Rwkv6(DIM, num_heads=2, proj_low_rank_dim=3, gate_low_rank_dim=2, **o),
}
NAMES = sorted(BUILD)
MODES = [("naive", 64), ("chunk", 1), ("chunk", 4), ("chunk", 64)]


def mixer(name: str, mode: str = "auto", chunk_size: int = 64) -> nn.Module:
    """The same random weights for a name, whatever the mode; float64."""
    torch.manual_seed(7)
    layer = BUILD[name](mode=mode, chunk_size=chunk_size).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def inputs(batch: int = 2, length: int = TOKENS) -> Tensor:
    return torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def close(left: object, right: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


def run_in_pieces(layer: nn.Module, x: Tensor, cuts: list[int]) -> tuple[Tensor, object]:
    state, outs = None, []
    for start, stop in pairwise([0, *sorted(set(cuts)), x.shape[1]]):
        out, state = layer(x[:, start:stop], state)
        outs.append(out)
    return torch.cat(outs, dim=1), state


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode[0]}{mode[1]}")
@pytest.mark.parametrize("name", NAMES)
def test_the_mode_of_the_kernel_does_not_matter(name: str, mode: tuple[str, int]) -> None:
    results = []
    for layer in (mixer(name, "naive"), mixer(name, *mode)):
        x = inputs().requires_grad_()
        out, state = layer(x)
        (out.square().sum() + state.recurrent.square().sum()).backward()
        results.append([out, state.recurrent, x.grad, *(p.grad for p in layer.parameters())])
    close(results[1], results[0])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.integers(1, TOKENS - 1), max_size=4), st.sampled_from(MODES))
def test_a_stream_may_be_cut_anywhere(name: str, cuts: list[int], mode: tuple[str, int]) -> None:
    whole, end = mixer(name)(inputs())
    out, state = run_in_pieces(mixer(name, *mode), inputs(), cuts)
    close(out, whole)
    close(state.recurrent, end.recurrent)


@pytest.mark.parametrize("name", NAMES)
def test_token_by_token_is_the_whole(name: str) -> None:
    out, _ = run_in_pieces(mixer(name), inputs(), list(range(1, TOKENS)))
    close(out, mixer(name)(inputs())[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_future_changes_nothing_and_the_past_does(name: str) -> None:
    layer, x = mixer(name), inputs()
    out, _ = layer(x)
    for position in (0, 5, 10):
        changed = torch.cat([x[:, :position], -x[:, position:]], dim=1)
        close(layer(changed)[0][:, :position], out[:, :position], 1e-12)
    # Not the opposite sign: k and v change it together.
    assert (layer(torch.cat([x[:, :1].flip(2), x[:, 1:]], dim=1))[0] - out)[:, -1].abs().max() > 1e-9


@pytest.mark.parametrize("mode", ["naive", "chunk"])
@pytest.mark.parametrize("name", NAMES)
def test_padding_on_the_left_changes_nothing(name: str, mode: str) -> None:
    layer, x = mixer(name, mode, 4), inputs()
    mask = torch.arange(TOKENS)[None] >= torch.tensor([[0], [4]])
    out, state = layer(x.masked_fill(~mask[..., None], torch.nan), mask=mask)
    alone, end = layer(x[1:, 4:])
    close(out[1:, 4:], alone)
    close(state.recurrent[1:], end.recurrent)
    after, _ = layer(inputs(length=3), state)
    close(after[1:], layer(inputs(length=3)[1:], end)[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_not_changed_and_all_parameters_learn(name: str) -> None:
    layer, x = mixer(name), inputs()
    _, state = layer(x)
    copy = state.recurrent.clone()
    close(layer(x[:, :1], state)[0], layer(x[:, :1], state)[0], 0.0)
    close(state.recurrent, copy, 0.0)
    layer(x)[0].square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in layer.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_keeps_the_state_in_single_precision(name: str) -> None:
    layer, x = mixer(name).float(), inputs().float()
    exact, _ = layer(x)
    layer = layer.bfloat16()
    for state in (None, layer(x.bfloat16())[1]):
        for length in (1, TOKENS):
            out, after = layer(x[:, :length].bfloat16(), state)
            assert out.dtype == torch.bfloat16
            assert after.recurrent.dtype == torch.float32
    assert (layer(x.bfloat16())[0].float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_one_token_and_an_empty_batch(name: str) -> None:
    layer = mixer(name)
    assert layer(inputs(length=1))[0].shape == (2, 1, DIM)
    assert layer(inputs(batch=2)[:0])[0].shape == (0, TOKENS, DIM)


def test_a_reset_forgets_the_past() -> None:
    layer, x = mixer("gla"), inputs()
    reset = torch.zeros(2, TOKENS, dtype=torch.bool)
    reset[:, 6] = True
    out, _ = layer(x, reset_mask=reset)
    close(out[:, 6:], layer(x[:, 6:])[0], 1e-6)
    stepwise, state = [], None
    for t in range(TOKENS):
        y, state = layer(x[:, t : t + 1], state, reset_mask=reset[:, t : t + 1])
        stepwise.append(y)
    close(torch.cat(stepwise, dim=1), out)


def test_log_gates_are_clamped() -> None:
    layer, x = mixer("gla"), inputs()
    with torch.no_grad():
        layer.gk_proj[1].bias.fill_(-1e4)
    assert layer.clamp_min == -2.0
    _, state = layer(x[:, :1])
    _, after = layer(torch.zeros(2, 1, DIM, dtype=torch.float64), state)
    close(after.recurrent, state.recurrent * torch.tensor(-2.0, dtype=torch.float64).exp())


def test_deltanet_is_its_recurrence() -> None:
    layer, x = mixer("deltanet"), inputs(batch=1)
    q, k, v = (
        functional.silu(functional.conv1d(functional.pad(proj(x).transpose(1, 2), (3, 0)), conv.weight, groups=DIM))[0]
        for proj, conv in (
            (layer.q_proj, layer.q_conv1d), (layer.k_proj, layer.k_conv1d), (layer.v_proj, layer.v_conv1d),
        )
    )  # fmt: skip
    beta, gate = 2 * layer.b_proj(x).sigmoid()[0], functional.silu(layer.g_proj(x))[0]
    expected = torch.zeros(TOKENS, DIM, dtype=torch.float64)
    for head in range(2):
        part, state = slice(4 * head, 4 * head + 4), torch.zeros(4, 4, dtype=torch.float64)
        for t in range(TOKENS):
            query, key = (functional.normalize(y[part, t], dim=0) for y in (q, k))
            state = state + torch.outer(key, beta[t, head] * (v[part, t] - key @ state))
            read = query @ state / 2  # scaled by 1 / sqrt(4)
            read = read / (read.square().mean() + 1e-5).sqrt() * layer.o_norm.weight
            expected[t, part] = read * gate[t, part]
    close(layer(x)[0][0], layer.o_proj(expected))


def test_the_gated_norm_is_its_formula() -> None:
    norm, x, gate = GatedHeadNorm(6, eps=0.1), torch.randn(3, 6), torch.randn(3, 6)
    expected = x / (x.square().mean(dim=-1, keepdim=True) + 0.1).sqrt()
    close(norm(x), expected, 1e-6)
    close(norm(x, gate), expected * gate * gate.sigmoid(), 1e-6)


@pytest.mark.parametrize("layer", [GatedLinearAttention, SimpleGatedLinearAttention, DeltaNet, Rwkv6])
def test_what_does_not_fit_is_explained(layer: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="3 heads do not divide keys of width"):
        layer(DIM, num_heads=3)
    with pytest.raises(ValueError, match=r"x must be \(B, T, 8\), got \(1, 4, 7\)"):
        layer(DIM, num_heads=2)(torch.zeros(1, 4, 7))
    with pytest.raises(ValueError, match=r"mask must be bool \(B, T\) = \(1, 4\), got torch.float32 \(1, 4\)"):
        layer(DIM, num_heads=2)(torch.zeros(1, 4, 8), mask=torch.ones(1, 4))
