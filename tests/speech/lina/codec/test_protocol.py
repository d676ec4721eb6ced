from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.speech.lina.codec.protocol import (
    Codec,
    StreamingDecoder,
    Window,
    decode_windowed,
    default_window,
    snr_db,
    windowed_snr,
)
from mmattn.speech.lina.codec.spectra import InverseSTFT, SpectrumHead
from tests.speech.lina.codec.test_encodec import encodec
from tests.speech.lina.codec.tiny import codes_of, embedded, wavtokenizer

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


WINDOWS = st.builds(
    lambda left, step, right, fade: Window(left, step, right, min(fade, left, step)),
    st.integers(0, 9), st.integers(1, 7), st.integers(0, 9), st.integers(0, 4),
)  # fmt: skip


def by_definition(codec: Codec, codes: Tensor, window: Window) -> Tensor:
    """Adds all windows, each with its rise before its step and its fall before the next one's."""
    batch, _, frames = codes.shape
    hop, total = codec.hop, torch.zeros(batch, frames * codec.hop)
    starts = list(range(0, frames, window.step))
    for start in starts:
        stop = min(start + window.step, frames)
        first = max(0, start - window.left)
        wave = codec.decode(codes[..., first : stop + window.right])
        rise, fall = min(window.fade, start) * hop, (window.fade if stop < frames else 0) * hop
        weight = torch.ones(stop * hop - start * hop + rise)
        weight[:rise] = (torch.arange(rise) + 0.5) / rise if rise else 1.0
        if fall:
            weight[len(weight) - fall :] *= 1 - (torch.arange(fall) + 0.5) / fall
        begin = start * hop - rise
        total[:, begin : stop * hop] += wave[:, begin - first * hop : stop * hop - first * hop] * weight
    return total


@settings(deadline=None, max_examples=15)
@given(WINDOWS, st.integers(0, 25), st.booleans())
def test_windows_are_decoded_and_mixed_as_defined(window: Window, frames: int, is_finite: bool) -> None:
    codec = embedded() if is_finite else wavtokenizer()
    codes = codes_of(codec, frames, batch=2)
    with torch.inference_mode():
        wave = decode_windowed(codec, codes, window)
        assert wave.shape == (2, frames * codec.hop)
        torch.testing.assert_close(wave, by_definition(codec, codes, window), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=15)
@given(WINDOWS, st.lists(st.integers(0, 7), min_size=1, max_size=6), st.booleans())
def test_the_portions_in_which_tokens_come_do_not_change_a_bit(
    window: Window, portions: list[int], is_finite: bool
) -> None:
    codec = embedded() if is_finite else wavtokenizer()
    codes = codes_of(codec, sum(portions))
    stream = StreamingDecoder(codec, window)
    with torch.inference_mode():
        pieces = [stream.push(portion) for portion in codes.split(portions, dim=-1)]
        streamed = torch.cat([*pieces, stream.finish()], dim=-1)
        assert torch.equal(streamed, decode_windowed(codec, codes, window))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("step", [1, 4, 50])
def test_a_finite_codec_streams_what_one_decode_gives(dtype: torch.dtype, step: int) -> None:
    codec = embedded(dtype)
    codes = codes_of(codec, 60, batch=2)
    window = default_window(codec, step * codec.hop / codec.sample_rate)
    assert window == Window(codec.context, step, codec.context)
    with torch.inference_mode():
        whole, pieces = codec.decode(codes), decode_windowed(codec, codes, window)
    torch.testing.assert_close(pieces, whole, atol=1e-6 if dtype == torch.float32 else 1e-14, rtol=0)
    # Less context is heard.
    with torch.inference_mode():
        short = decode_windowed(codec, codes, Window(codec.context - 1, step, codec.context))
        if step < 50:
            assert (short - whole).abs().max() > 1e-9


def test_samples_come_as_soon_as_their_look_ahead_is_there() -> None:
    codec = embedded()
    stream = StreamingDecoder(codec, Window(left=5, step=4, right=3))
    codes = codes_of(codec, 10)
    sizes = [stream.push(codes[..., i : i + 1]).shape[1] // codec.hop for i in range(10)]
    assert sizes == [0, 0, 0, 0, 0, 0, 4, 0, 0, 0]
    assert stream.finish().shape == (1, 6 * codec.hop)


def test_what_is_held_does_not_grow() -> None:
    stream = StreamingDecoder(embedded(), Window(left=5, step=4, right=3))
    held = []
    for _ in range(30):
        stream.push(codes_of(embedded(), 4))
        assert stream._codes is not None
        held.append(stream._codes.shape[-1])
    assert max(held) <= 5 + 4 + 3


def test_a_codec_that_hears_everything_comes_closer_with_more_context() -> None:
    codec = wavtokenizer()
    codes = codes_of(codec, 80)
    with torch.inference_mode():
        near, far = (windowed_snr(codec, codes, Window(n, 20, n, 2)).item() for n in (4, 50))
        whole = windowed_snr(codec, codes, Window(80, 20, 80, 2)).item()
    assert 0 < near < far < whole
    assert whole > 100


def test_the_default_window_of_a_codec_that_hears_everything() -> None:
    # 100 frames a second.
    assert default_window(wavtokenizer(), 0.3) == Window(200, 30, 50, 5)


def test_errors() -> None:
    codec = embedded()
    with pytest.raises(ValueError, match=r"expected step >= 1"):
        Window(1, 0, 1)
    with pytest.raises(ValueError, match=r"fade <= left and <= step"):
        Window(1, 3, 1, 2)
    stream = StreamingDecoder(codec)
    with pytest.raises(ValueError, match="no stream to finish"):
        stream.finish()
    stream.push(codes_of(codec, 3))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\) after \(1, 3\)"):
        stream.push(codes_of(codec, 3, batch=2))
    assert stream.finish().shape == (1, 3 * codec.hop)
    with pytest.raises(ValueError, match="The stream is finished"):
        stream.push(codes_of(codec, 3))


def test_signal_to_noise_by_hand() -> None:
    reference = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    estimate = torch.tensor([[3.0, 3.5], [1.0, 1.0]])
    assert snr_db(reference, estimate).tolist() == [pytest.approx(20.0), float("inf")]
