"""A Lina checkpoint folder: the language model and, where it ships with one, the codec that turns tokens into sound.

A codec is described by a name and options, plain JSON, as ``LinaConfig.codec`` and ``codec_options`` keep them, and by
tensors, which in a checkpoint lie under the prefix ``codec.`` - alone or beside those of the language model:

| name | options | tensors |
| --- | --- | --- |
| embedded | fields of ``EmbeddedCodecConfig`` | in the checkpoint |
| wavtokenizer | fields of ``WavTokenizerConfig``, or ``checkpoint``: a released file | there or in that file |
| encodec | arguments of ``load_encodec`` | from transformers |

Voices that ship with the model are ``voices/NAME.safetensors`` (:mod:`.voices.files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.core.weights.checkpoint import load_checkpoint, resolve, save_checkpoint
from mmattn.core.weights.loading import check_sizes, load_into
from mmattn.core.weights.stored_model import StoredModel, cast_floating, split_part
from mmattn.errors import CheckpointError, WeightsUnavailableError
from mmattn.speech.lina.codec.embedded import EmbeddedCodec, EmbeddedCodecConfig
from mmattn.speech.lina.codec.encodec import load_encodec
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.model import LinaModel

if TYPE_CHECKING:
    from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

__all__ = ["StoredLina", "build_codec", "check_finite", "describe_codec", "load_codec", "save_codec"]

_EMBEDDED_SIZES = ("num_mels", "num_bins", "dim", "hidden", "encoder_layers", "frame_layers", "half_layers",
                   "codebooks", "codebook_size", "code_dim")  # fmt: skip
_WAVTOKENIZER_SIZES = ("filters", "lstm_layers", "features", "codebook_size", "dim", "hidden", "num_layers")
"""Fields that are lengths of the weights or numbers of layers."""


class StoredLina(StoredModel[LinaConfig]):
    """What a checkpoint folder holds; its part is the codec."""

    SYSTEM, CONFIG, WHAT, PREFIX = "lina", LinaConfig, "a language model", "codec."

    def build(self, config: LinaConfig | None = None) -> LinaModel:
        """Returns the language model with these tensors, in evaluation mode.

        Args:
            config: Another config of the same sizes; None takes the stored one.

        Raises:
            CheckpointError: If the tensors do not fit.
        """
        config = config or self.config
        names = ("dim", "num_codebooks", "codebook_size", "text_vocab", "text_layers", "num_layers")
        sizes = {
            **{name: getattr(config, name) for name in names},
            "position_dim": config.blind_dim if config.cross_attention == "blind" else 0,
            "expand_k": int(config.dim * config.expand_k),
            "expand_v": int(config.dim * config.expand_v),
        }
        check_sizes(sizes, self.tensors, what="The model")
        model = LinaModel(config)
        model.load_tensors(self.tensors)
        return model

    def build_codec(self, source: str | None = None) -> Codec:
        """Returns the codec, in evaluation mode.

        Args:
            source: Where it is instead of here: a checkpoint folder of ours, a released file of WavTokenizer, or a
                folder or name of EnCodec where the model was trained on that.

        Raises:
            CheckpointError: If there is none, its weights are not finite, or its tokens are not those of the model.
            WeightsUnavailableError: If it is neither here, nor on disk, nor reachable.
            MissingExtraError: If transformers is needed and not installed.
        """
        config = self.config
        if source is None:
            codec = build_codec(config.codec, config.codec_options, self.part)
        elif config.codec == "encodec":
            codec = load_encodec(**{**config.codec_options, "source": source})
        elif Path(source).expanduser().is_file():
            codec = _released_wavtokenizer(Path(source).expanduser())
        else:
            codec = load_codec(source)
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
        return _released_wavtokenizer(options["checkpoint"])
    codec: EmbeddedCodec | WavTokenizer
    try:
        if name == "embedded":
            embedded = EmbeddedCodecConfig.from_dict(dict(options))
            _check_sizes(embedded, _EMBEDDED_SIZES, tensors)
            codec = EmbeddedCodec(embedded)
        elif name == "wavtokenizer":
            from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

            released = WavTokenizerConfig.from_dict(dict(options))
            _check_sizes(released, _WAVTOKENIZER_SIZES, tensors)
            codec = WavTokenizer(released)
        else:
            raise CheckpointError(f"There is no codec {name!r}.", "Expected embedded, wavtokenizer or encodec.")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The options of the codec {name!r} do not fit: {error}") from error
    load_into(codec, tensors, what="The stored codec", hint="Its options in config.json belong to other weights.")
    return codec.eval()


def describe_codec(codec: EmbeddedCodec | WavTokenizer) -> tuple[str, dict[str, Any]]:
    """Returns name and options of a codec whose tensors a checkpoint can hold."""
    return "embedded" if isinstance(codec, EmbeddedCodec) else "wavtokenizer", codec.config.to_dict()


def load_codec(source: str | Path) -> Codec:
    """Returns the codec of a checkpoint folder, with or without a language model beside it.

    Args:
        source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.

    Raises:
        CheckpointError: If there is none in it.
        WeightsUnavailableError: If it is neither on disk nor reachable.
    """
    tensors, config = load_checkpoint(resolve("lina", source, what="codec"), "lina")
    if "codec" not in config:
        raise CheckpointError(f"'{source}' names no codec.", "Pass a folder that a codec's training wrote.")
    return build_codec(config["codec"], config.get("codec_options", {}), split_part(tensors, StoredLina.PREFIX)[1])


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
    tensors = {StoredLina.PREFIX + key: tensor for key, tensor in codec.state_dict().items()}
    if dtype is not None:
        tensors = cast_floating(tensors, dtype)
    return save_checkpoint(folder, tensors, system="lina", config={"codec": name, "codec_options": options}, card=card)


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


def _released_wavtokenizer(file: str | Path) -> WavTokenizer:
    # Imported where it is needed: most models speak through a codec of their own.
    from mmattn.speech.lina.weights.wavtokenizer import read_wavtokenizer

    return read_wavtokenizer(file)


def _check_sizes(
    config: EmbeddedCodecConfig | WavTokenizerConfig, names: tuple[str, ...], tensors: Mapping[str, Tensor]
) -> None:
    sizes = {name: int(getattr(config, name)) for name in names}
    check_sizes({**sizes, "n_fft": config.n_fft // 2 + 1}, tensors, what="The stored codec")
