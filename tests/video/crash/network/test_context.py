"""The spectral gate against a sum over frequencies written out, and its two channel attentions."""

import numpy as np
import pytest
import torch

from mmattn.video.crash.network.context import ChannelAttention, ContextBranch, SpectralGate

GRID, DIM = (4, 6), 24


def gate(units: int = 0, seed: int = 0) -> SpectralGate:
    torch.manual_seed(seed)
    return SpectralGate(GRID, units).double()


def by_numpy(module: SpectralGate, x: torch.Tensor) -> np.ndarray:
    """The gate as the published code goes about it, with the view of its memory taken literally."""
    weight = module.expand.weight.detach().numpy()[:, 0, 0]
    bias = module.expand.bias.detach().numpy()
    spectral = module.complex_weight.detach().numpy()
    out = []
    for row in x.numpy():
        channel_major = np.stack([weight[c] * row + bias[c] for c in range(3)]).ravel()
        planes = np.empty((*GRID, 3))
        for d in range(DIM):
            for c in range(3):
                planes[d // GRID[1], d % GRID[1], c] = channel_major[3 * d + c]
        spectrum = np.fft.rfft2(planes, axes=(0, 1), norm="ortho")
        spectrum = 0.5 * spectrum * (spectral[..., 0] + 1j * spectral[..., 1])
        out.append(np.fft.irfft2(spectrum, s=GRID, axes=(0, 1), norm="ortho").reshape(DIM, 3).mean(axis=1))
    return np.stack(out)


@torch.no_grad()
def test_gate_is_that_of_the_published_code_with_its_view_of_memory() -> None:
    module, x = gate(), torch.randn(5, DIM).double()
    np.testing.assert_allclose(module(x).numpy(), by_numpy(module, x), atol=1e-12)


@torch.no_grad()
def test_any_leading_axes_are_rows() -> None:
    module, x = gate(), torch.randn(2, 3, DIM).double()
    torch.testing.assert_close(module(x)[1, 2], module(x[1, 2][None])[0])


@torch.no_grad()
def test_without_bottleneck_the_gate_is_affine_and_with_one_it_is_not() -> None:
    x, y = torch.randn(2, 1, DIM).double()
    for units, is_affine in ((0, True), (3, False)):
        module = gate(units)
        module.complex_weight.mul_(50.0)
        middle, average = module((x + y) / 2), (module(x) + module(y)) / 2
        assert torch.allclose(middle, average) == is_affine


@torch.no_grad()
def test_a_filter_of_ones_returns_half_of_the_mean_over_the_mixed_channels() -> None:
    module, x = gate(), torch.randn(2, DIM).double()
    module.complex_weight.copy_(torch.tensor([1.0, 0.0]))
    channels = module.expand(x[:, None]).reshape(2, DIM, 3)
    torch.testing.assert_close(module(x), 0.5 * channels.mean(dim=-1))


def test_identity_start_is_ones_plus_the_noise_of_the_published_start() -> None:
    torch.manual_seed(0)
    noise = SpectralGate(GRID, init="noise").complex_weight
    torch.manual_seed(0)
    identity = SpectralGate(GRID, init="identity").complex_weight
    torch.testing.assert_close(identity - noise, torch.tensor([1.0, 0.0]).expand_as(noise))
    assert 0.01 < noise.std().item() < 0.03


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    module = gate().float()
    x = torch.randn(2, DIM).to(dtype)
    assert torch.equal(module(x), module(x.float()).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x.float()), module.eval()(x.float()))
        assert module(x.float()).dtype == torch.float32


def test_channel_attention_without_units_is_a_half_and_has_nothing_to_learn() -> None:
    module, x = ChannelAttention(6, 0), torch.randn(2, 6, 4, 3)
    assert torch.equal(module(x), 0.5 * x)
    assert list(module.parameters()) == []


@torch.no_grad()
def test_channel_attention_scales_each_channel_by_one_number_from_mean_and_maximum() -> None:
    torch.manual_seed(0)
    module, x = ChannelAttention(6, 2), torch.randn(2, 6, 4, 3)
    ratio = module(x) / x
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(x))
    assert module.fc1 is not None
    assert module.fc2 is not None
    flat = x.flatten(2)
    pooled = torch.cat([flat.mean(2), flat.max(2).values], dim=1)
    expected = torch.sigmoid((pooled @ module.fc1.weight.T).relu() @ module.fc2.weight.T)
    torch.testing.assert_close(ratio[:, :, 0, 0], expected)


def test_every_parameter_of_either_branch_is_learned() -> None:
    for units in (0, 3):
        torch.manual_seed(0)
        branch = ContextBranch(DIM, GRID, units, "identity")
        out = branch(torch.randn(4, DIM))
        assert out.min() >= 0
        out.sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in branch.parameters())


@torch.no_grad()
def test_packing_makes_one_matrix_of_an_affine_branch_and_leaves_a_bottleneck_alone() -> None:
    x = torch.randn(5, DIM).double()
    for units, is_packed in ((0, True), (3, False)):
        torch.manual_seed(0)
        branch = ContextBranch(DIM, GRID, units, "identity").double().eval()
        plain = branch(x)
        branch.pack()
        assert (branch.packed is not None) == is_packed
        torch.testing.assert_close(branch(x), plain)


def test_a_packed_branch_still_learns_and_forgets_its_matrix_in_training() -> None:
    branch = ContextBranch(DIM, GRID).eval()
    branch.pack()
    branch(torch.randn(2, DIM)).sum().backward()
    assert branch.gate.complex_weight.grad is not None
    branch.train()
    assert branch.packed is None
