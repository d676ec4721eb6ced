"""How steadily an utterance walks through its text, and choosing the best of several by it.

Source: the old tools of theodorblackbird/lina-speech, after Regotron (arXiv 2204.13437). With A (N, M) the weights of M
text tokens in N audio columns,

    a_j = sum_m m A[j, m] / M,       penalty = sum_j max(0, a_j - a_(j+1) + delta / N).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["best_candidates", "monotonic_penalty", "text_progress"]


def text_progress(weights: Tensor) -> Tensor:
    """Returns (N,) the expected text position in each column, as a part of the text, from 0 to below 1.

    Args:
        weights: (N, M), each row sums to 1.

    >>> text_progress(torch.eye(4)).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    tokens = weights.shape[1]
    return weights @ torch.arange(tokens, dtype=weights.dtype, device=weights.device) / tokens


def monotonic_penalty(weights: Tensor, delta: float = 0.01) -> float:
    """Returns how much the alignment goes back or stands still; 0 for one that always advances.

    Args:
        weights: (N, M).
        delta: Part of the text that an utterance has to advance by in all, spread over its columns.

    >>> monotonic_penalty(torch.eye(4))
    0.0
    """
    progress = text_progress(weights)
    back = progress[:-1] - progress[1:] + delta / len(progress)
    return float(back.clamp_min(0).sum())


def best_candidates(alignments: Sequence[Tensor], frac: float = 0.5, delta: float = 0.01) -> list[int]:
    """Returns which candidates to keep: the worst aligned are dropped, then the shortest of the others.

    Args:
        alignments: Weights (N, M) of each candidate.
        frac: Part that is dropped each time; one candidate always stays.
        delta: As in :func:`monotonic_penalty`.

    Returns:
        Their numbers, best aligned first.
    """
    ranked = sorted(range(len(alignments)), key=lambda i: monotonic_penalty(alignments[i], delta))
    ranked = ranked[: max(1, len(ranked) - int(len(ranked) * frac))]
    longest = sorted(ranked, key=lambda i: -len(alignments[i]))[: max(1, len(ranked) - int(len(ranked) * frac))]
    return [i for i in ranked if i in longest]
