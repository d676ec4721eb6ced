"""EnCodec (arXiv 2210.13438) through transformers: the codec of Lina's older models.

Residual codebooks of 1024 at 75 Hz and 24 kHz, of which a Lina model uses a few, its "quant layers": [0, 1, 2, 3] of
LibriTTS, [0, 1, 2, 4] of Libri-light, [0, 1] of LJSpeech. A skipped codebook is left out of the sum when decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, MissingExtraError, WeightsUnavailableError
from mmattn.speech.lina.codec.protocol import check_codes, check_wave

__all__ = ["Encodec", "load_encodec"]


def load_encodec(source: str = "facebook/encodec_24khz", layers: Sequence[int] = (0, 1, 2, 3)) -> Encodec:
    """Returns the codec of a folder or of the hub.

    Args:
        source: Folder in the format of transformers, or name on the hub.
        layers: Codebooks in use, counted from 0.

    Raises:
        MissingExtraError: If transformers is not installed.
        WeightsUnavailableError: If the weights are neither on disk nor reachable.
        InputError: As :class:`Encodec`.
    """
    try:
        from transformers import EncodecModel
    except ImportError as error:
        raise MissingExtraError("transformers", "vlm", "EnCodec") from error
    try:
        model = EncodecModel.from_pretrained(source)
    except OSError as error:
        raise WeightsUnavailableError(
            f"EnCodec's weights '{source}' are neither on disk nor reachable.",
            "Download config.json and model.safetensors of facebook/encodec_24khz and pass their folder.",
        ) from error
    return Encodec(model, layers)


class Encodec(nn.Module):
    """The codec around a model of transformers.

    Its convolutions are causal but its LSTMs remember everything, so that windows only come close to one decode.

    Args:
        model: ``transformers.EncodecModel`` for mono audio without normalisation (the 24 kHz one).
        layers: Codebooks in use, counted from 0, increasing.

    Raises:
        InputError: The model is for stereo or normalises, or ``layers`` are not increasing numbers of its codebooks.
    """

    context = None

    def __init__(self, model: Any, layers: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        config = model.config
        if config.audio_channels != 1 or config.normalize:
            raise InputError("This EnCodec model is for stereo or normalised audio.", "Use facebook/encodec_24khz.")
        # Small models may have fewer codebooks than their bandwidths allow.
        available = len(model.quantizer.layers)
        if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < available:
            raise InputError(f"layers is {list(layers)}, expected increasing numbers from 0 to {available - 1}.")
        self.model = model.eval()
        self.layers = tuple(layers)
        self.sample_rate = int(config.sampling_rate)
        self.hop = int(config.hop_length)
        self.codebook_size = int(config.codebook_size)

    @property
    def codebooks(self) -> int:
        """Codebooks in use Q."""
        return len(self.layers)

    def encode(self, wave: Tensor) -> Tensor:
        """Returns codes (B, Q, ceil(samples / hop)) of a wave (B, samples).

        Raises:
            ValueError: ``wave`` is not a floating (B, samples).
        """
        check_wave(wave)
        if wave.shape[-1] == 0:
            return torch.zeros(wave.shape[0], self.codebooks, 0, dtype=torch.int64, device=wave.device)
        residual = self.model.encoder(wave[:, None])  # (B, F, T)
        codes = []
        for layer in self.model.quantizer.layers[: self.layers[-1] + 1]:
            codes.append(layer.encode(residual))
            residual = residual - layer.decode(codes[-1])
        return torch.stack([codes[i] for i in self.layers], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the wave (B, T * hop) of codes (B, Q, T).

        Raises:
            ValueError: As :func:`~mmattn.speech.lina.codec.protocol.check_codes`.
        """
        check_codes(self, codes)
        if codes.shape[-1] == 0:
            return torch.zeros(codes.shape[0], 0, device=codes.device)
        quantizers = self.model.quantizer.layers
        parts = [quantizers[i].decode(codes[:, row]) for row, i in enumerate(self.layers)]
        wave: Tensor = self.model.decoder(torch.stack(parts).sum(0))
        return wave[:, 0]
