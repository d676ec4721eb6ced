"""WavTokenizer (arXiv 2408.16532): one codebook of 4096 at 75 Hz, the codec of the released Lina models.

Encoder SEANet, nearest codeword, and a decoder that never goes back to the sample rate: convolutions, one softmax
attention over all frames and ConvNeXt blocks at the frame rate, then an inverse STFT. The authors' decoder is
conditioned on a bandwidth by choosing rows of scales and shifts; Lina always takes one of them, so
:mod:`.weights.wavtokenizer` puts that row into plain LayerNorms.

The attention and the group norms see the whole utterance: batches must be of equal lengths, and memory grows with the
square of the length. It was trained on 3 s; decode more than about 30 s in windows (:mod:`.protocol`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.core.config_fields import from_plain
from mmattn.kernels import attention
from mmattn.speech.lina.codec.protocol import check_codes, check_wave
from mmattn.speech.lina.codec.seanet import SEANetEncoder
from mmattn.speech.lina.codec.spectra import ConvNeXtBlock, SpectrumHead

__all__ = ["WavTokenizer", "WavTokenizerConfig"]

_EPS = 1e-6
_GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class WavTokenizerConfig:
    """Sizes of the released model.

    Attributes:
        sample_rate: Hz.
        filters: Channels after the encoder's first convolution.
        strides: Of the encoder, from the wave on; their product is the hop.
        lstm_layers: Of the encoder.
        features: Width of the features that are quantised.
        codebook_size: Codewords.
        dim: Width D of the decoder, a multiple of 32.
        hidden: Width inside its ConvNeXt blocks.
        num_layers: Number of these.
        n_fft: Length of the inverse transform.
    """

    sample_rate: int = 24_000
    filters: int = 32
    strides: tuple[int, ...] = (2, 4, 5, 8)
    lstm_layers: int = 2
    features: int = 512
    codebook_size: int = 4096
    dim: int = 768
    hidden: int = 2304
    num_layers: int = 12
    n_fft: int = 1280

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.strides)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self) | {"strides": list(self.strides)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WavTokenizerConfig:
        """Builds the config from :meth:`to_dict`'s result.

        >>> WavTokenizerConfig.from_dict({"strides": [2, 4]}).hop
        8
        """
        return from_plain(cls, data, what="The codec's config")


class WavTokenizer(nn.Module):
    """The codec; see the module's text. Built in evaluation mode with random weights.

    Args:
        config: Sizes.
    """

    codebook: Tensor
    codebooks = 1
    context = None

    def __init__(self, config: WavTokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WavTokenizerConfig()
        self.encoder = SEANetEncoder(config.filters, config.strides, config.features, config.lstm_layers)
        self.register_buffer("codebook", torch.randn(config.codebook_size, config.features))
        self.decoder = WavTokenizerDecoder(config)
        self.head = SpectrumHead(config.dim, config.n_fft, config.hop)
        self.eval()

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.config.hop

    @property
    def codebook_size(self) -> int:
        """Number of codewords."""
        return self.config.codebook_size

    def encode(self, wave: Tensor) -> Tensor:
        """Returns codes (B, 1, ceil(samples / hop)) of a wave (B, samples).

        Raises:
            ValueError: ``wave`` is not a floating (B, samples).
        """
        check_wave(wave)
        if wave.shape[-1] == 0:
            return torch.zeros(wave.shape[0], 1, 0, dtype=torch.int64, device=wave.device)
        return self.quantize(self.encoder(wave))[:, None]

    def quantize(self, features: Tensor) -> Tensor:
        """Returns the nearest codewords (B, T) of features (B, F, T), by Euclidean distance."""
        # |x - e|^2 without |x|^2, which is the same for all e.
        distance = self.codebook.square().sum(1) - 2 * features.transpose(1, 2) @ self.codebook.T  # (B, T, K)
        return distance.argmin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the wave (B, T * hop) of codes (B, 1, T).

        Raises:
            ValueError: As :func:`~mmattn.speech.lina.codec.protocol.check_codes`.
        """
        check_codes(self, codes)
        if codes.shape[-1] == 0:
            return self.codebook.new_zeros(codes.shape[0], 0)
        features = functional.embedding(codes[:, 0], self.codebook).transpose(1, 2)  # (B, F, T)
        wave: Tensor = self.head(self.decoder(features))
        return wave


class WavTokenizerDecoder(nn.Module):
    """Features to the frames of the spectrum head.

    Args:
        config: Sizes.
    """

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.embed = nn.Conv1d(config.features, dim, 7, padding=3)
        self.pos_net = nn.Sequential(
            ResnetBlock(dim),
            ResnetBlock(dim),
            FrameAttention(dim),
            ResnetBlock(dim),
            ResnetBlock(dim),
            nn.GroupNorm(_GROUPS, dim, eps=_EPS),
        )
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(dim, config.hidden, 1 / config.num_layers, _EPS) for _ in range(config.num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(dim, eps=_EPS)

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, T, D) for features (B, F, T)."""
        x = self.pos_net(self.embed(features))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        out: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return out


class ResnetBlock(nn.Module):
    """``x + conv_3(silu(GN(conv_3(silu(GN(x))))))``, with dropout before the last convolution in training.

    Args:
        dim: Channels D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, dim, eps=_EPS)
        self.conv1 = nn.Conv1d(dim, dim, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, dim, eps=_EPS)
        self.dropout = nn.Dropout(0.1)
        self.conv2 = nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, D, T) for (B, D, T)."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        inner = self.conv2(self.dropout(functional.silu(self.norm2(inner))))
        return x + inner


class FrameAttention(nn.Module):
    """Softmax attention of one head over all frames, with a residual.

    Args:
        dim: Channels D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, dim, eps=_EPS)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(dim, dim, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, D, T) for (B, D, T)."""
        normed = self.norm(x)
        q, k, v = (layer(normed).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))  # (B, 1, T, D)
        mixed = attention(q, k, v)[:, 0].transpose(1, 2)
        out: Tensor = x + self.proj_out(mixed)
        return out
