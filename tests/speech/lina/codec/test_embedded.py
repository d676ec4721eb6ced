import numpy as np
import pytest
import torch
from torch import Tensor

from mmattn.layers.quantise import ResidualVQ
from mmattn.speech.lina.codec.embedded import EmbeddedCodec, EmbeddedCodecConfig
from mmattn.speech.lina.codec.spectra import LogSpectrum, magnitudes, mel_filters
from mmattn.speech.lina.training.codec_losses import RESOLUTIONS, MultiResolutionLoss, log_mel_distance
from tests.speech.lina.codec.tiny import EMBEDDED, codes_of, embedded


def test_the_default_is_as_large_as_planned() -> None:
    codec = EmbeddedCodec()
    count = sum(p.numel() for p in codec.parameters())
    assert 2.1e6 < count < 2.2e6
    assert codec.quantizer.codebook.numel() == 65_536
    assert (codec.sample_rate / codec.hop, codec.context) == (50.0, 15)


@pytest.mark.parametrize(
    "config",
    [
        EMBEDDED,
        EmbeddedCodecConfig.from_dict(EMBEDDED.to_dict() | {"frame_layers": 0, "half_layers": 2, "n_fft": 40}),
        EmbeddedCodecConfig.from_dict(EMBEDDED.to_dict() | {"frame_layers": 2, "half_layers": 0, "n_fft": 16}),
    ],
    ids=["plain", "long-window", "short-window"],
)
def test_a_frame_is_heard_up_to_the_context_and_no_further(config: EmbeddedCodecConfig) -> None:
    codec = embedded(torch.float64, config)
    context, frames, hop = codec.context, 60, codec.hop
    x = torch.randn(1, frames, config.code_dim, dtype=torch.float64).requires_grad_()
    wave = codec.decoder(x)[0, 30 * hop : 31 * hop]
    (gradient,) = torch.autograd.grad(wave.square().sum(), x)
    heard = gradient[0].abs().amax(1).nonzero()[:, 0]
    assert 30 - context <= int(heard.min())
    assert int(heard.max()) <= 30 + context
    # Frames come in halves, and a whole one is counted where half would do.
    assert int(heard.max()) >= 30 + context - 1
    assert int(heard.min()) <= 30 - context + 1


@torch.inference_mode()
def test_the_encoder_hears_only_what_is_near() -> None:
    codec, wave = embedded(), torch.randn(1, 100 * EMBEDDED.hop)
    changed = wave.clone()
    changed[:, 50 * EMBEDDED.hop : 51 * EMBEDDED.hop] += 1.0
    differs = (codec.encoder(wave) - codec.encoder(changed))[0].abs().amax(1).nonzero()[:, 0]
    assert int(differs.min()) > 40
    assert int(differs.max()) < 60


@torch.inference_mode()
def test_the_first_codebooks_are_a_codec_of_their_own() -> None:
    codec, wave = embedded(), torch.randn(2, 200)
    codes = codec.encode(wave)
    two = codec.first(2)
    assert two.codebooks == 2
    assert torch.equal(two.encode(wave), codes[:, :2])
    assert torch.equal(two.decode(codes[:, :2]), codec.decoder(codec.quantizer.decode(codes[:, :2])))
    assert two.decoder is codec.decoder
    for bad in (0, 4):
        with pytest.raises(ValueError, match=f"codebooks is {bad}, expected 1 to 3"):
            codec.first(bad)


@torch.inference_mode()
def test_autocast_leaves_features_and_samples_in_single_precision() -> None:
    codec, wave = embedded(), torch.randn(1, 160)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = codec.encoder(wave)
        sound = codec.decoder(x)
    assert x.dtype == sound.dtype == torch.float32
    torch.testing.assert_close(x, codec.encoder(wave), atol=0.2, rtol=0.2)


def test_sizes_are_checked() -> None:
    for bad, message in (
        ({"codebooks": 0}, "codebooks is 0, expected at least 1"),
        ({"hop": 322}, "hop is 322.*divisible by 4"),
        ({"n_fft": 200}, "n_fft 200"),
        ({"num_bins": 500}, "num_bins 500"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddedCodecConfig(**bad)
    with pytest.raises(ValueError, match="no field speed"):
        EmbeddedCodecConfig.from_dict({"speed": 1})
    assert EmbeddedCodecConfig.from_dict(EMBEDDED.to_dict()) == EMBEDDED


def test_residual_quantisation_by_hand() -> None:
    quantizer = ResidualVQ(2, 2, 1)
    quantizer.codebook.copy_(torch.tensor([[[0.0], [10.0]], [[-1.0], [2.0]]]))
    x = torch.tensor([[[9.0], [1.5], [0.5]]])
    codes = quantizer.encode(x)
    # Of 0.5, both second codewords are equally far: the first counts.
    assert codes.tolist() == [[[1, 0, 0], [0, 1, 0]]]
    assert quantizer.decode(codes).flatten().tolist() == [9.0, 2.0, -1.0]
    assert quantizer.decode(codes[:, :1]).flatten().tolist() == [10.0, 0.0, 0.0]


def naive_quantize(x: Tensor, books: Tensor) -> list[list[int]]:
    rows = []
    for vector in x.double():
        row, residual = [], vector
        for book in books.double():
            row.append(int((residual - book).square().sum(1).argmin()))
            residual = residual - book[row[-1]]
        rows.append(row)
    return rows


def test_residual_quantisation_is_the_definition() -> None:
    torch.manual_seed(0)
    quantizer, x = ResidualVQ(3, 20, 5), torch.randn(1, 40, 5)
    assert quantizer.encode(x)[0].T.tolist() == naive_quantize(x[0], quantizer.codebook)


def test_mel_filters_sum_to_one_between_their_centres_and_widen() -> None:
    filters = mel_filters(40, 1024, 16_000).double()
    assert filters.shape == (40, 513)
    bins = torch.arange(513) * 16_000 / 1024
    inside = (bins > 100) & (bins < 7000)
    torch.testing.assert_close(filters.sum(0)[inside], torch.ones(int(inside.sum())).double(), atol=1e-6, rtol=0)
    widths = filters.sum(1)
    assert bool((widths[-1] > 3 * widths[0]) & (widths > 0).all())
    # Slaney's scale: 15 mel at 1000 Hz, and then 27 to a factor of 6.4.
    centres = bins[filters.argmax(1)]
    top = 15 + 27 * np.log(8) / np.log(6.4)
    assert centres[9].item() == pytest.approx(10 * top / 41 * 200 / 3, abs=10)
    assert centres[30].item() == pytest.approx(1000 * 6.4 ** ((31 * top / 41 - 15) / 27), abs=10)


def test_a_tone_is_in_its_bin_and_its_frames_are_centred() -> None:
    wave = torch.zeros(1, 1000)
    wave[0, 640] = 1.0
    spectrum = magnitudes(wave, 64, 16)
    assert spectrum.shape == (1, 33, 63)
    loudest = int(spectrum[0, 0].argmax())
    assert loudest in (39, 40)
    tone = torch.sin(torch.arange(640) * 2 * torch.pi * 8 / 64)[None]
    assert int(magnitudes(tone, 64, 16)[0, :, 20].argmax()) == 8


def test_features_are_small_numbers_even_of_silence() -> None:
    features = LogSpectrum(64, 16, 10, 5, 1000)
    for wave in (torch.zeros(1, 160), torch.randn(1, 160)):
        seen = features(wave)
        assert seen.shape == (1, 15, 10)
        assert seen.abs().max() < 3


def test_the_loss_is_zero_for_copies_and_counts_loudness() -> None:
    loss, wave = MultiResolutionLoss(16_000), torch.randn(2, 4000)
    assert loss(wave, wave).item() == 0.0
    # Half as loud: ln 2 of mel bands and half of it of bins, and half of the norm gone.
    half = loss(wave * 0.5, wave).item()
    assert half == pytest.approx(1.5 * np.log(2) + 0.25, abs=2e-3)
    assert log_mel_distance(wave * 0.5, wave, 16_000).item() == pytest.approx(np.log(2), abs=1e-4)


def test_the_loss_has_finite_gradients_at_silence() -> None:
    copy = torch.zeros(1, 2000, requires_grad=True)
    MultiResolutionLoss(16_000)(copy, torch.zeros(1, 2000)).backward()
    assert copy.grad is not None
    assert bool(copy.grad.isfinite().all())
    assert [r.n_fft for r in RESOLUTIONS] == [1024, 512, 256]


@torch.inference_mode()
def test_every_token_can_be_decoded() -> None:
    codec = embedded()
    wave = codec.decode(codes_of(codec, 50))
    assert bool(wave.isfinite().all())
    assert 1e-3 < wave.std() < 10
