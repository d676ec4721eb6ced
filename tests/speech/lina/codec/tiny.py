"""Codecs that are small enough for tests, with random weights of ordinary size; tests must not change them."""

from functools import cache
from typing import TypeVar

import torch
from torch import nn

from mmattn.speech.lina.codec.embedded import EmbeddedCodec, EmbeddedCodecConfig
from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

Module = TypeVar("Module", bound=nn.Module)

EMBEDDED = EmbeddedCodecConfig(
    sample_rate=1000, n_fft=32, hop=16, num_mels=8, num_bins=4, dim=12, hidden=16, encoder_layers=1, frame_layers=1,
    half_layers=1, codebooks=3, codebook_size=16, code_dim=6,
)  # fmt: skip
WAVTOKENIZER = WavTokenizerConfig(
    sample_rate=800, filters=4, strides=(2, 4), features=12, codebook_size=32, dim=64, hidden=48, num_layers=2, n_fft=32
)


@cache
@torch.inference_mode(False)  # kept for tests that take gradients too
def embedded(dtype: torch.dtype = torch.float32, config: EmbeddedCodecConfig = EMBEDDED) -> EmbeddedCodec:
    codec = randomized(EmbeddedCodec(config)).to(dtype).eval()
    # No magnitude at the limit, where distances mean little.
    codec.decoder.head.out.weight.data *= 0.2
    codec.encoder.out.weight.data *= 3
    return codec


@cache
@torch.inference_mode(False)  # kept for tests that take gradients too
def wavtokenizer() -> WavTokenizer:
    codec = randomized(WavTokenizer(WAVTOKENIZER))
    codec.head.out.weight.data *= 0.2
    return codec


def randomized(module: Module, seed: int = 0) -> Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            size = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.add_(torch.randn(parameter.shape, generator=generator) / size**0.5)
    return module


def codes_of(codec: EmbeddedCodec | WavTokenizer, frames: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(codec.codebook_size, (batch, codec.codebooks, frames), generator=generator)
