"""Codecs by name, and checkpoint folders that hold one.

A codec is described by a name and options, plain JSON, as ``LinaConfig.codec`` and ``codec_options`` keep them, and by
tensors, which in a checkpoint lie under the prefix ``codec.`` - alone or beside those of the token model:

| name | options | tensors |
| --- | --- | --- |
| embedded | fields of ``EmbeddedCodecConfig`` | in the checkpoint |
| wavtokenizer | fields of ``WavTokenizerConfig``, or ``checkpoint``: a released file | there or in that file |
| encodec | arguments of ``load_encodec`` | from transformers |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from mmattn.core.config_fields import check_types
from mmattn.core.weights.checkpoint import check_keys, load_checkpoint, save_checkpoint
from mmattn.core.weights.resolver import resolve
from mmattn.core.weights.stored_model import check_sizes
from mmattn.errors import CheckpointError, WeightsUnavailableError
from mmattn.speech.lina.codec.embedded import EmbeddedCodec, EmbeddedCodecConfig
from mmattn.speech.lina.codec.encodec import load_encodec
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.weights.store import PREFIX, StoredLina

if TYPE_CHECKING:
    from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

__all__ = ["build_codec", "check_finite", "describe_codec", "fitting_codec", "load_codec", "save_codec"]

_EMBEDDED_SIZES = ("num_mels", "num_bins", "dim", "hidden", "encoder_layers", "frame_layers", "half_layers",
                   "codebooks", "codebook_size", "code_dim")  # fmt: skip
_WAVTOKENIZER_SIZES = ("filters", "lstm_layers", "features", "codebook_size", "dim", "hidden", "num_layers")
"""Fields that are lengths of the weights or numbers of layers."""

BuiltCodec = TypeVar("BuiltCodec", EmbeddedCodec, "WavTokenizer")


def build_codec(name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codec:
    """Returns a codec in evaluation mode.

    Args:
        name: "embedded", "wavtokenizer" or "encodec".
        options: Of that codec, see the module's text.
        tensors: Its state without the prefix; empty where it comes from elsewhere.

    Raises:
        CheckpointError: If the name is unknown, or options and tensors do not fit.
        WeightsUnavailableError: If the weights are neither here, nor on disk, nor reachable.
        MissingExtraError: If transformers is needed and not installed.
    """
    if name == "encodec":
        return load_encodec(**options)
    if name == "wavtokenizer" and not tensors:
        if "checkpoint" not in options:
            raise WeightsUnavailableError(
                "This checkpoint speaks through WavTokenizer, whose weights it does not hold.",
                "Download a .ckpt of novateur/WavTokenizer-medium-speech-75token and pass it as the codec.",
            )
        from mmattn.speech.lina.weights.wavtokenizer import read_wavtokenizer

        return read_wavtokenizer(options["checkpoint"])
    try:
        if name == "embedded":
            check_types(EmbeddedCodecConfig, options)
            sizes = EmbeddedCodecConfig.from_dict(dict(options))
            _check_sizes(sizes, _EMBEDDED_SIZES, tensors)
            return _filled(EmbeddedCodec(sizes), tensors)
        if name == "wavtokenizer":
            from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

            check_types(WavTokenizerConfig, options)
            wide = WavTokenizerConfig.from_dict(dict(options))
            _check_sizes(wide, _WAVTOKENIZER_SIZES, tensors)
            return _filled(WavTokenizer(wide), tensors)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The options of the codec {name!r} do not fit: {error}") from error
    raise CheckpointError(f"There is no codec {name!r}.", "Expected embedded, wavtokenizer or encodec.")


def describe_codec(codec: EmbeddedCodec | WavTokenizer) -> tuple[str, dict[str, Any]]:
    """Returns name and options of a codec whose tensors a checkpoint can hold."""
    return "embedded" if isinstance(codec, EmbeddedCodec) else "wavtokenizer", codec.config.to_dict()


def load_codec(source: str | Path) -> Codec:
    """Returns the codec of a checkpoint folder, with or without a token model beside it.

    Args:
        source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.

    Raises:
        CheckpointError: If there is none in it.
        WeightsUnavailableError: If it is neither on disk nor reachable.
    """
    tensors, config = load_checkpoint(resolve("lina", source, what="codec"), "lina")
    if "codec" not in config:
        raise CheckpointError(f"'{source}' names no codec.", "Pass a folder that a codec's training wrote.")
    own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return build_codec(config["codec"], config.get("codec_options", {}), own)


def save_codec(
    folder: str | Path, codec: EmbeddedCodec | WavTokenizer, *, card: str, dtype: torch.dtype | None = None
) -> Path:
    """Writes a codec alone as a checkpoint folder and returns its path.

    Args:
        folder: Where to.
        codec: What to write.
        card: The model card, Markdown.
        dtype: Floating type of all tensors; None leaves them as they are.

    Raises:
        CheckpointError: As :func:`mmattn.core.weights.checkpoint.save_checkpoint`.
    """
    name, options = describe_codec(codec)
    tensors = {PREFIX + key: tensor.to(dtype or tensor.dtype) for key, tensor in codec.state_dict().items()}
    return save_checkpoint(folder, tensors, system="lina", config={"codec": name, "codec_options": options}, card=card)


def _check_sizes(
    config: EmbeddedCodecConfig | WavTokenizerConfig, names: tuple[str, ...], tensors: Mapping[str, Tensor]
) -> None:
    sizes = {name: int(getattr(config, name)) for name in names}
    check_sizes({**sizes, "n_fft": config.n_fft // 2 + 1}, tensors, what="The stored codec")


def _filled(codec: BuiltCodec, tensors: Mapping[str, Tensor]) -> BuiltCodec:
    """Loads tensors into a codec and returns it in evaluation mode."""
    expected = codec.state_dict()
    check_keys(
        sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys()), what="The stored codec"
    )
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"The stored codec does not fit its options: {name} is {tuple(tensors[name].shape)}, expected "
                f"{tuple(tensor.shape)}."
            )
    codec.load_state_dict(dict(tensors))
    return codec.eval()


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
        from mmattn.speech.lina.weights.wavtokenizer import read_wavtokenizer

        return read_wavtokenizer(Path(source).expanduser())
    return load_codec(source)
