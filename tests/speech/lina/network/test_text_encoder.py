"""The text encoder, and the positions of text tokens."""

import pytest
import torch

from mmattn.errors import InputError
from mmattn.speech.lina.network.text_encoder import ConvolutionalPositions, SinusoidalPositions, TextEncoder, sinusoid


def encoder() -> TextEncoder:
    return TextEncoder(16, 2, 2).eval()


def test_a_text_is_encoded_the_same_in_any_batch() -> None:
    module, x = encoder(), torch.randn(2, 9, 16)
    valid = torch.arange(9)[None] < torch.tensor([[9], [4]])
    batched = module(x, valid)
    torch.testing.assert_close(batched[0], module(x[:1])[0])
    torch.testing.assert_close(batched[1, :4], module(x[1:, :4])[0])
    assert bool(batched.isfinite().all())


def test_every_token_sees_every_other() -> None:
    x = torch.randn(1, 6, 16, requires_grad=True)
    encoder()(x)[0, 2].sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(-1) > 0).all())


def test_order_matters() -> None:
    module, x = encoder(), torch.randn(1, 6, 16)
    assert not torch.allclose(module(x.flip(1)).flip(1), module(x), atol=1e-3)


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
