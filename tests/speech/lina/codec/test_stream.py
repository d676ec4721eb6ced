import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.speech.lina.codec.protocol import Codec, snr_db
from mmattn.speech.lina.codec.stream import StreamingDecoder, Window, decode_windowed, default_window, windowed_snr
from tests.speech.lina.codec.tiny import codes_of, embedded, wavtokenizer

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
