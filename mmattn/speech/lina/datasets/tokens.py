"""The utterances of a dataset as tokens, those of a usable length, and pairs of them as longer ones.

Source of the pairs: ours. A model that has only heard sentences of some thirty phonemes loses its place in longer ones;
recordings put together teach it longer ones without recording any.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.datasets.token_cache import encode_recordings, encode_texts
from mmattn.speech.lina.text.tokenizers import Tokenizer

__all__ = ["TokenReader", "Tokens", "draw_pairs", "joined_file"]

logger = logging.getLogger(__name__)

Tokens = tuple[SpeechFile, Tensor, Tensor]
"""An utterance, its text ids (M,) and its codes (Q, n), ``int16``."""

_STOPS = " .!?;:,"


@dataclass(frozen=True)
class TokenReader:
    """Reads and keeps tokens.

    Attributes:
        codec: What encodes recordings, with all its codebooks.
        codebooks: The first ones that are used Q.
        tokenizer: What encodes texts.
        text_key: Its :func:`.token_cache.text_fingerprint`.
        cache: Folder of what was encoded.
        min_frames: Shorter utterances are left out.
        max_frames: Longer ones are left out; None takes all.
    """

    codec: Codec
    codebooks: int
    tokenizer: Tokenizer
    text_key: str
    cache: Path
    min_frames: int = 1
    max_frames: int | None = None

    def read(self, files: Sequence[SpeechFile]) -> list[Tokens]:
        """Returns the tokens of utterances; what cannot be used is left out with a warning.

        Raises:
            InputError: As :mod:`.token_cache`.
            MediaError: If the cache cannot be written.
        """
        texts = encode_texts(files, self.tokenizer, self.text_key, self.cache)
        codes = encode_recordings(files, self.codec, self.cache)
        return self._of_length(
            [
                (file, text, code[: self.codebooks])
                for file, text, code in zip(files, texts, codes, strict=True)
                if text is not None and code is not None
            ]
        )

    def pairs(self, items: Sequence[Tokens], count: int, seed: int) -> list[Tokens]:
        """Returns pairs of a speaker's utterances as one utterance each.

        Args:
            items: To choose from.
            count: Number of pairs, before those that are too long are left out.
            seed: Of the choice.

        Raises:
            InputError: As :mod:`.token_cache`.
            MediaError: If the cache cannot be written.
        """
        pairs = draw_pairs([file.speaker for file, _, _ in items], count, seed)
        files = [joined_file(items[first][0], items[second][0]) for first, second in pairs]
        texts = encode_texts(files, self.tokenizer, self.text_key, self.cache)
        return self._of_length(
            [
                (file, text, torch.cat([items[first][2], items[second][2]], dim=1))
                for file, text, (first, second) in zip(files, texts, pairs, strict=True)
                if text is not None
            ]
        )

    def _of_length(self, items: list[Tokens]) -> list[Tokens]:
        most = math.inf if self.max_frames is None else self.max_frames
        kept = [item for item in items if self.min_frames <= item[2].shape[1] <= most]
        if len(kept) < len(items):
            outside = len(items) - len(kept)
            logger.warning("%d of %d utterances are too short or too long and left out.", outside, len(items))
        return kept


def draw_pairs(speakers: Sequence[str], count: int, seed: int) -> list[tuple[int, int]]:
    """Draws pairs of different utterances of one speaker.

    Args:
        speakers: Of each utterance who speaks.
        count: Number of pairs; none are drawn where every speaker has a single utterance.
        seed: Of the draw.

    >>> draw_pairs(["anna", "ben", "anna"], 2, seed=0)
    [(0, 2), (2, 0)]
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, speaker in enumerate(speakers):
        places[speaker].append(place)
    firsts = [place for same in places.values() if len(same) > 1 for place in same]
    if not firsts:
        return []
    generator = torch.Generator().manual_seed(seed)
    pairs: list[tuple[int, int]] = []
    for choice in torch.randint(len(firsts), (count,), generator=generator).tolist():
        first = firsts[choice]
        others = [place for place in places[speakers[first]] if place != first]
        second = others[int(torch.randint(len(others), (), generator=generator))]
        pairs.append((first, second))
    return pairs


def joined_file(first: SpeechFile, second: SpeechFile) -> SpeechFile:
    """Returns what is said when one utterance follows another: their texts with a comma between, and both names.

    >>> one, two = (SpeechFile(Path(), text, "anna", "train", text[0]) for text in ("Come in.", "Sit down."))
    >>> joined_file(one, two).text, joined_file(one, two).name
    ('Come in, Sit down.', 'C+S')
    """
    return replace(first, text=f"{first.text.rstrip(_STOPS)}, {second.text}", name=f"{first.name}+{second.name}")
