"""Sentences of known tokens, and what a speaker of them needs beside a model."""

import torch
from torch import Tensor

from mmattn.speech.lina.text.planning import PlannedSentence
from mmattn.speech.lina.text.tokens import TextTokens


def planned(place: int, *ids: int) -> PlannedSentence:
    """A sentence whose tokens are words of their own."""
    tokens = TextTokens(torch.tensor([1, *ids, 2]), [str(i) for i in (1, *ids, 2)], [-1, *range(len(ids)), -1])
    return PlannedSentence(place, " ".join(map(str, ids)), "sentence" if place else "start", tokens)


class Frames:
    """A codec of 10 frames a second that is not asked for sound."""

    sample_rate, hop, codebooks, codebook_size, context = 10, 1, 2, 12, 0

    def encode(self, wave: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        raise NotImplementedError


class NoTokenizer:
    """Is not asked for tokens."""

    vocab_size = 20

    def encode(self, text: str) -> TextTokens:
        raise NotImplementedError


FRAMES = Frames()
