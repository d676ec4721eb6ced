import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.errors import CheckpointError
from mmattn.speech.lina.weights.wavtokenizer import read_wavtokenizer, wavtokenizer_from_published
from tests.speech.lina.codec.tiny import WAVTOKENIZER, wavtokenizer

Q = "feature_extractor.encodec.quantizer.vq.layers.0._codebook."


def published(bandwidths: int = 4, chosen: int = 0) -> dict[str, Tensor]:
    """The tiny codec under the authors' names, with weight norm and tables of scales."""
    result = {}
    for name, tensor in wavtokenizer().state_dict().items():
        if name == "codebook":
            result |= {f"{Q}embed": tensor, f"{Q}embed_avg": tensor, f"{Q}inited": torch.ones(1)}
            result |= {f"{Q}cluster_size": torch.ones(len(tensor))}
        elif name.startswith("encoder.") and "lstm" not in name:
            name = "feature_extractor.encodec." + name
            name = name.replace("conv1", "block.1").replace("conv2", "block.3")
            stem, kind = name.rsplit(".", 1)
            if kind == "weight":
                norm = tensor.norm(dim=(1, 2), keepdim=True)
                result |= {f"{stem}.conv.conv.weight_g": norm, f"{stem}.conv.conv.weight_v": tensor * 3}
            else:
                result[f"{stem}.conv.conv.bias"] = tensor
        elif name.startswith("encoder."):
            result["feature_extractor.encodec." + name] = tensor
        elif re.search(r"(decoder|convnext\.\d+)\.norm\.(weight|bias)", name):
            rows = torch.zeros(bandwidths, len(tensor))
            rows[chosen] = tensor
            name = name.replace("norm.weight", "norm.scale.weight").replace("norm.bias", "norm.shift.weight")
            result[name.replace("decoder.", "backbone.")] = rows
        else:
            result[name.replace("decoder.", "backbone.")] = tensor
    return result | {"head.istft.window": torch.hann_window(32)}


def extra() -> dict[str, Tensor]:
    return {
        "multiperioddisc.x.weight": torch.zeros(1),
        "feature_extractor.encodec.decoder.model.0.bias": torch.zeros(1),
    }


@pytest.mark.parametrize("chosen", [0, 2])
def test_sizes_and_weights_are_those_of_the_codec(chosen: int) -> None:
    codec = wavtokenizer_from_published(published(chosen=chosen) | extra(), bandwidth_id=chosen, sample_rate=800)
    assert codec.config == WAVTOKENIZER
    expected = wavtokenizer().state_dict()
    for name, tensor in codec.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
    assert not codec.training


@pytest.mark.parametrize("nested", [True, False], ids=["lightning", "bare"])
@torch.inference_mode()
def test_files_are_read(tmp_path: Path, nested: bool) -> None:
    file = tmp_path / "wavtokenizer.ckpt"
    torch.save({"state_dict": published(), "epoch": 3} if nested else published(), file)
    wave = torch.randn(1, 60)
    codec = read_wavtokenizer(file)
    assert codec.sample_rate == 24_000
    assert torch.equal(codec.encode(wave), wavtokenizer().encode(wave))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(CheckpointError, match="'x' is no WavTokenizer"):
        wavtokenizer_from_published({"a.weight": torch.zeros(2)}, what="'x'")
    whole = published()
    for gone, message in (
        ("head.out.weight", "is no whole WavTokenizer"),
        (f"{Q}embed", "is no whole WavTokenizer"),
        ("backbone.embed.bias", r"1 missing \(decoder\.embed\.bias\)"),
        ("feature_extractor.encodec.encoder.model.0.conv.conv.weight_g", "without its weight_g"),
    ):
        with pytest.raises(CheckpointError, match=message):
            wavtokenizer_from_published({name: tensor for name, tensor in whole.items() if name != gone})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(decoder\.more\)"):
        wavtokenizer_from_published(whole | {"backbone.more": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(feature_extractor.*layers\.1"):
        wavtokenizer_from_published(whole | {Q.replace("layers.0", "layers.1") + "embed": torch.zeros(2, 3)})
    with pytest.raises(CheckpointError, match=r"codebook of shape \(32, 5\), expected \(32, 12\)"):
        wavtokenizer_from_published(whole | {f"{Q}embed": torch.zeros(32, 5)})
    with pytest.raises(CheckpointError, match="has 4 bandwidths, bandwidth_id is 4"):
        wavtokenizer_from_published(whole, bandwidth_id=4)
