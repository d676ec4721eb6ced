"""Telling a sentence that was spoken from one that ran away, broke off, or left words out.

A sentence is expected to last about as long as its tokens usually do. It is cut at a multiple of that, so that a model
that never stops costs little, and what is wrong with it decides whether it is spoken again.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmattn.speech.lina.config import LinaConfig, LinaInferOptions
from mmattn.speech.lina.judges.alignment import AlignmentReport

__all__ = ["SECONDS_PER_TOKEN", "WORD_SECONDS", "Watchdog", "fits_text"]

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
