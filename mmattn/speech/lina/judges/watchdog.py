"""Telling a sentence that was spoken as it is written from one that ran away, broke off, or left words out.

How a text was read is told from the weights of its tokens in every frame. A sentence is expected to last about as long
as its tokens usually do; it is cut at a multiple of that, so that a model that never stops costs little, and what is
wrong with it decides whether it is spoken again.

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

from mmattn.speech.lina.config import LinaConfig, LinaInferOptions

__all__ = [
    "SECONDS_PER_TOKEN",
    "WORD_SECONDS",
    "AlignmentReport",
    "Watchdog",
    "alignment_report",
    "best_candidates",
    "fits_text",
    "monotonic_penalty",
    "text_progress",
]

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


SECONDS_PER_TOKEN = {"characters": 0.06, "gruut": 0.07, "espeak": 0.055, "bpe": 0.2}
"""Usual length of a token in read English, spaces and marks counted: about 17 characters a second."""

_GRACE = 1.0
"""Seconds that a sentence may last longer however short it is: breath, silence before and after."""
_BRIEF = 4
"""Tokens below which a sentence cannot be too short for its tokens."""
WORD_SECONDS = 0.1
"""Nobody reads ten words a second."""

# Read speech lies within a factor of two of the usual seconds per token.
_FASTEST, _SLOWEST = 0.2, 6.0
_FEW = 8
"""Tokens up to which the silence around the words may be the larger part of a recording."""


def fits_text(tokens: int, seconds: float, seconds_per_token: float) -> bool:
    """Returns whether a recording may hold the text that is given with it, and not another one's.

    Args:
        tokens: Of the text, start and end not counted.
        seconds: Of the recording, without the silence around it.
        seconds_per_token: Usual length of a token.

    >>> fits_text(20, 1.3, 0.06), fits_text(1500, 2.1, 0.06), fits_text(3, 1.5, 0.06)
    (True, False, True)
    """
    return tokens <= _FEW or _FASTEST < seconds / tokens / seconds_per_token < _SLOWEST


@dataclass(frozen=True)
class Watchdog:
    """What is expected of sentences.

    Attributes:
        frame_rate: Codec frames per second.
        seconds_per_token: Expected length of a text token.
        ratio: Times longer or shorter than expected at which a sentence has failed.
        max_seconds: Length at which any sentence is cut.
        reads_alignment: Whether the weights of the text tokens say what is being read, so that words left out are
            noticed; those of one head among several do not.
    """

    frame_rate: float
    seconds_per_token: float
    ratio: float
    max_seconds: float
    reads_alignment: bool = True

    @classmethod
    def of(cls, options: LinaInferOptions, config: LinaConfig, frame_rate: float) -> Watchdog:
        """Returns the one of a run.

        Args:
            options: Of the run.
            config: Of the model.
            frame_rate: Codec frames per second.
        """
        usual = SECONDS_PER_TOKEN[config.tokenizer] if options.seconds_per_token is None else options.seconds_per_token
        return cls(frame_rate, usual, options.duration_ratio, options.max_seconds, config.cross_attention != "plain")

    def limit(self, tokens: int) -> int:
        """Returns the frames at which a sentence of some tokens, start and end not counted, is cut; at least 1.

        >>> Watchdog(frame_rate=50.0, seconds_per_token=0.1, ratio=2.0, max_seconds=30.0).limit(20)
        250
        """
        seconds = min(self.max_seconds, _GRACE + self.ratio * self.seconds_per_token * tokens)
        return max(1, round(seconds * self.frame_rate))

    def is_nothing(self, words: int, frames: int) -> bool:
        """Returns whether so few frames cannot hold the words, whoever speaks."""
        return frames < WORD_SECONDS * words * self.frame_rate

    def problems(
        self, tokens: int, words: int, frames: int, *, finished: bool, report: AlignmentReport
    ) -> tuple[str, ...]:
        """Returns what is wrong with a sentence, in words; empty if nothing is.

        Args:
            tokens: Start and end not counted.
            words: In how many words they are.
            frames: Its length.
            finished: Whether it ended by itself.
            report: How it read the text.
        """
        seconds, expected = frames / self.frame_rate, self.seconds_per_token * tokens
        found = {
            "did not stop": not finished,
            "too short": (tokens >= _BRIEF and seconds < expected / self.ratio)
            or (finished and self.is_nothing(words, frames)),
            "did not reach the end": self.reads_alignment and not report.reached_end,
            "skipped words": self.reads_alignment and bool(report.skipped),
            "repeated words": self.reads_alignment and bool(report.repeated),
        }
        return tuple(name for name, is_so in found.items() if is_so)
