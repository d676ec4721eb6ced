"""The short convolution and rotary embedding: formulas and streams."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from mmattn.attention.recurrent.parts import ShortConv
from mmattn.attention.rotary import RotaryEmbedding, rotate


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_the_convolution_is_its_formula_wherever_the_stream_is_cut(kernel: int) -> None:
    conv, x = ShortConv(3, kernel).double(), torch.randn(2, 9, 3, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for t in range(9):
        for i in range(min(kernel, t + 1)):
            expected[:, t] += x[:, t - i] * conv.weight[:, 0, kernel - 1 - i].detach()
    expected = functional.silu(expected)
    for cuts in ([], [4], [0, 0, 4, 4], [1, 2, 3], [2, 8], list(range(1, 9))):
        cache, outs = None, []
        for start, stop in pairwise([0, *cuts, 9]):
            before = None if cache is None else cache.clone()
            out, after = conv(x[:, start:stop], cache)
            assert cache is None or torch.equal(cache, before)
            cache = after
            outs.append(out)
        torch.testing.assert_close(torch.cat(outs, dim=1), expected, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(cache, x.transpose(1, 2)[:, :, 9 - kernel :])


def test_rotation_keeps_lengths_and_sees_distances_only() -> None:
    rotary = RotaryEmbedding(6).double()
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64)
    for distance in (0, 3):
        products = [(rotary(q, start + distance) * rotary(k, start)).sum() for start in (0, 5, 100)]
        torch.testing.assert_close(torch.stack(products), products[0].expand(3), atol=1e-6, rtol=1e-6)
    assert torch.equal(rotary(q, 4)[..., 6:], q[..., 6:])
    torch.testing.assert_close(rotary(q, 4).norm(), q.norm())
    torch.testing.assert_close(rotary.freqs, 10000.0 ** -torch.tensor([0, 1 / 3, 2 / 3], dtype=torch.float64))


def test_rotation_is_complex_multiplication() -> None:
    x, freqs = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0.3, 0.01], dtype=torch.float64)
    turned = torch.view_as_complex(x.reshape(5, 2, 2)) * torch.exp(1j * torch.arange(5)[:, None] * freqs)
    torch.testing.assert_close(rotate(x, torch.arange(5), freqs), torch.view_as_real(turned).reshape(5, 4))
    with pytest.raises(ValueError, match="dim must be even, got 3"):
        RotaryEmbedding(3)
