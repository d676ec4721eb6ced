from collections.abc import Callable

import pytest
import torch

from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.codec.vocoder import InverseSTFT, SpectrumHead
from tests.speech.lina.codec.test_encodec import encodec
from tests.speech.lina.codec.tiny import embedded, wavtokenizer

CODECS: dict[str, Callable[[], Codec]] = {"embedded": embedded, "wavtokenizer": wavtokenizer, "encodec": encodec}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]()


@pytest.mark.parametrize("samples", [0, 1, 7, 8, 16, 17, 100])
@torch.inference_mode()
def test_lengths_are_whole_frames(codec: Codec, samples: int) -> None:
    codes = codec.encode(torch.randn(2, samples))
    frames = -(-samples // codec.hop)
    assert codes.shape == (2, codec.codebooks, frames)
    assert codes.dtype == torch.int64
    assert codec.decode(codes).shape == (2, frames * codec.hop)


@torch.inference_mode()
def test_items_of_a_batch_do_not_meet(codec: Codec) -> None:
    wave = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    codes = codec.encode(wave)
    both = codec.decode(codes)
    for i in range(3):
        assert torch.equal(codec.encode(wave[i : i + 1]), codes[i : i + 1])
        torch.testing.assert_close(codec.decode(codes[i : i + 1]), both[i : i + 1], atol=1e-5, rtol=1e-4)


def test_bad_input_is_named(codec: Codec) -> None:
    books, size = codec.codebooks, codec.codebook_size
    with pytest.raises(ValueError, match=r"shape \(5,\) and torch.float32, expected floats \(batch, samples\)"):
        codec.encode(torch.zeros(5))
    with pytest.raises(ValueError, match=r"torch\.int64"):
        codec.encode(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"expected integers \(batch, {books}, frames\)"):
        codec.decode(torch.zeros(1, books + 1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"Got codes from 0 to {size}, expected \[0, {size}\)"):
        codec.decode(torch.tensor([0, size]).expand(1, books, 2))


@pytest.mark.parametrize(("n_fft", "hop"), [(32, 8), (40, 10), (16, 16)])
def test_the_inverse_transform_inverts_the_transform(n_fft: int, hop: int) -> None:
    wave = torch.randn(2, 12 * hop, dtype=torch.float64)
    inverse = InverseSTFT(n_fft, hop)
    window = inverse.window.double()
    # At an end of the Hann window there is nothing to divide by.
    inside = slice(1, None) if n_fft == hop else slice(None)
    side = (n_fft - hop) // 2
    padded = torch.nn.functional.pad(wave, (side, side))
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    back = inverse(spectrum)
    assert back.shape == wave.shape
    torch.testing.assert_close(back.unflatten(1, (-1, hop))[..., inside], wave.unflatten(1, (-1, hop))[..., inside])


def test_the_inverse_transform_refuses_sizes_that_leave_odd_ends() -> None:
    for n_fft, hop in ((31, 8), (32, 9), (8, 16)):
        with pytest.raises(ValueError, match=f"n_fft is {n_fft} and hop {hop}"):
            InverseSTFT(n_fft, hop)


def test_magnitudes_beyond_the_limit_leave_finite_gradients() -> None:
    head = SpectrumHead(4, 16, 4, limit=2.0)
    with torch.no_grad():
        head.out.bias[:9] = 200.0
    wave = head(torch.zeros(1, 3, 4))
    wave.square().sum().backward()
    assert wave.abs().max() <= 2.0 * 16
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in head.parameters())
