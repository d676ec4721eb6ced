"""Telling a sentence that was spoken from one that ran away, broke off, or left words out.

A sentence is expected to last about as long as its tokens usually do. It is cut at a multiple of that, so that a model
that never stops costs little, and what is wrong with it decides whether it is spoken again.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmattn.speech.lina.alignment_report import AlignmentReport
from mmattn.speech.lina.config import LinaConfig, LinaInferOptions

__all__ = ["SECONDS_PER_TOKEN", "Watchdog"]

SECONDS_PER_TOKEN = {"characters": 0.06, "gruut": 0.07, "espeak": 0.055, "bpe": 0.2}
"""Usual length of a token in read English, spaces and marks counted: about 17 characters a second."""

_GRACE = 1.0
"""Seconds that a sentence may last longer however short it is: breath, silence before and after."""
_BRIEF = 4
"""Tokens below which a sentence cannot be too short."""


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

    def problems(self, tokens: int, frames: int, *, finished: bool, report: AlignmentReport) -> tuple[str, ...]:
        """Returns what is wrong with a sentence, in words; empty if nothing is.

        Args:
            tokens: Start and end not counted.
            frames: Its length.
            finished: Whether it ended by itself.
            report: How it read the text.
        """
        seconds, expected = frames / self.frame_rate, self.seconds_per_token * tokens
        found = {
            "did not stop": not finished,
            "too short": tokens >= _BRIEF and seconds < expected / self.ratio,
            "did not reach the end": self.reads_alignment and not report.reached_end,
            "skipped words": self.reads_alignment and bool(report.skipped),
            "repeated words": self.reads_alignment and bool(report.repeated),
        }
        return tuple(name for name, is_so in found.items() if is_so)
