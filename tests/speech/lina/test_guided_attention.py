"""Guided attention."""

import math

import pytest
import torch

from mmattn.speech.lina.losses import guided_attention_loss


def valid(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])  # the first frame reads the end, the second both
    off = 1 - math.exp(-1 / (2 * 0.5**2))
    expected = (off + 0.5 * off) / 2
    assert guided_attention_loss(maps, valid(2), valid(2), sigma=0.5).item() == pytest.approx(expected)


def test_padding_counts_for_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 2, 5, 4, generator=generator).softmax(-1)
    alone = guided_attention_loss(maps, valid(5), valid(4))
    padded = torch.rand(2, 2, 7, 6, generator=generator)
    padded[0, :, :5, :4] = maps[0]
    padded[1] = 0.0
    both = guided_attention_loss(padded, valid(5, 7), valid(4, 6))
    assert both.item() * 12 == pytest.approx(alone.item() * 5, rel=1e-5)
