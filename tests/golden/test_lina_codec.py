"""WavTokenizer against the authors' code: every stage from a wave through codes to a wave.

The convention is written in ``fixtures.py``.
"""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer
from mmattn.speech.lina.weights.wavtokenizer import wavtokenizer_from_published
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_tensors, metadata

FOLDER = "lina"
VALUE, AUDIO = Tolerance(atol=1e-5, rtol=1e-4), Tolerance(atol=2e-4)
# Only the README says it.
BANDWIDTH = 0


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``fixtures.py``."""
    if not file.startswith("codec") or not key.startswith("out/"):
        return None
    return {"out/codes": 0.0, "out/audio": AUDIO}.get(key, VALUE)


@cache
def tensors_of(file: str) -> dict[str, Tensor]:
    return load_tensors(golden_dir(FOLDER) / file)


@cache
def codec_of(file: str) -> WavTokenizer:
    weights = {k.removeprefix("weights/"): v for k, v in tensors_of(file).items() if k.startswith("weights/")}
    options = json.loads(metadata(golden_dir(FOLDER) / file)["config"])
    codec = wavtokenizer_from_published(weights, bandwidth_id=options.get("bandwidth_id", BANDWIDTH), what=file)
    check_sizes(codec, options)
    return codec


def check_sizes(codec: WavTokenizer, options: dict[str, object]) -> None:
    """The sizes read off the weights are those that the fixture was made with; an unknown option fails."""
    config, encoder = codec.config, options["encoder"]
    assert isinstance(encoder, dict)
    assert set(options) <= {
        "dim", "intermediate_dim", "num_layers", "input_channels", "n_fft", "hop", "encoder", "bins", "bandwidth_id"
    }  # fmt: skip
    assert set(encoder) <= {"n_filters", "ratios", "dimension", "lstm"}
    assert (config.dim, config.hidden, config.num_layers) == (
        options["dim"], options["intermediate_dim"], options["num_layers"]
    )  # fmt: skip
    assert (config.n_fft, config.hop, config.codebook_size) == (options["n_fft"], options["hop"], options["bins"])
    assert (config.filters, config.lstm_layers) == (encoder["n_filters"], encoder["lstm"])
    assert config.features == encoder["dimension"] == options["input_channels"]
    # The authors list the strides of the decoder, which are the encoder's from the last to the first.
    assert list(config.strides) == encoder["ratios"][::-1]
    assert math.prod(config.strides) == config.hop


@cache
def stages(file: str) -> dict[str, Tensor]:
    """Everything that is computed on the way, under the fixture's names and in its layouts."""
    codec, wave = codec_of(file), tensors_of(file)["in/wav"][:, 0]
    with torch.inference_mode():
        codes = codec.encode(wave)  # (B, 1, T)
        features = functional.embedding(codes[:, 0], codec.codebook).transpose(1, 2)
        embedded = codec.decoder.embed(features)
        return {
            "encoder_z": codec.encoder(wave),
            "codes": codes.movedim(1, 0),
            "features": features,
            "backbone_embed": embedded,
            "backbone_pos_net": codec.decoder.pos_net(embedded),
            "backbone": codec.decoder(features),
            "audio": codec.decode(codes),
        }


def cases() -> list[object]:
    files = [path.name for path in golden_files(FOLDER, "codec*.safetensors")]
    return [
        pytest.param(file, key, id=f"{Path(file).stem}-{key.removeprefix('out/')}")
        for file in files
        for key in sorted(tensors_of(file))
        if expected_tolerance(file, key) is not None
    ]


@pytest.mark.parametrize(("file", "key"), cases())
def test_a_stage_is_that_of_the_published_code(file: str, key: str) -> None:
    actual, expected = stages(file)[key.removeprefix("out/")], tensors_of(file)[key]
    tolerance = expected_tolerance(file, key)
    assert tolerance is not None
    check(actual, expected, tolerance, name=f"{file}:{key}")
