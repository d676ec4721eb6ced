"""The delay pattern of several codebooks: codebook i runs i frames behind the first.

Source: theodorblackbird/lina-speech; the pattern is MusicGen's (arXiv 2306.05284, section 2.2). Q rows of n tokens
become Q rows of n + Q + 1: row i is i + 1 starts, the codes, Q - i ends. For Q = 2, with S start and E end:

    S a1 a2 a3 E  E
    S S  b1 b2 b3 E

Tokens here are ids of the model: codec ids shifted by the three special ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmattn.speech.lina.config import SPECIAL_TOKENS

__all__ = ["END", "PAD", "START", "delay", "to_codes", "to_tokens", "undelay"]

PAD, START, END = range(SPECIAL_TOKENS)


def to_tokens(codes: Tensor) -> Tensor:
    """Returns the model's ids of codec ids."""
    return codes + SPECIAL_TOKENS


def to_codes(tokens: Tensor) -> Tensor:
    """Returns the codec ids of the model's; special ones become 0.

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
