"""Whether an utterance read its whole text once and in order, told from the weights of its text tokens. No torch.

Source: the usual failures of attention in text to speech - skipping, repeating, breaking off - as counted for example
in arXiv 1910.10288 (section 4); the thresholds are ours.

Shapes: N audio frames, M text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["AlignmentReport", "alignment_report", "best_candidates", "monotonic_penalty", "text_progress"]

_ENOUGH = 1.0
"""Frames whose whole attention a word must have got, added up, to count as spoken without ever being the strongest."""
_RUN = 2
"""Frames in a row that make a visit to a word; a single one is a flicker between neighbours."""


@dataclass(frozen=True)
class AlignmentReport:
    """How a text was read.

    Attributes:
        monotonic: Part of the steps from frame to frame that do not go back by more than one token, in [0, 1].
        coverage: Part of the words' tokens that were read, in [0, 1].
        skipped: Words, counted from 0, that were not read.
        repeated: Words that were returned to after a later word had been read.
        reached_end: Whether the last word was read up to its last token or the one before it.
    """

    monotonic: float
    coverage: float
    skipped: tuple[int, ...]
    repeated: tuple[int, ...]
    reached_end: bool

    @property
    def is_faithful(self) -> bool:
        """Whether every word was read, none twice, up to the end."""
        return self.reached_end and not self.skipped and not self.repeated

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        return {
            "monotonic": round(self.monotonic, 4),
            "coverage": round(self.coverage, 4),
            "skipped": list(self.skipped),
            "repeated": list(self.repeated),
            "reached_end": self.reached_end,
        }


def alignment_report(alignment: npt.ArrayLike, words: Sequence[int]) -> AlignmentReport:
    """Returns how a text was read.

    Args:
        alignment: (N, M) weights, not negative; a tensor on the CPU will do.
        words: Of each token the number of its word, ascending, or -1 for start, end and pauses.

    Raises:
        ValueError: If shapes do not fit, there is no token, or a weight is not finite.

    >>> report = alignment_report(np.eye(4), [-1, 0, 1, -1])
    >>> report.monotonic, report.coverage, report.is_faithful
    (1.0, 1.0, True)
    >>> alignment_report(np.eye(4)[[0, 2, 2, 3]], [-1, 0, 1, -1]).skipped
    (0,)
    """
    weights, owner = np.asarray(alignment, np.float64), np.asarray(words, np.int64)
    if weights.ndim != 2 or owner.shape != weights.shape[1:] or not len(owner):
        raise ValueError(f"Got weights {weights.shape} and {len(owner)} words, expected (N, M) and M, M at least 1.")
    if not np.isfinite(weights).all():
        raise ValueError("Got weights that are not finite.")
    path = weights.argmax(axis=1)  # (N,)
    read = np.isin(np.arange(len(owner)), path) | (weights.sum(axis=0) >= _ENOUGH)
    spoken = {int(word) for word in owner[read] if word >= 0} | _collected(weights, owner)
    inside = np.flatnonzero(owner >= 0)
    last = int(inside[-1]) if len(inside) else len(owner) - 1
    return AlignmentReport(
        monotonic=float((np.diff(path) >= -1).mean()) if len(path) > 1 else 1.0,
        coverage=float(read[inside].mean()) if len(inside) else 1.0,
        skipped=tuple(sorted({int(word) for word in owner[inside]} - spoken)),
        repeated=_repeated(owner[path]),
        reached_end=bool(len(path) and path.max() >= last - 1),
    )


def _collected(weights: npt.NDArray[np.float64], owner: npt.NDArray[np.int64]) -> set[int]:
    """Returns the words whose tokens together got enough weight, none of them enough alone."""
    inside = owner >= 0
    if not inside.any():
        return set()
    totals = np.bincount(owner[inside], weights=weights.sum(axis=0)[inside])
    return {int(word) for word in np.flatnonzero(totals >= _ENOUGH)}


def _repeated(visited: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Returns the words that are visited again after a later one.

    Args:
        visited: (N,) word of every frame, -1 for none.
    """
    furthest, again = -1, set()
    for word, frames in groupby(visited[visited >= 0].tolist()):
        if sum(1 for _ in frames) < _RUN:
            continue
        if word < furthest:
            again.add(word)
        furthest = max(furthest, word)
    return tuple(sorted(again))


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
