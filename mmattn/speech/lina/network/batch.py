"""Utterances put together to a batch: texts and delayed audio, padded, with masks.

Source: theodorblackbird/lina-speech, ``simple_collate``.

Shapes: B utterances, M text tokens, n frames, N = n + Q + 1 audio columns, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmattn.errors import InputError
from mmattn.speech.lina.network.delay import PAD, delay, to_tokens

__all__ = ["SpeechBatch", "TextAndCodes", "collate", "pad_texts"]


@dataclass(frozen=True)
class TextAndCodes:
    """One text and the speech that says it.

    Attributes:
        text: (M,) int text ids, start and end included, at least one.
        codes: (Q, n) int codec ids, or (1, Q, n), or (n,) of a single codebook.
        name: What it is called in messages.
    """

    text: Tensor
    codes: Tensor
    name: str = ""

    def rows(self) -> Tensor:
        """Returns the codes as (Q, n).

        Raises:
            InputError: If they have another form.
        """
        codes = self.codes
        if codes.ndim == 3 and codes.shape[0] == 1:
            codes = codes[0]
        if codes.ndim == 1:
            codes = codes[None]
        if codes.ndim != 2 or codes.shape[0] == 0:
            raise InputError(
                f"The codes of '{self.name}' have shape {tuple(self.codes.shape)}, expected (codebooks, frames)."
            )
        return codes


class SpeechBatch(NamedTuple):
    """A padded batch.

    Attributes:
        text: (B, M) int, 0 is padding.
        text_valid: (B, M) bool.
        audio: (B, N, Q) int, shifted and delayed, 0 is padding.
        audio_valid: (B, N) bool.
    """

    text: Tensor
    text_valid: Tensor
    audio: Tensor
    audio_valid: Tensor

    def to(self, device: torch.device | str) -> SpeechBatch:
        """Returns the batch on a device."""
        return SpeechBatch(*(tensor.to(device) for tensor in self))


def collate(utterances: Sequence[TextAndCodes]) -> SpeechBatch:
    """Returns the batch of some utterances.

    Raises:
        InputError: If there are none, a text is empty, or codes differ in their number of codebooks or have a wrong
            shape.
    """
    if not utterances:
        raise InputError("There are no utterances to put together.")
    rows = [delay(to_tokens(item.rows().long())).T for item in utterances]  # each (N_i, Q)
    if len({row.shape[1] for row in rows}) > 1:
        found = ", ".join(sorted({str(row.shape[1]) for row in rows}))
        raise InputError(f"The utterances have different numbers of codebooks: {found}.")
    text, text_valid = pad_texts([item.text for item in utterances])
    audio = pad_sequence(rows, batch_first=True, padding_value=PAD)
    return SpeechBatch(text, text_valid, audio, _lengths_mask([len(row) for row in rows], audio.device))


def pad_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the texts (B, M), padded with 0, and which tokens are real.

    Args:
        texts: Each (M_i,) int.

    Raises:
        InputError: If one is empty or no row of ids.

    >>> pad_texts([torch.tensor([1, 5, 2]), torch.tensor([1, 2])])[1].tolist()
    [[True, True, True], [True, True, False]]
    """
    for text in texts:
        if text.ndim != 1 or len(text) == 0:
            raise InputError(f"A text has shape {tuple(text.shape)}, expected one row of at least one id.")
    padded = pad_sequence([text.long() for text in texts], batch_first=True, padding_value=PAD)
    return padded, _lengths_mask([len(text) for text in texts], padded.device)


def _lengths_mask(lengths: list[int], device: torch.device) -> Tensor:
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
