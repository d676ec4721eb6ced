import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from mmattn.errors import InputError, MissingExtraError, WeightsUnavailableError
from mmattn.speech.lina.codec.encodec import Encodec, load_encodec


@cache
def model() -> EncodecModel:
    config = EncodecConfig(
        sampling_rate=800, target_bandwidths=[0.5, 2.0], hidden_size=8, num_filters=4, upsampling_ratios=[4, 2],
        num_lstm_layers=1, codebook_size=16, codebook_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = EncodecModel(config)
    for layer in model.quantizer.layers:
        layer.codebook.embed.copy_(0.1 * torch.randn(16, 8))
    return model.eval()


def encodec(layers: tuple[int, ...] = (0, 1)) -> Encodec:
    return Encodec(model(), layers)


@torch.inference_mode()
def test_all_codebooks_are_what_transformers_computes() -> None:
    count = len(model().quantizer.layers)
    codec, wave = encodec(tuple(range(count))), torch.randn(2, 203)
    theirs = model().encode(wave[:, None], bandwidth=max(model().config.target_bandwidths))
    codes = codec.encode(wave)
    assert count == 5
    assert torch.equal(codes, theirs.audio_codes[0])
    sound = model().decode(theirs.audio_codes, theirs.audio_scales)[0]
    torch.testing.assert_close(codec.decode(codes), sound[:, 0])


@torch.inference_mode()
def test_skipped_codebooks_are_left_out_of_the_sum() -> None:
    wave = torch.randn(1, 64)
    every, some = encodec((0, 1, 2, 3)), encodec((0, 1, 3))
    codes = every.encode(wave)
    assert torch.equal(some.encode(wave), codes[:, [0, 1, 3]])
    layers = model().quantizer.layers
    summed = sum(layers[i].decode(codes[:, i]) for i in (0, 1, 3))
    torch.testing.assert_close(some.decode(codes[:, [0, 1, 3]]), model().decoder(summed)[:, 0])


def test_sizes_are_the_models() -> None:
    codec = encodec()
    assert (codec.sample_rate, codec.hop, codec.codebooks, codec.codebook_size, codec.context) == (800, 8, 2, 16, None)


@pytest.mark.parametrize("layers", [(), (1, 0), (0, 0), (0, 5), (-1, 0)])
def test_layers_must_be_codebooks_of_the_model(layers: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected increasing numbers from 0 to 4"):
        encodec(layers)


def test_stereo_models_are_refused() -> None:
    stereo = EncodecModel(EncodecConfig(audio_channels=2, num_filters=2, hidden_size=4, upsampling_ratios=[2]))
    with pytest.raises(InputError, match="stereo or normalised"):
        Encodec(stereo)


@torch.inference_mode()
def test_a_folder_is_loaded(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    wave = torch.randn(1, 100)
    assert torch.equal(load_encodec(str(tmp_path), [0, 2]).encode(wave), encodec((0, 2)).encode(wave))


def test_missing_weights_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsUnavailableError, match="neither on disk nor reachable"):
        load_encodec(str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"mmattn\[vlm\]"):
        load_encodec()
