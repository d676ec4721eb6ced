"""The Titans layers: streams cut anywhere, causality, options, published state dicts, errors."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmattn.attention.titans import (
    MacOptions,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    MemoryOptions,
    NeuralMemory,
)
from mmattn.attention.titans.update import memory_updates, newton_schulz, soft_clamp_norm
from mmattn.kernels.memory import Memory, memory_gradients, recall

DIM, TOKENS = 8, 13
OPTIONS = {
    "plain": MemoryOptions(chunk_size=3),
    "one_token": MemoryOptions(heads=2, dim_head=4),
    "batches": MemoryOptions(chunk_size=2, batch_size=4, heads=2, dim_head=4, qk_rmsnorm=True, post_rmsnorm=True),
    "no_momentum": MemoryOptions(chunk_size=4, momentum=False, depth=1, pre_rmsnorm=False),
    "everything": MemoryOptions(
        chunk_size=3, batch_size=6, heads=2, dim_head=4, momentum_order=2, num_kv_per_token=2, activation="silu",
        max_grad_norm=1.0, attn_pool_chunks=True, per_parameter_lr_modulation=True, spectral_norm_surprises=True,
    ),
    "plain_network": MemoryOptions(chunk_size=5, depth=3, expansion_factor=2.0, mem_model_norm_add_residual=False),
}  # fmt: skip


def shaken(module: nn.Module) -> nn.Module:
    """Moves all parameters away from their (partly zero) initial values; float64."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def memory_layer(name: str) -> NeuralMemory:
    return shaken(NeuralMemory(DIM, OPTIONS[name]))


def branches() -> list[nn.Module]:
    memory = MemoryOptions(chunk_size=3, heads=2, dim_head=4)
    options = {"dim_head": 4, "heads": 2, "num_persist_mem_tokens": 2, "memory": memory}
    return [shaken(layer(DIM, 4, **options)) for layer in (MemoryAsGate, MemoryAsLayer)]


def language_model(**options: object) -> MemoryAsContext:
    defaults = {"num_longterm_mem_tokens": 2, "num_persist_mem_tokens": 1, "dim_head": 4, "heads": 2}
    memory = MemoryOptions(heads=2, dim_head=4)
    return shaken(MemoryAsContext(MacOptions(11, DIM, 2, 4, **{**defaults, "memory": memory, **options})))


LANGUAGE_MODELS = {
    "plain": {},
    "sliding": {"sliding_window_attn": True},
    "gates": {"neural_mem_gate_attn_output": True, "neural_memory_segment_len": 2},
    "residual_weights": {
        "neural_mem_weight_residual": True, "neural_memory_segment_len": 3, "neural_memory_batch_size": 6,
    },
    "no_extra_tokens": {"num_longterm_mem_tokens": 0, "num_persist_mem_tokens": 0, "neural_memory_layers": (2,)},
}  # fmt: skip


def in_pieces(layer: nn.Module, x: Tensor, cuts: list[int]) -> Tensor:
    state, outs = None, []
    for start, stop in pairwise([0, *sorted(set(cuts) - {0, x.shape[1]}), x.shape[1]]):
        out, state = layer(x[:, start:stop], state)
        outs.append(out)
    return torch.cat(outs, dim=1)


def close(left: object, right: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


CUTS = st.lists(st.integers(1, TOKENS - 1), max_size=5)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(OPTIONS)), CUTS)
def test_a_stream_of_the_memory_may_be_cut_anywhere(name: str, cuts: list[int]) -> None:
    layer, x = memory_layer(name), torch.randn(2, TOKENS, DIM, dtype=torch.float64)
    close(in_pieces(layer, x, cuts), layer(x)[0])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(LANGUAGE_MODELS)), CUTS)
def test_a_text_may_be_cut_anywhere(name: str, cuts: list[int]) -> None:
    model, ids = language_model(**LANGUAGE_MODELS[name]), torch.randint(11, (2, TOKENS))
    close(in_pieces(model, ids, cuts), model(ids)[0])


@settings(max_examples=10, deadline=None)
@given(CUTS)
def test_a_stream_of_the_branches_may_be_cut_anywhere(cuts: list[int]) -> None:
    x = torch.randn(2, TOKENS, DIM, dtype=torch.float64)
    for layer in branches():
        close(in_pieces(layer, x, cuts), layer(x)[0])


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_memory_is_causal(name: str) -> None:
    layer, x = memory_layer(name), torch.randn(1, TOKENS, DIM, dtype=torch.float64)
    for position in (0, 4, 12):
        changed = torch.cat([x[:, :position], -x[:, position:]], dim=1)
        close(layer(changed)[0][:, :position], layer(x)[0][:, :position])


def test_models_and_branches_are_causal_and_use_what_is_long_gone() -> None:
    x = torch.randn(1, TOKENS, DIM, dtype=torch.float64)
    for layer in branches():
        out = layer(x)[0]
        changed = layer(torch.cat([-x[:, :1], x[:, 1:]], dim=1))[0]
        assert (changed - out)[:, -1].abs().max() > 1e-6
        close(layer(torch.cat([x[:, :7], -x[:, 7:]], dim=1))[0][:, :7], out[:, :7])
    ids = torch.randint(11, (1, TOKENS))
    for options in LANGUAGE_MODELS.values():
        model = language_model(**options)
        first, later = ids.clone(), ids.clone()
        first[:, 0], later[:, 9] = (ids[:, 0] + 1) % 11, (ids[:, 9] + 1) % 11
        assert (model(first)[0] - model(ids)[0])[:, -1].abs().max() > 1e-9
        close(model(later)[0][:, :9], model(ids)[0][:, :9])


def test_the_memory_read_is_that_of_the_chunks_before() -> None:
    """The whole layer, for one head, in the plainest terms."""
    layer = memory_layer("no_momentum")
    x = torch.randn(1, 9, DIM, dtype=torch.float64)
    out, state = layer(x)
    memory = start = Memory((layer.memory_model_parameters[1][None],), layer.memory_model_parameters[0][None])
    expected = []
    for t in range(9):
        if t % 4 == 3:
            chunk = x[:, t - 3 : t + 1]
            keys, values = layer.to_keys(chunk)[:, None], layer.to_values(chunk)[:, None]
            theta = layer.to_adaptive_step(chunk).sigmoid().transpose(1, 2)
            keep = 1 - layer.to_decay_factor(chunk.mean(dim=1)).sigmoid().item()
            gradient = memory_gradients(start, keys, values, theta, reduction="mean")
            memory = memory.map(lambda m, g, keep=keep: keep * m - g, gradient)
        expected.append(recall(memory, layer.to_queries(x[:, t : t + 1])[:, None])[:, 0])
    close(out, torch.cat(expected, dim=1))
    close(state.last_update.tensors(), memory.tensors())


def test_the_state_is_not_changed_and_can_be_cut_off_from_its_history() -> None:
    layer, x = memory_layer("batches"), torch.randn(1, TOKENS, DIM, dtype=torch.float64)
    _, state = layer(x)
    copies = [t.clone() for t in state.last_update.tensors()]
    first, _ = layer(x, state)
    second, _ = layer(x, state)
    close(first, second, 0.0)
    close(copies, list(state.last_update.tensors()), 0.0)
    cut = state.detach()
    assert not any(t.requires_grad for m in (cut.base, cut.last_update, *cut.last_momentum) for t in m.tensors())
    assert not cut.remainder.requires_grad


def test_every_parameter_learns() -> None:
    for name in OPTIONS:
        layer = memory_layer(name)
        layer(torch.randn(2, TOKENS, DIM, dtype=torch.float64))[0].square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters()), name
        # The heads' initial memories are parameters of their own: an optimiser may write into them (upstream issue 64).
        torch.optim.SGD(layer.parameters(), lr=0.1).step()


def test_one_token_and_no_token() -> None:
    layer = memory_layer("plain")
    out, state = layer(torch.randn(2, 1, DIM, dtype=torch.float64))
    assert out.shape == (2, 1, DIM)
    assert (state.seq_index, state.remainder.shape[1]) == (0, 1)
    out, state = layer(torch.randn(2, 0, DIM, dtype=torch.float64), state)
    assert out.shape == (2, 0, DIM)
    assert state.remainder.shape[1] == 1


def test_the_template_of_published_state_dicts_is_left_out() -> None:
    layer = memory_layer("batches")
    published = {
        **layer.state_dict(),
        "memory_model.norm.gamma": torch.ones(4),
        "memory_model.model.weights.0": torch.ones(4),
    }
    assert layer.load_state_dict(published).missing_keys == []
    assert "memory_model.norm.gamma" in published
    with pytest.raises(RuntimeError, match="Unexpected key"):
        layer.load_state_dict({**layer.state_dict(), "memory.weights": torch.ones(4)})


def test_half_precision_keeps_the_memory_in_single_precision() -> None:
    layer = NeuralMemory(DIM, OPTIONS["batches"])
    x = torch.randn(1, TOKENS, DIM)
    exact, _ = layer(x)
    out, state = layer.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert all(t.dtype == torch.float32 for t in state.last_update.tensors())
    close(out.float(), exact, 0.1)


def test_autocast_does_not_reach_the_memory() -> None:
    layer, x = NeuralMemory(DIM, OPTIONS["everything"]), torch.randn(1, TOKENS, DIM)
    exact, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = layer(x)
        stepwise = in_pieces(layer, x, list(range(1, TOKENS)))
    assert all(t.dtype == torch.float32 for t in (*state.last_update.tensors(), *state.last_momentum[0].tensors()))
    for found in (out, stepwise):
        close(found.float(), exact, 0.1)


def test_the_soft_clamp_bounds_the_norm_and_keeps_zero() -> None:
    gradients = torch.cat([torch.zeros(1, 4, 4), 100 * torch.randn(3, 4, 4)]).double().requires_grad_()
    clamped = soft_clamp_norm(gradients, 2.0, lead=1)
    close(clamped.flatten(1).norm(dim=1), torch.tensor([0.0, 2.0, 2.0, 2.0], dtype=torch.float64))
    clamped.sum().backward()
    assert bool(gradients.grad.isfinite().all())


def test_newton_schulz_brings_singular_values_near_one_and_keeps_zero() -> None:
    matrices = torch.randn(3, 4, 9, dtype=torch.float64)
    for each in (matrices, matrices.transpose(-1, -2)):
        values = torch.linalg.svdvals(newton_schulz(each))
        assert 0.6 < values.min() <= values.max() < 1.3
    zero = torch.zeros(2, 3, 3, requires_grad=True)
    newton_schulz(zero).sum().backward()
    assert bool(zero.grad.isfinite().all())


def test_momentum_of_momentum_is_two_scans() -> None:
    generator = torch.Generator().manual_seed(3)
    gradients = Memory((torch.randn(1, 1, 6, 2, 2, generator=generator),))
    zero = Memory((torch.zeros(1, 1, 2, 2),))
    gates = torch.rand(3, 1, 1, 6, generator=generator)
    updates, momenta = memory_updates(gradients, zero, (zero, zero), gates[0], (gates[1], gates[2]))
    memory = first = second = torch.zeros(2, 2)
    for n in range(6):
        first = gates[1, 0, 0, n] * first - gradients.weights[0][0, 0, n]
        second = gates[2, 0, 0, n] * second + first
        memory = gates[0, 0, 0, n] * memory + second
        close(updates.weights[0][0, 0, n], memory, 1e-5)
    close([m.weights[0][0, 0] for m in momenta], [first, second], 1e-5)


def test_generation_is_repeatable_and_greedy_follows_the_logits() -> None:
    model = language_model()
    ids = torch.randint(11, (2, 6))
    greedy = model.generate(ids, 5, temperature=0)
    text = torch.cat([ids, greedy], dim=1)
    assert torch.equal(model(text)[0][:, 5:-1].argmax(dim=-1), greedy)
    draws = [model.generate(ids, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1)]
    assert torch.equal(*draws)
    assert torch.equal(model.generate(ids, 5, min_p=1.0), greedy)
    assert model.generate(ids, 0).shape == (2, 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NeuralMemory(8, MemoryOptions(dim_head=4)), "with one head, dim_head must be dim = 8, got 4"),
        (lambda: MemoryOptions(chunk_size=3, batch_size=4), "multiple of the store chunk of 3 tokens, got 4"),
        (lambda: MemoryOptions(attn_pool_chunks=True), "needs a store chunk above 1 token"),
        (lambda: MemoryOptions(heads=0), "heads must be at least 1, got 0"),
        (lambda: MemoryOptions(max_grad_norm=0.0), "max_grad_norm must be above 0, got 0.0"),
        (lambda: memory_layer("plain")(torch.zeros(1, 4, 7)), r"x must be \(B, T, 8\), got \(1, 4, 7\)"),
        (
            lambda: NeuralMemory(8)(torch.zeros(1, 4, 8), previous=Memory(())),
            "accept_weight_residual is False, got one",
        ),
        (lambda: NeuralMemory(8, MemoryOptions(chunk_size=(2, 4)))(torch.zeros(1, 9, 8)), "must not be smaller"),
        (lambda: MacOptions(9, 8, 2, 0), "segment_len must be at least 1 token, got 0"),
        (lambda: MacOptions(9, 8, 2, 4, neural_memory_layers=(0, 3)), r"from 1 to depth = 2, got \[0, 3\]"),
        (lambda: language_model()(torch.zeros(2, 0, dtype=torch.int64)), r"at least one token, got \(2, 0\)"),
        (lambda: MemoryAsLayer(8, 0), "window must be at least 1 token, got 0"),
        (lambda: MemoryAsLayer(6, 2, dim_head=3, heads=2), "dim must be even, got 3"),
    ],
)
def test_what_does_not_fit_is_explained(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
