"""Where data and model meet: whether they fit, and how the model's config names what it was trained with."""

from __future__ import annotations

from dataclasses import replace

from mmattn.errors import InputError
from mmattn.speech.lina.codec.embedded import EmbeddedCodec
from mmattn.speech.lina.codec.encodec import Encodec
from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.data import LinaDataModule
from mmattn.speech.lina.weights.store import describe_codec

__all__ = ["check_fits", "described"]


def check_fits(data: LinaDataModule, config: LinaConfig) -> None:
    """Checks that a model can be trained on some data.

    Args:
        data: Its codec and tokenizer are loaded.
        config: Of the model.

    Raises:
        InputError: If the model has other codebooks, or fewer text ids.
    """
    codec, tokenizer = data.built_codec, data.built_tokenizer
    if (config.num_codebooks, config.codebook_size) != (data.codebooks, codec.codebook_size):
        raise InputError(
            f"The data have {data.codebooks} codebooks of {codec.codebook_size}, and the model {config.num_codebooks} "
            f"of {config.codebook_size}.",
            "Set data.init_args.codebooks, or num_codebooks and codebook_size of the model.",
        )
    if config.text_vocab < tokenizer.vocab_size:
        raise InputError(
            f"The tokenizer '{data.tokenizer}' has {tokenizer.vocab_size} ids, and the model's text_vocab is "
            f"{config.text_vocab}.",
            f"Set text_vocab to {tokenizer.vocab_size}.",
        )


def described(data: LinaDataModule, config: LinaConfig) -> LinaConfig:
    """Returns the config of a model with the tokenizer and codec of the data that it was trained on.

    A tokenizer's file is named without its folder: it belongs beside the model.
    """
    codec = data.built_codec
    name, options = data.codec, data.codec_options
    if isinstance(codec, EmbeddedCodec):
        name, options = describe_codec(codec.first(data.codebooks))
    elif isinstance(codec, WavTokenizer):
        name, options = describe_codec(codec)
    elif isinstance(codec, Encodec):
        options = {**options, "layers": list(codec.layers[: data.codebooks])}
    file = data.tokenizer_file
    texts = data.tokenizer_options if file is None else {**data.tokenizer_options, "file": file.name}
    return replace(config, tokenizer=data.tokenizer, tokenizer_options=texts, codec=name, codec_options=options)
