"""The stepped GRU beside ``torch.nn.GRU`` with the same weights."""

import pytest
import torch

from mmattn.video.crash.network.recurrence import PartedGru, gru_cell

D, B, T = 6, 3, 7


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_steps_and_gradients_are_those_of_torch(layers: int) -> None:
    torch.manual_seed(0)
    ours, theirs = PartedGru(D, 2, layers).double(), torch.nn.GRU(2 * D, D, layers, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([part.weight for part in ours.parts], dim=1))
        theirs.bias_ih_l0.copy_(ours.bias)
        for layer, recurrent in enumerate(ours.recurrent):
            theirs.get_parameter(f"weight_hh_l{layer}").copy_(recurrent.weight)
            theirs.get_parameter(f"bias_hh_l{layer}").copy_(recurrent.bias)
        for layer, between in enumerate(ours.between, start=1):
            theirs.get_parameter(f"weight_ih_l{layer}").copy_(between.weight)
            theirs.get_parameter(f"bias_ih_l{layer}").copy_(between.bias)
    x = torch.randn(B, T, 2 * D).double().requires_grad_()
    hidden, rows = torch.zeros(layers, B, D).double(), []
    for frame in x.unbind(1):
        gates = ours.known(frame[:, D:]) + ours.late(frame[:, :D])
        hidden = ours(gates, hidden)
        rows.append(hidden[-1])
    out, last = theirs(x)
    torch.testing.assert_close(torch.stack(rows, dim=1), out)
    torch.testing.assert_close(hidden, last)
    upstream = torch.randn_like(last)
    (mine,) = torch.autograd.grad(hidden, x, upstream, retain_graph=True)
    (expected,) = torch.autograd.grad(last, x, upstream, retain_graph=True)
    torch.testing.assert_close(mine, expected)


def test_initial_values_are_uniform_within_one_over_the_root_of_the_width() -> None:
    torch.manual_seed(0)
    values = torch.cat([p.flatten() for p in PartedGru(64, 3, 2).parameters()])
    assert values.abs().max() <= 1 / 8
    assert values.abs().mean().item() == pytest.approx(1 / 16, rel=0.02)


def test_memory_stays_in_single_precision_when_the_gates_are_not() -> None:
    hidden = torch.full((1, 2), 1 / 3)
    saturated = torch.tensor([[0.0, 0.0, 40.0, 40.0, 0.0, 0.0]], dtype=torch.bfloat16)
    kept = gru_cell(saturated, torch.zeros(1, 6, dtype=torch.bfloat16), hidden)
    assert torch.equal(kept, hidden)


@torch.no_grad()
def test_packed_parts_have_the_same_share() -> None:
    gru, x, y = PartedGru(512, 3, 1), torch.randn(2, 3, 512), torch.randn(2, 3, 512)
    expected = x @ gru.parts[1].weight.T + y @ gru.parts[2].weight.T + gru.bias
    torch.testing.assert_close(gru.known(x, y), expected, atol=1e-5, rtol=1e-5)
    gru.eval().pack()
    torch.testing.assert_close(gru.known(x, y), expected, atol=1e-5, rtol=1e-5)
    small = PartedGru(D, 2, 1)
    small.pack()
    assert small.packed is None
