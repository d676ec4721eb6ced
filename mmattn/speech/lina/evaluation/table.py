"""Scores of speech: of each utterance, of each voice, of all, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from mmattn.metrics.error_rate import ErrorCounts
from mmattn.metrics.tables import markdown
from mmattn.speech.lina.judges.quality import Quality
from mmattn.speech.lina.judges.watchdog import AlignmentReport

__all__ = ["SpeechScores", "SpeechSummary", "UtteranceScore", "WordRecall", "format_table"]

DURATION_TOLERANCE = 0.3
"""Part by which an utterance may be longer or shorter than its reference."""


@dataclass(frozen=True)
class WordRecall:
    """How many of some words were heard; they add up over sentences.

    Attributes:
        heard: Of them, those that the recogniser wrote down.
        said: How many there were.
    """

    heard: int = 0
    said: int = 0

    @property
    def share(self) -> float | None:
        """Part that was heard; None if there were none."""
        return self.heard / self.said if self.said else None

    def __add__(self, other: WordRecall) -> WordRecall:
        return WordRecall(self.heard + other.heard, self.said + other.said)


@dataclass(frozen=True)
class UtteranceScore:
    """What the judges say of one utterance; None where nobody judged.

    Attributes:
        voice: Who speaks, or should.
        text: Words that should be heard.
        heard: Words that were heard; those that sound like the text's are spelled as there.
        words: Word errors.
        characters: Character errors, spaces included.
        seen: Words of the text that occur in training.
        unseen: Those that do not.
        seconds: Duration.
        reference_seconds: How long the same text is in the reference.
        similarity: Cosine to the voice's centroid.
        quality: Ratings.
        alignment: How the model read the text.
    """

    voice: str
    text: tuple[str, ...]
    heard: tuple[str, ...]
    words: ErrorCounts
    characters: ErrorCounts
    seen: WordRecall
    unseen: WordRecall
    seconds: float
    reference_seconds: float | None = None
    similarity: float | None = None
    quality: Quality | None = None
    alignment: AlignmentReport | None = None

    @property
    def duration_ratio(self) -> float | None:
        """Duration over that of the reference."""
        return self.seconds / self.reference_seconds if self.reference_seconds else None


@dataclass(frozen=True)
class SpeechSummary:
    """Scores of several utterances; None where nobody judged.

    Attributes:
        sentences: How many.
        seconds: Their duration together.
        wer: Word error rate.
        cer: Character error rate.
        seen_words: How many of the words said occur in training.
        seen_recall: Part of them that was heard.
        unseen_words: How many do not.
        unseen_recall: Part of them that was heard.
        similarity: Mean cosine to each voice's centroid.
        signal: Mean rating of the speech, 1 to 5.
        background: Mean rating of what is not speech.
        overall: Mean rating of both.
        monotonic: Part of the sentences read without ever going back by more than one token.
        forward_steps: Mean part of a sentence's steps that do not.
        complete: Part of the sentences with no word skipped or repeated.
        reached_end: Part of the sentences read up to their end.
        in_time: Part of the sentences whose duration is within 30 % of the reference's.
        duration_ratio: Median of duration over reference.
    """

    sentences: int
    seconds: float
    wer: float
    cer: float
    seen_words: int
    seen_recall: float | None
    unseen_words: int
    unseen_recall: float | None
    similarity: float | None
    signal: float | None
    background: float | None
    overall: float | None
    monotonic: float | None
    forward_steps: float | None
    complete: float | None
    reached_end: float | None
    in_time: float | None
    duration_ratio: float | None

    @classmethod
    def of(cls, scores: Sequence[UtteranceScore]) -> SpeechSummary:
        """Sums up at least one utterance."""
        seen = sum((score.seen for score in scores), WordRecall())
        unseen = sum((score.unseen for score in scores), WordRecall())
        qualities = [score.quality for score in scores if score.quality is not None]
        quality = Quality.mean(qualities) if qualities else None
        reports = [score.alignment for score in scores if score.alignment is not None]
        ratios = [score.duration_ratio for score in scores if score.duration_ratio is not None]
        return cls(
            sentences=len(scores),
            seconds=sum(score.seconds for score in scores),
            wer=sum((score.words for score in scores), ErrorCounts()).rate,
            cer=sum((score.characters for score in scores), ErrorCounts()).rate,
            seen_words=seen.said,
            seen_recall=seen.share,
            unseen_words=unseen.said,
            unseen_recall=unseen.share,
            similarity=_mean([score.similarity for score in scores if score.similarity is not None]),
            signal=quality.signal if quality else None,
            background=quality.background if quality else None,
            overall=quality.overall if quality else None,
            monotonic=_mean([report.monotonic == 1.0 for report in reports]),
            forward_steps=_mean([report.monotonic for report in reports]),
            complete=_mean([not report.skipped and not report.repeated for report in reports]),
            reached_end=_mean([report.reached_end for report in reports]),
            in_time=_mean([abs(ratio - 1) <= DURATION_TOLERANCE for ratio in ratios]),
            duration_ratio=float(np.median(ratios)) if ratios else None,
        )

    def to_json(self) -> dict[str, int | float | None]:
        """Returns the fields, rounded to four places."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SpeechScores:
    """What the judges say of a set of utterances.

    Attributes:
        utterances: Each of them, at least one, in order.
        chance_wer: Word error rate of every transcript against the next other text: what a judge gives to speech that
            has nothing to do with its text. NaN if all texts are one.
        chance_cer: The same for characters.
        left_out: Judges that were not asked, with the reason.
    """

    utterances: Sequence[UtteranceScore]
    chance_wer: float
    chance_cer: float
    left_out: Mapping[str, str]

    @cached_property
    def total(self) -> SpeechSummary:
        """Scores of all utterances."""
        return SpeechSummary.of(self.utterances)

    @cached_property
    def by_voice(self) -> dict[str, SpeechSummary]:
        """Scores of each voice, in the order of appearance."""
        voices = dict.fromkeys(score.voice for score in self.utterances)
        return {voice: SpeechSummary.of([s for s in self.utterances if s.voice == voice]) for voice in voices}

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types: the total, each voice, and what was heard of every utterance."""
        return {
            "total": self.total.to_json(),
            "chance": {"wer": _rounded(self.chance_wer), "cer": _rounded(self.chance_cer)},
            "voices": {voice: summary.to_json() for voice, summary in self.by_voice.items()},
            "left_out": dict(self.left_out),
            "utterances": [
                {
                    "voice": score.voice,
                    "text": " ".join(score.text),
                    "heard": " ".join(score.heard),
                    "cer": _rounded(score.characters.rate),
                    "similarity": _rounded(score.similarity),
                    "overall": _rounded(score.quality.overall if score.quality else None),
                    "seconds": _rounded(score.seconds),
                }
                for score in self.utterances
            ],
        }


def format_table(rows: Mapping[str, SpeechSummary]) -> str:
    """Returns a Markdown table with a line for every row and a column for every number that some row has.

    Rates and shares are in percent; similarity, ratings and durations are not.
    """
    columns = {
        field.name: _COLUMNS[field.name]
        for field in fields(SpeechSummary)
        if field.name in _COLUMNS and any(getattr(row, field.name) is not None for row in rows.values())
    }
    lines = [["", *(title for title, _ in columns.values())]]
    for title, row in rows.items():
        values = [(getattr(row, name), write) for name, (_, write) in columns.items()]
        lines.append([title, *("-" if value is None else write(value) for value, write in values)])
    return markdown(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "sentences": ("sentences", str),
    "cer": ("CER", _percent),
    "wer": ("WER", _percent),
    "seen_recall": ("seen words heard", _percent),
    "unseen_recall": ("unseen words heard", _percent),
    "similarity": ("similarity", "{:.3f}".format),
    "overall": ("DNSMOS", "{:.2f}".format),
    "monotonic": ("monotonic", _percent),
    "complete": ("none skipped or repeated", _percent),
    "reached_end": ("reached the end", _percent),
    "in_time": ("duration within 30 %", _percent),
}
"""Of the table: the heading of a field, and how its numbers are written."""


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rounded(value: float | None) -> float | None:
    """Returns four places, None for NaN, which JSON does not have."""
    return None if value is None or np.isnan(value) else round(value, 4)
