"""Positions of text tokens do not depend on the padding."""

import pytest
import torch

from mmattn.errors import InputError
from mmattn.speech.lina.network.positions import ConvolutionalPositions, SinusoidalPositions, sinusoid


def places(length: int) -> torch.Tensor:
    return torch.arange(length)[None]


def test_sines_by_hand() -> None:
    found = sinusoid(torch.tensor([3]), 4)[0]
    expected = torch.tensor([3.0, 0.03, 3.0 + torch.pi / 2, 0.03 + torch.pi / 2]).sin()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("length", [1, 5, 20, 40])
def test_convolutional_positions_of_a_text_are_the_same_in_any_batch(length: int) -> None:
    positions = ConvolutionalPositions(6)
    alone = positions(places(length), None)
    valid = torch.arange(64)[None] < torch.tensor([[64], [length]])
    batched = positions(places(64), valid)
    torch.testing.assert_close(batched[1, :length], alone[0])


def test_the_published_behaviour_lets_the_padding_in() -> None:
    positions = ConvolutionalPositions(6, over_padding=True)
    alone = positions(places(40), None)[0]
    batched = positions(places(64), torch.arange(64)[None] < torch.tensor([[40]]))[0]
    torch.testing.assert_close(batched[:25], alone[:25])
    # The last 15 reach over the end.
    assert ((batched[:40] - alone).abs().amax(dim=1) > 1e-4).nonzero().flatten().tolist() == list(range(25, 40))


def test_a_text_longer_than_the_table_is_refused() -> None:
    with pytest.raises(InputError, match="text has 2001 tokens, this model knows 2000"):
        ConvolutionalPositions(2)(places(2001), None)
    assert SinusoidalPositions(2)(places(2001), None).shape == (1, 2001, 2)
