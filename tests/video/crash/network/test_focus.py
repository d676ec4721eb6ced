"""Temporal focus attention against its formula, its cache, and its four outputs."""

import pytest
import torch
from torch import Tensor

from mmattn.video.crash.network.focus import TemporalFocus

L, B, K, D, H = 2, 3, 5, 8, 4


def focus(output: str = "softmax", layers: int = 3) -> TemporalFocus:
    torch.manual_seed(0)
    return TemporalFocus(D, L, layers, H, output).double()  # type: ignore[arg-type]


def window(entries: int = K) -> Tensor:
    return torch.randn(L, B, entries, D, generator=torch.Generator().manual_seed(1)).double()


def by_formula(module: TemporalFocus, states: Tensor) -> Tensor:
    """Each stack on its own, each head on its own; the aggregated states before the output rule."""
    rows = []
    for stack in range(L):
        x, means = states[stack], [states[stack].mean(dim=1)]
        for layer in module.layers:
            heads = []
            q, k, v = layer.qkv[stack](x).chunk(3, dim=-1)
            for h in range(H):
                part = slice(h * D // H, (h + 1) * D // H)
                scores = q[..., part] @ k[..., part].transpose(1, 2) / (D // H) ** 0.5
                heads.append(scores.softmax(dim=-1) @ v[..., part])
            attended = torch.cat(heads, dim=-1)
            dense = layer.dense[stack](attended)
            gelu = dense * 0.5 * (1 + torch.erf(dense / 2**0.5))
            x = gelu.softmax(dim=-1) + attended
            means.append(x.mean(dim=1))
        weights = module.mix.view(L, -1)[stack].softmax(dim=0)
        rows.append(sum(weight * mean for weight, mean in zip(weights, means, strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("entries", [1, 3, K])
def test_aggregated_states_and_gradients_are_those_of_the_formula(layers: int, entries: int) -> None:
    module, states = focus("identity", layers), window(entries).requires_grad_()
    leaves = [states, *module.parameters()]
    upstream = torch.randn(L, B, D).double()
    ours, theirs = module(states), by_formula(module, states)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_projections_kept_per_state_give_the_same_result() -> None:
    module, states = focus(), window()
    kept = torch.stack([module.project(state) for state in states.unbind(2)], dim=2)
    torch.testing.assert_close(module(states, kept), module(states))


@torch.no_grad()
def test_the_order_within_the_window_does_not_matter() -> None:
    module, states = focus(), window()
    torch.testing.assert_close(module(states[:, :, torch.randperm(K)]), module(states))


@torch.no_grad()
def test_stacks_and_clips_do_not_see_each_other() -> None:
    module, states = focus(), window()
    changed = states.clone()
    changed[0, 1] += 1.0
    difference = (module(changed) - module(states)).abs().amax(dim=-1)
    assert difference[0, 1] > 1e-6
    difference[0, 1] = 0.0
    assert difference.max() < 1e-12


@torch.no_grad()
def test_each_output_follows_its_rule() -> None:
    states = window()
    fused = by_formula(focus("identity"), states)
    torch.testing.assert_close(focus("softmax")(states), fused.softmax(dim=-1))
    torch.testing.assert_close(focus("softmax")(states).sum(-1), torch.ones(L, B).double())
    normal = torch.nn.functional.layer_norm(fused, (D,))
    torch.testing.assert_close(focus("layernorm")(states), normal)
    torch.testing.assert_close(focus("residual")(states), states[:, :, -1] + 0.5 * normal)


def test_only_outputs_that_normalise_have_norms_to_learn() -> None:
    for output, count in (("softmax", 0), ("identity", 0), ("layernorm", 2 * L), ("residual", 2 * L)):
        names = [name for name, _ in focus(output).named_parameters() if name.startswith("norms")]
        assert len(names) == count
