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

from mmattn.speech.lina.network.batch import PAD, START

__all__ = ["LinaLosses", "guided_attention_loss", "lina_loss", "targets", "top_k_accuracy"]


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


def guided_attention_loss(maps: Tensor, audio_valid: Tensor, text_valid: Tensor, *, sigma: float = 0.12) -> Tensor:
    """Returns the mean penalty of all maps, in [0, 1].

    Args:
        maps: (B, A, N, M) weights; every row sums to 1.
        audio_valid: (B, N) bool, False is padding.
        text_valid: (B, M) bool, False is padding.
        sigma: Width of the diagonal as a part of the length.

    >>> exact = torch.eye(8)[None, None]
    >>> all_valid = torch.ones(1, 8, dtype=torch.bool)
    >>> guided_attention_loss(exact, all_valid, all_valid).item()
    0.0
    """
    along = _progress(audio_valid)[:, :, None] - _progress(text_valid)[:, None, :]  # (B, N, M)
    penalty = (1.0 - torch.exp(-along.square() / (2 * sigma**2))) * text_valid[:, None, :]
    per_frame = (maps.float() * penalty[:, None]).sum(dim=-1).mean(dim=1)  # (B, N)
    return (per_frame * audio_valid).sum() / audio_valid.sum()


def _progress(valid: Tensor) -> Tensor:
    """Returns how far along each place is, 0 to 1."""
    places = torch.arange(valid.shape[1], device=valid.device, dtype=torch.float32)
    return places / (valid.sum(dim=1, keepdim=True) - 1).clamp_min(1)
