"""Tokens on disk: what a codec makes of recordings, and a tokenizer of texts, computed once.

A folder per codec and per tokenizer, named by a fingerprint of it; in it shards, files of some hundred utterances that
appear whole or not at all. A shard's header lists what it is of - name, size and time of change of a recording, or a
text - so that there is no index to go wrong: what no shard has is computed, everything else is read, and an interrupted
run goes on where it was. Deleting the folder is always safe.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmattn.core.datasets.features import FeatureStore, Rows, fill, fingerprint
from mmattn.core.device import resolve_device
from mmattn.errors import InputError, MediaError, describe
from mmattn.media.audio import read_audio
from mmattn.media.files import atomic_path
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.text.tokenizers import Tokenizer

__all__ = ["TokenShards", "codec_fingerprint", "encode_recordings", "encode_texts", "text_fingerprint"]

logger = logging.getLogger(__name__)

SHARD = 256
"""Utterances of a shard; an interrupted run writes what it has."""

_MOST_FAILURES = 0.1
_LISTED = "contents"
_SUFFIX = ".safetensors"
# What it becomes says whether the text rules are the same as when a cache was made.
_PROBE = "Dr. Lee paid $3.50 at 10:30 on May 5th, 2021 - 50% of NASA's, 1/2 of the BBC's; well-read? Yes! e.g. 70 km."


class TokenShards(FeatureStore):
    """Rows of int16 tokens by key, in the shards of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._unwritten: dict[str, Tensor] = {}

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """Everything that is there, and what was put since."""
        return self.read()

    def has(self, key: str) -> bool:
        """Whether a row is there."""
        return key in self.rows

    def put(self, key: str, rows: Rows) -> None:
        """Keeps the row ``tokens``; a full shard is written.

        Raises:
            MediaError: If it cannot be written.
        """
        self.rows[key] = self._unwritten[key] = rows["tokens"]
        if len(self._unwritten) == SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes what is not yet in a shard."""
        unwritten, self._unwritten = self._unwritten, {}
        if unwritten:
            self.write(unwritten)

    def read(self) -> dict[str, Tensor]:
        """Returns everything that is there; a damaged shard is removed with a warning, so that it is made again."""
        found: dict[str, Tensor] = {}
        for file in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                with safe_open(file, framework="pt") as shard:
                    keys = json.loads(shard.metadata()[_LISTED])
                    found.update((key, shard.get_tensor(str(number))) for number, key in enumerate(keys))
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                logger.warning("%s is damaged and made again: %s", file, error)
                file.unlink()
        return found

    def write(self, rows: Mapping[str, Tensor]) -> None:
        """Writes a shard, named by what it is of.

        Raises:
            MediaError: If it cannot be written.
        """
        keys = list(rows)
        tensors = {str(number): rows[key].to(torch.int16).contiguous() for number, key in enumerate(keys)}
        with atomic_path(self.file(hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16])) as temporary:
            save_file(tensors, temporary, metadata={_LISTED: json.dumps(keys)})


def encode_recordings(utterances: Sequence[SpeechFile], codec: Codec, folder: Path) -> list[Tensor | None]:
    """Returns the codes (Q, frames) ``int16`` of recordings; None for one that cannot be read, which a line names.

    Args:
        utterances: Of one dataset; their names are unique.
        codec: What encodes them, one at a time.
        folder: Where codes are kept.

    Raises:
        InputError: If more than a tenth cannot be read, or the codec's codebooks are too large for int16.
        MediaError: If the cache cannot be written.
    """
    if codec.codebook_size > torch.iinfo(torch.int16).max + 1:
        raise InputError(f"The codec has {codec.codebook_size} codes, more than the cache's 16 bits hold.")
    shards = TokenShards(folder / f"codes-{codec_fingerprint(codec)}")
    keys = [_source(utterance) for utterance in utterances]
    failures = _Failures(len(utterances))

    def encode(missing: dict[str, SpeechFile]) -> Iterator[tuple[str, Rows | None]]:
        device = resolve_device("auto")
        if isinstance(codec, nn.Module):
            codec.to(device)
        for key, utterance in missing.items():
            try:
                samples = read_audio(utterance.audio, sample_rate=codec.sample_rate).samples
            except MediaError as error:
                failures.add(f"{utterance.audio}: {describe(error)[0]}")
                yield key, None
                continue
            with torch.inference_mode():
                codes = codec.encode(torch.from_numpy(samples)[None].to(device))[0].to(torch.int16).cpu()
            yield key, {"tokens": codes}
        if isinstance(codec, nn.Module):
            codec.to("cpu")

    fill(shards, dict(zip(keys, utterances, strict=True)), encode, what="Encoding speech", unit="utterance")
    return [shards.rows.get(key) for key in keys]


def encode_texts(utterances: Sequence[SpeechFile], tokenizer: Tokenizer, key: str, folder: Path) -> list[Tensor | None]:
    """Returns the text ids (M,) ``int16`` of utterances; None for one that cannot be spoken, which a line names.

    Args:
        utterances: Their texts may occur more than once.
        tokenizer: What makes ids of them.
        key: Its :func:`text_fingerprint`.
        folder: Where ids are kept.

    Raises:
        InputError: If more than a tenth have nothing that can be spoken, or a program that the tokenizer needs fails.
        MediaError: If the cache cannot be written.
    """
    shards = TokenShards(folder / f"text-{key}")
    counts = Counter(utterance.text for utterance in utterances)
    first = {utterance.text: utterance for utterance in reversed(utterances)}
    failures = _Failures(len(utterances))

    def encode(missing: dict[str, SpeechFile]) -> Iterator[tuple[str, Rows | None]]:
        for text, utterance in missing.items():
            try:
                yield text, {"tokens": tokenizer.encode(text).ids.to(torch.int16)}
            except InputError as error:
                failures.add(f"{utterance.audio}: {error.message}", counts[text])
                yield text, None

    fill(shards, dict(sorted(first.items())), encode, what="Reading texts", unit="utterance")
    return [shards.rows.get(utterance.text) for utterance in utterances]


def codec_fingerprint(codec: Codec) -> str:
    """Returns 16 hex digits for all that shapes a codec's codes: kind, sizes, weights."""
    sizes = f"{type(codec).__name__} {codec.sample_rate} {codec.hop} {codec.codebooks} {codec.codebook_size}"
    state = codec.state_dict() if isinstance(codec, nn.Module) else {}
    weights = {f"{name} {tuple(tensor.shape)} {tensor.dtype}": tensor for name, tensor in sorted(state.items())}
    return fingerprint(sizes, weights)[:16]


def text_fingerprint(name: str, options: Mapping[str, Any], tokenizer: Tokenizer) -> str:
    """Returns 16 hex digits for a tokenizer: its name and options, its size, and what it makes of a sample."""
    sample = tokenizer.encode(_PROBE).ids.tolist()
    return fingerprint([name, dict(options), tokenizer.vocab_size, sample])[:16]


class _Failures:
    """Counts what is left out, names it, and gives up when it is more than a tenth."""

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0

    def add(self, line: str, count: int = 1) -> None:
        tqdm.write(f"left out: {line}", file=sys.stderr)
        self.count += count
        if self.count > _MOST_FAILURES * self.total:
            raise InputError(
                f"{self.count} of {self.total} utterances cannot be used, more than a tenth; the last one is {line}",
                "Look at the dataset with: mmattn data check lina FOLDER",
            )


def _source(utterance: SpeechFile) -> str:
    """Returns a recording's key, which changes with the file."""
    stat = utterance.audio.stat()
    return f"{utterance.name}|{stat.st_size}|{stat.st_mtime_ns}"
