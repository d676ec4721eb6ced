"""Lina's objective: the cross-entropy of the next token of every codebook.

Source: theodorblackbird/lina-speech. It is the mean over all (frame, codebook) of real frames, except targets that are
starts: those are the delay pattern's, known beforehand.

Shapes: B utterances, N audio columns (delayed, starts and ends included), Q codebooks, V audio ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.speech.lina.delay import PAD, START

__all__ = ["LinaLosses", "lina_loss", "targets", "top_k_accuracy"]


class LinaLosses(NamedTuple):
    """The loss of one batch.

    Attributes:
        total: What is minimised, nats per token; the weighted mean over codebooks where there are weights.
        per_codebook: (Q,) the mean of each codebook, without gradient; NaN where it has no target.
    """

    total: Tensor
    per_codebook: Tensor


def targets(audio: Tensor, valid: Tensor) -> Tensor:
    """Returns (B, N - 1, Q), what each column's logits should say; a start, which is ignored, in the padding.

    Args:
        audio: (B, N, Q) int, what the model was given, the last column included.
        valid: (B, N) bool, False is padding.
    """
    return audio[:, 1:].masked_fill(~valid[:, 1:, None], START)


def lina_loss(
    logits: Tensor, audio: Tensor, valid: Tensor, codebook_weights: Sequence[float] | None = None
) -> LinaLosses:
    """Returns the loss of one batch.

    Args:
        logits: (B, N - 1, Q, V), of all columns but the last.
        audio: (B, N, Q) int.
        valid: (B, N) bool, False is padding.
        codebook_weights: Q weights of the codebooks' tokens, not all 0; None is alike, as published. The first
            codebook says what is said, and the last ones are close to noise.
    """
    wanted = targets(audio, valid)
    # Half precision loses the tail of a softmax over thousands of ids.
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = F.cross_entropy(precise.flatten(0, 2), wanted.flatten(), ignore_index=START, reduction="none")
    each = each.view(wanted.shape)
    counts = (wanted != START).sum(dim=(0, 1))
    per_codebook = each.sum(dim=(0, 1))
    weights = counts.new_ones(counts.shape) if codebook_weights is None else per_codebook.new_tensor(codebook_weights)
    return LinaLosses((weights * per_codebook).sum() / (weights * counts).sum(), per_codebook.detach() / counts)


def top_k_accuracy(logits: Tensor, audio: Tensor, valid: Tensor, k: int = 10) -> Tensor:
    """Returns (Q,), how often the right token is among the k likeliest; padding and starts do not count.

    Arguments as for :func:`lina_loss`. NaN where a codebook has no target.
    """
    wanted = targets(audio, valid)
    counted = (wanted != START) & (wanted != PAD)
    right = logits.gather(-1, wanted[..., None])
    hits = ((logits > right).sum(dim=-1) < k) & counted
    return hits.sum(dim=(0, 1)) / counted.sum(dim=(0, 1))
