"""Texts and codes as the network reads them: codes under the delay pattern, both put together to padded batches.

Codebook i runs i frames behind the first. Q rows of n tokens become Q rows of n + Q + 1: row i is i + 1 starts, the
codes, Q - i ends. For Q = 2, with S start and E end:

    S a1 a2 a3 E  E
    S S  b1 b2 b3 E

Tokens here are ids of the model: codec ids shifted by the three special ones.

Source: theodorblackbird/lina-speech, ``simple_collate``; the pattern is MusicGen's (arXiv 2306.05284, section 2.2).

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
from mmattn.speech.lina.config import SPECIAL_TOKENS

__all__ = [
    "END",
    "PAD",
    "START",
    "SpeechBatch",
    "TextAndCodes",
    "collate",
    "delay",
    "pad_texts",
    "to_codes",
    "to_tokens",
    "undelay",
]

PAD, START, END = range(SPECIAL_TOKENS)


def to_tokens(codes: Tensor) -> Tensor:
    """Returns the model's ids of codec ids (...)."""
    return codes + SPECIAL_TOKENS


def to_codes(tokens: Tensor) -> Tensor:
    """Returns the codec ids of the model's ids (...); special ones become 0.

    >>> to_codes(torch.tensor([2, 3, 7])).tolist()
    [0, 0, 4]
    """
    return (tokens - SPECIAL_TOKENS).clamp_min(0)


def delay(tokens: Tensor) -> Tensor:
    """Returns (Q, n + Q + 1) for tokens (Q, n); n may be 0.

    >>> delay(torch.tensor([[5, 6], [7, 8]])).tolist()
    [[1, 5, 6, 2, 2], [1, 1, 7, 8, 2]]
    """
    rows, length = tokens.shape
    out = tokens.new_full((rows, length + rows + 1), END)
    for i, row in enumerate(tokens):
        out[i, : i + 1] = START
        out[i, i + 1 : i + 1 + length] = row
    return out


def undelay(tokens: Tensor, length: int, *, first: int) -> Tensor:
    """Returns the rows (..., Q, length) in step again.

    Args:
        tokens: (..., Q, T) delayed.
        length: Frames to take, at most T - Q + 1 - first.
        first: Column of the first row's first frame: 1 in what :func:`delay` returns, 0 in generated tokens, which do
            not repeat the start. (The published code takes 1 there too and so loses every first frame.)

    Raises:
        ValueError: If the tokens are too short for that.

    >>> undelay(torch.tensor([[1, 5, 6, 2, 2], [1, 1, 7, 8, 2]]), 2, first=1).tolist()
    [[5, 6], [7, 8]]
    """
    rows, columns = tokens.shape[-2:]
    if length + rows - 1 + first > columns:
        raise ValueError(f"{length} frames of {rows} codebooks need {length + rows - 1 + first} columns, got {columns}")
    return torch.stack([tokens[..., i, first + i : first + i + length] for i in range(rows)], dim=-2)


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
