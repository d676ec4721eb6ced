from pathlib import Path

import pytest
import torch

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.errors import CheckpointError, WeightsUnavailableError
from mmattn.speech.lina.codec.embedded import EmbeddedCodec
from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer
from mmattn.speech.lina.weights.store import build_codec, describe_codec, load_codec, save_codec
from tests.speech.lina.codec.tiny import EMBEDDED, embedded, wavtokenizer
from tests.speech.lina.weights.test_wavtokenizer import published


@pytest.mark.parametrize("name", ["embedded", "wavtokenizer"])
@torch.inference_mode()
def test_a_saved_codec_is_the_same_codec(tmp_path: Path, name: str) -> None:
    codec = embedded() if name == "embedded" else wavtokenizer()
    folder = save_codec(tmp_path / "codec", codec, card="# Tiny\n")
    again = load_codec(folder)
    assert isinstance(again, EmbeddedCodec | WavTokenizer)
    assert describe_codec(again) == describe_codec(codec)
    assert describe_codec(again)[0] == name
    assert not again.training
    wave = torch.randn(2, 100)
    assert torch.equal(again.encode(wave), codec.encode(wave))
    assert torch.equal(again.decode(again.encode(wave)), codec.decode(codec.encode(wave)))


def test_half_precision_files_are_read_as_single(tmp_path: Path) -> None:
    codec = load_codec(save_codec(tmp_path / "half", embedded(), card="# Tiny\n", dtype=torch.float16))
    assert isinstance(codec, EmbeddedCodec)
    for name, tensor in codec.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, embedded().state_dict()[name], atol=1e-3, rtol=1e-3)


def test_a_released_file_is_found_by_the_options(tmp_path: Path) -> None:
    torch.save({"state_dict": published()}, tmp_path / "released.ckpt")
    codec = build_codec("wavtokenizer", {"checkpoint": str(tmp_path / "released.ckpt")}, {})
    assert (codec.codebook_size, codec.sample_rate) == (32, 24_000)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    options, tensors = EMBEDDED.to_dict(), embedded().state_dict()
    with pytest.raises(CheckpointError, match=r"no codec 'mp3'.*Expected embedded, wavtokenizer or encodec"):
        build_codec("mp3", {}, {})
    with pytest.raises(WeightsUnavailableError, match=r"Download a \.ckpt of novateur/WavTokenizer"):
        build_codec("wavtokenizer", {}, {})
    with pytest.raises(CheckpointError, match="no field colour"):
        build_codec("embedded", options | {"colour": 1}, tensors)
    with pytest.raises(CheckpointError, match=r"quantizer\.codebook of shape \(3, 16, 6\), expected \(2, 16, 6\)"):
        build_codec("embedded", options | {"codebooks": 2}, tensors)
    with pytest.raises(CheckpointError, match=r"1 missing \(decoder\.embed\.bias\)"):
        build_codec("embedded", options, {k: v for k, v in tensors.items() if k != "decoder.embed.bias"})
    with pytest.raises(CheckpointError, match="codebooks is '4', expected a whole number"):
        build_codec("embedded", options | {"codebooks": "4"}, tensors)
    with pytest.raises(CheckpointError, match="hidden makes a size of 1000000000000"):
        build_codec("embedded", options | {"hidden": 10**12}, tensors)
    save_checkpoint(tmp_path / "other", {}, system="lina", config={"dim": 3}, card="# None\n")
    with pytest.raises(CheckpointError, match="names no codec"):
        load_codec(tmp_path / "other")
