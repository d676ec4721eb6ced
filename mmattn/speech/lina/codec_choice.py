"""The codec that a token model speaks through: the one in its checkpoint or one from elsewhere, checked to fit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mmattn.errors import CheckpointError
from mmattn.speech.lina.checkpoints import StoredLina
from mmattn.speech.lina.codec import Codec
from mmattn.speech.lina.codec_convert import read_wavtokenizer
from mmattn.speech.lina.codec_embedded import EmbeddedCodec
from mmattn.speech.lina.codec_encodec import load_encodec
from mmattn.speech.lina.codec_files import build_codec, load_codec
from mmattn.speech.lina.config import LinaConfig

__all__ = ["check_finite", "fitting_codec"]


def fitting_codec(stored: StoredLina, source: str | None = None) -> Codec:
    """Returns the codec of a checkpoint, in evaluation mode.

    Args:
        stored: The checkpoint.
        source: Where the codec is instead: a checkpoint folder of ours, a released file of WavTokenizer, or a folder or
            name of EnCodec where the model was trained on that.

    Raises:
        CheckpointError: If there is none, its weights are not finite, or its tokens are not those of the model.
        WeightsUnavailableError: If it is neither here, nor on disk, nor reachable.
        MissingExtraError: If transformers is needed and not installed.
    """
    config = stored.config
    if source is None:
        codec = build_codec(config.codec, config.codec_options, stored.codec)
    else:
        codec = _from_elsewhere(config, source)
    if isinstance(codec, EmbeddedCodec) and codec.codebooks > config.num_codebooks:
        codec = codec.first(config.num_codebooks)
    if isinstance(codec, nn.Module):
        check_finite(codec, "The codec")
    for what, found, wanted in (
        ("codebooks", codec.codebooks, config.num_codebooks),
        ("tokens in each", codec.codebook_size, config.codebook_size),
    ):
        if found != wanted:
            raise CheckpointError(
                f"The codec does not fit the model: it has {found} {what}, the model was trained on {wanted}.",
                f"Pass the {config.codec} codec that the model was trained with.",
            )
    return codec


def check_finite(module: nn.Module, what: str) -> None:
    """Checks the weights of a module.

    Args:
        module: Whose.
        what: Subject of the message.

    Raises:
        CheckpointError: If a number is NaN or infinite; the message names its tensor.
    """
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{what} is damaged: its weights {name} hold numbers that are not finite.", "Copy or convert it again."
            )


def _from_elsewhere(config: LinaConfig, source: str) -> Codec:
    if config.codec == "encodec":
        return load_encodec(**{**config.codec_options, "source": source})
    if Path(source).expanduser().is_file():
        return read_wavtokenizer(Path(source).expanduser())
    return load_codec(source)
