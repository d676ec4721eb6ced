"""Feature maps by their dot products, sizes and signs."""

import math
from collections.abc import Callable

import pytest
import torch

from mmattn.kernels.linear import feature_maps, linear_attention, linear_attention_step
from mmattn.kernels.linear.feature_maps import FEATURE_MAPS

WIDTH = 6


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    q, k = torch.randn(2, 50, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return q, k


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("identity", 6), ("elu+1", 6), ("relu", 6), ("softplus", 6), ("exp", 6), ("square", 6),
        ("taylor", 1 + 6 + 36), ("taylor_compact", 1 + 6 + 21), ("dpfp", 48),
    ],
)  # fmt: skip
def test_every_named_map_has_its_size(name: str, features: int) -> None:
    assert FEATURE_MAPS[name](pair()[0]).shape == (50, features)


@pytest.mark.parametrize("name", [name for name in FEATURE_MAPS if name != "identity"])
def test_products_of_features_are_not_negative(name: str) -> None:
    q, k = pair()
    assert (FEATURE_MAPS[name](q) @ FEATURE_MAPS[name](k).T).min() >= -1e-12


@pytest.mark.parametrize("phi", [feature_maps.taylor, feature_maps.taylor_compact])
def test_taylor_features_are_the_exponential_to_second_order(phi: Callable[[torch.Tensor], torch.Tensor]) -> None:
    q, k = pair()
    s = q @ k.T / math.sqrt(WIDTH)
    torch.testing.assert_close(phi(q) @ phi(k).T, 1 + s + s.square() / 2)


def test_rebased_features_square_the_product_of_normed_vectors() -> None:
    q, k = pair()
    gamma, beta = torch.rand(2, WIDTH, dtype=torch.float64)
    y, z = (torch.nn.functional.layer_norm(x, (WIDTH,), gamma, beta) for x in (q, k))
    product = feature_maps.rebased(q, gamma, beta) @ feature_maps.rebased(k, gamma, beta).T
    torch.testing.assert_close(product, (y @ z.T).square() / WIDTH)
    assert feature_maps.rebased(q, gamma, beta).shape == (50, 21)


def test_hedgehog_features_are_a_distribution() -> None:
    x = pair()[0]
    features = feature_maps.hedgehog(x, torch.eye(WIDTH, dtype=torch.float64))
    assert features.shape == (50, 2 * WIDTH)
    torch.testing.assert_close(features.sum(dim=-1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(features[:, :WIDTH] / features[:, WIDTH:], (4 * x).exp())


def test_t2r_is_a_linear_map_and_a_relu() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    features = feature_maps.t2r(torch.tensor([2.0, 3.0]), weight, torch.tensor([0.5, 0.0, 0.0]))
    assert features.tolist() == [2.5, 0.0, 5.0]


def test_dpfp_multiplies_with_rolls() -> None:
    x = torch.tensor([2.0, -3.0])  # r = [2, 0, 0, 3]
    assert feature_maps.dpfp(x, nu=2).tolist() == [6, 0, 0, 0, 0, 0, 0, 0]
    assert feature_maps.dpfp(torch.tensor([2.0, 3.0]), nu=1).tolist() == [0, 6, 0, 0]
    assert feature_maps.dpfp(torch.tensor([2.0, 3.0]), nu=2, fla_compat=True).tolist() == [-6, 6, -6, 6, -4, -9, -4, -9]
    with pytest.raises(ValueError, match="nu must be at least 1, got 0"):
        feature_maps.dpfp(x, nu=0)


def test_the_stable_exponential_does_not_overflow() -> None:
    assert feature_maps.exp(torch.tensor([1e4, 0.0])).tolist() == [1.0, 0.0]


def test_a_map_may_be_any_function_and_an_unknown_name_is_refused() -> None:
    x = torch.rand(1, 2, 9, 4)
    ours, _ = linear_attention(x, x, x, feature_map=torch.square, normalize=True)
    named, _ = linear_attention(x, x, x, feature_map="square", normalize=True)
    assert torch.equal(ours, named)
    with pytest.raises(ValueError, match=r"a function or one of identity, elu\+1.*got 'cube'"):
        linear_attention(x, x, x, feature_map="cube")
    with pytest.raises(ValueError, match="got 'cube'"):
        linear_attention_step(x[:, :, 0], x[:, :, 0], x[:, :, 0], torch.zeros(1, 2, 4, 4), feature_map="cube")


def test_normalised_outputs_are_averages_of_the_values() -> None:
    q, k = torch.randn(2, 1, 2, 30, 4, generator=torch.Generator().manual_seed(0))
    v = torch.arange(30.0).expand(1, 2, 30).unsqueeze(-1).contiguous()
    out, _ = linear_attention(q, k, v, feature_map="softplus", normalize=True)
    assert (out[0, :, :, 0] <= torch.arange(30.0) + 1e-3).all()
    assert out.min() >= 0
