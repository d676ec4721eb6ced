"""The text encoder and its mask."""

import torch

from mmattn.speech.lina.network.text_encoder import TextEncoder


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
