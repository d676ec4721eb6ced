"""``mmattn convert lina``: a published model, its codec and its tokenizer in one checkpoint folder.

The published files are three: the language model's weights, the codec's, and the tokenizer's JSON. A folder with all of
them speaks without further options; what is missing is named.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mmattn.core.weights.checkpoint import check_replaceable
from mmattn.errors import CheckpointError
from mmattn.media.files import write_bytes
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.weights.convert import from_published, model_card, read_published, weights_file
from mmattn.speech.lina.weights.store import StoredLina, describe_codec
from mmattn.speech.lina.weights.wavtokenizer import read_wavtokenizer

__all__ = ["TOKENIZER_FILE", "convert_files"]

TOKENIZER_FILE = "tokenizer.json"
"""Name of the tokenizer in a checkpoint folder."""


def convert_files(
    file: Path, output: Path, *, codec: Path | None = None, tokenizer: Path | None = None
) -> tuple[Path, list[str]]:
    """Writes a checkpoint folder once everything has been read and fits together.

    Args:
        file: The published weights, or a folder with them.
        output: Folder to write.
        codec: WavTokenizer's released weights; None leaves the codec to the run.
        tokenizer: A file of the tokenizers library; None looks for one beside the weights.

    Returns:
        The folder, and a sentence for each part that it does not hold.

    Raises:
        CheckpointError: If a file is damaged, or the three do not fit each other.
        InputError: If the weights are not one file, or the tokenizer cannot be read.
    """
    check_replaceable(output.expanduser().absolute())
    weights = weights_file(file.expanduser())
    config, tensors = from_published(read_published(weights), what=f"'{weights}'")
    config = replace(config, tokenizer_options={"file": TOKENIZER_FILE})
    if config.codec == "encodec":
        config = replace(config, codec_options={"layers": list(range(config.num_codebooks))})
    if tokenizer is None:
        beside = [weights.with_name(name) for name in (TOKENIZER_FILE, "bpe256.json")]
        tokenizer = next((file for file in beside if file.is_file()), None)
    else:
        tokenizer = tokenizer.expanduser()
    if tokenizer is not None:
        _check_tokenizer(tokenizer, config)
    codec_tensors: dict[str, torch.Tensor] = {}
    if codec is not None:
        config, codec_tensors = _with_codec(config, codec)
    folder = StoredLina(config, tensors, codec_tensors).save(output, card=model_card(config, weights))
    if tokenizer is not None:
        write_bytes(folder / TOKENIZER_FILE, tokenizer.read_bytes())
    return folder, _missing(config, has_codec=codec is not None, has_tokenizer=(folder / TOKENIZER_FILE).is_file())


def _with_codec(config: LinaConfig, file: Path) -> tuple[LinaConfig, dict[str, torch.Tensor]]:
    """Returns the config that names the codec, and the codec's tensors."""
    codec = read_wavtokenizer(file.expanduser())
    if (codec.codebooks, codec.codebook_size) != (config.num_codebooks, config.codebook_size):
        raise CheckpointError(
            f"The model speaks in {config.num_codebooks} codebook(s) of {config.codebook_size}, '{file}' has "
            f"{codec.codebooks} of {codec.codebook_size}.",
            "Pass the codec that the model was trained with.",
        )
    name, options = describe_codec(codec)
    return replace(config, codec=name, codec_options=options), dict(codec.state_dict())


def _check_tokenizer(file: Path, config: LinaConfig) -> None:
    """Raises unless the tokenizer can be read and the model knows all its tokens."""
    vocab = build_tokenizer("bpe", {"file": file.name}, file.absolute().parent).vocab_size
    if vocab > config.text_vocab:
        raise CheckpointError(f"'{file}' has {vocab} tokens, the model knows {config.text_vocab}.")


def _missing(config: LinaConfig, *, has_codec: bool, has_tokenizer: bool) -> list[str]:
    lines = []
    if not has_codec and config.codec == "wavtokenizer":
        lines.append("the codec is not in the folder; convert with --codec FILE, or speak with --codec FILE.")
    if not has_tokenizer and config.tokenizer == "bpe":
        lines.append("the tokenizer is not in the folder; convert with --tokenizer FILE.")
    return lines
