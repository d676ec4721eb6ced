"""The codec that ships with mmattn: small, convolutional, 16 kHz, 50 frames a second, residual codebooks.

Log spectra in, an inverse STFT out, ConvNeXt blocks and a residual quantiser between. No part sees more than a fixed
number of frames, so that tokens can be decoded in pieces with exactly the result of one decode of everything:
``context`` says how many frames around a piece that takes.

The codebooks are trained to be useful from the first on: a model may use only the first few (:meth:`first`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.core.config_fields import from_plain
from mmattn.layers.quantise import ResidualVQ
from mmattn.speech.lina.codec.protocol import check_codes, check_wave
from mmattn.speech.lina.codec.spectra import ConvNeXtBlock, LogSpectrum, SpectrumHead

__all__ = ["EmbeddedCodec", "EmbeddedCodecConfig"]

_LAYER_SCALE = 1 / 8
_LOUDEST = math.exp(5)
_HALVES = 2
"""Spectra per frame: tokens at 50 Hz, spectra at 100 Hz."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedCodecConfig:
    """Sizes.

    Attributes:
        sample_rate: Hz.
        n_fft: Length of the transforms, samples.
        hop: Samples per frame; a spectrum is taken every half frame.
        num_mels: Mel bands that the encoder sees.
        num_bins: Plain low bins that it sees.
        dim: Width D of encoder and decoder.
        hidden: Width inside their blocks.
        encoder_layers: Blocks of the encoder.
        frame_layers: Blocks of the decoder at the frame rate.
        half_layers: Blocks of the decoder at twice that.
        codebooks: Codebooks Q.
        codebook_size: Codewords K of each.
        code_dim: Width of these.
    """

    sample_rate: int = 16_000
    n_fft: int = 640
    hop: int = 320
    num_mels: int = 80
    num_bins: int = 64
    dim: int = 192
    hidden: int = 576
    encoder_layers: int = 3
    frame_layers: int = 2
    half_layers: int = 3
    codebooks: int = 4
    codebook_size: int = 512
    code_dim: int = 32

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: A size is below 1 (numbers of layers: below 0), ``hop`` is not divisible by 4, ``n_fft`` is odd
                or shorter than ``hop``, or ``num_bins`` exceeds the bins there are.
        """
        for field in fields(self):
            least = 0 if field.name.endswith("_layers") or field.name == "num_bins" else 1
            if getattr(self, field.name) < least:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}, expected at least {least}.")
        if self.hop % 4 or self.n_fft % 2 or self.n_fft < self.hop or self.num_bins > self.n_fft // 2 + 1:
            raise ValueError(
                f"hop is {self.hop}, n_fft {self.n_fft}, num_bins {self.num_bins}, expected a hop divisible by 4, an "
                "even n_fft >= hop, and num_bins <= n_fft / 2 + 1."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EmbeddedCodecConfig:
        """Builds the config from :meth:`to_dict`'s result.

        Raises:
            ValueError: If a key is not a field, or a size is out of range.

        >>> EmbeddedCodecConfig.from_dict({"codebooks": 2}).codebooks
        2
        """
        return from_plain(cls, data, what="The codec's config")


class EmbeddedCodec(nn.Module):
    """The codec; see the module's text. Built with random weights.

    Args:
        config: Sizes.
    """

    def __init__(self, config: EmbeddedCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EmbeddedCodecConfig()
        self.encoder = EmbeddedEncoder(config)
        self.quantizer = ResidualVQ(config.codebooks, config.codebook_size, config.code_dim)
        self.decoder = EmbeddedDecoder(config)

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.config.hop

    @property
    def codebooks(self) -> int:
        """Codebooks Q."""
        return self.config.codebooks

    @property
    def codebook_size(self) -> int:
        """Codewords K."""
        return self.config.codebook_size

    @property
    def context(self) -> int:
        """Frames on each side that a decoded frame depends on."""
        side = ConvNeXtBlock.kernel // 2
        # Of the overlapping windows, those that begin before a spectrum's samples end and end after they begin.
        halves = side * self.config.half_layers + math.ceil(self.config.n_fft / self.config.hop - 0.5)
        return side * (1 + self.config.frame_layers) + math.ceil(halves / _HALVES)

    def encode(self, wave: Tensor) -> Tensor:
        """Returns codes (B, Q, ceil(samples / hop)) of a wave (B, samples); the last frame is completed by silence.

        Raises:
            ValueError: ``wave`` is not a floating (B, samples).
        """
        check_wave(wave)
        if wave.shape[-1] == 0:
            return torch.zeros(wave.shape[0], self.codebooks, 0, dtype=torch.int64, device=wave.device)
        return self.quantizer.encode(self.encoder(wave))

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the wave (B, T * hop) of codes (B, Q, T).

        Raises:
            ValueError: As :func:`~mmattn.speech.lina.codec.protocol.check_codes`.
        """
        check_codes(self, codes)
        if codes.shape[-1] == 0:
            return self.quantizer.codebook.new_zeros(codes.shape[0], 0)
        wave: Tensor = self.decoder(self.quantizer.decode(codes))
        return wave

    def first(self, codebooks: int) -> EmbeddedCodec:
        """Returns this codec with its first codebooks only; the other weights are shared.

        Raises:
            ValueError: ``codebooks`` is below 1 or above Q.
        """
        if not 1 <= codebooks <= self.codebooks:
            raise ValueError(f"codebooks is {codebooks}, expected 1 to {self.codebooks}.")
        smaller = EmbeddedCodec(replace(self.config, codebooks=codebooks))
        smaller.encoder, smaller.decoder = self.encoder, self.decoder
        smaller.quantizer.codebook = self.quantizer.codebook[:codebooks]
        return smaller.train(self.training)


class EmbeddedEncoder(nn.Module):
    """Wave to vectors.

    Args:
        config: Sizes.
    """

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        super().__init__()
        self.hop = config.hop
        self.spectrum = LogSpectrum(
            config.n_fft, config.hop // _HALVES, config.num_mels, config.num_bins, config.sample_rate
        )
        self.embed = nn.Conv1d(config.num_mels + config.num_bins, config.dim, 2 * _HALVES, stride=_HALVES, padding=1)
        self.blocks = _blocks(config, config.encoder_layers)
        self.norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, config.code_dim)

    def forward(self, wave: Tensor) -> Tensor:
        """Returns vectors (B, T, F), ``float32`` or better, of a wave (B, samples), samples >= 1."""
        wave = functional.pad(wave, (0, -wave.shape[-1] % self.hop))
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = self.spectrum(wave)
        x = self.blocks(self.embed(spectrum))  # (B, D, T)
        x = self.norm(x.transpose(1, 2))
        with torch.autocast(wave.device.type, enabled=False):
            out: Tensor = self.out(x.to(self.out.weight.dtype))
        return out


class EmbeddedDecoder(nn.Module):
    """Vectors to wave.

    Args:
        config: Sizes.
    """

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        super().__init__()
        kernel = ConvNeXtBlock.kernel
        self.embed = nn.Conv1d(config.code_dim, config.dim, kernel, padding=kernel // 2)
        self.frame_blocks = _blocks(config, config.frame_layers)
        self.unfold = nn.Conv1d(config.dim, _HALVES * config.dim, 1)
        self.half_blocks = _blocks(config, config.half_layers)
        self.norm = nn.LayerNorm(config.dim)
        self.head = SpectrumHead(config.dim, config.n_fft, config.hop // _HALVES, limit=_LOUDEST)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the wave (B, T * hop), ``float32`` or better, of vectors (B, T, F), T >= 1."""
        x = self.unfold(self.frame_blocks(self.embed(x.transpose(1, 2))))  # (B, 2 D, T)
        x = x.unflatten(1, (_HALVES, -1)).permute(0, 2, 3, 1).flatten(2)  # (B, D, 2 T)
        x = self.norm(self.half_blocks(x).transpose(1, 2))
        # Eight bits of a phase would be heard.
        with torch.autocast(x.device.type, enabled=False):
            wave: Tensor = self.head(x.to(self.head.out.weight.dtype))
        return wave


def _blocks(config: EmbeddedCodecConfig, count: int) -> nn.Sequential:
    return nn.Sequential(*(ConvNeXtBlock(config.dim, config.hidden, _LAYER_SCALE) for _ in range(count)))
