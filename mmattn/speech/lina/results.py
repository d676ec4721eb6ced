"""What Lina is asked and what it answers: texts with voice and seed; samples, and how every sentence was read.

Results can be saved, drawn and sent as JSON.

Shapes: S samples, M text tokens of a sentence, n frames of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.audio import SYNTHETIC_SPEECH, write_audio
from mmattn.media.files import atomic_path
from mmattn.media.image import write_png
from mmattn.speech.lina.judges.watchdog import WORD_SECONDS, AlignmentReport
from mmattn.speech.lina.text.normalise import check_text
from mmattn.speech.lina.voices.files import Voice

__all__ = ["LinaItem", "LinaResult", "LinaSentence", "VoiceChoice", "as_items", "checked_seed"]

_SHOWN_SECONDS = 10.0
_TITLE = 70


VoiceChoice: TypeAlias = str | Path | Voice
"""Name of a shipped voice, path of a voice file, or a voice."""


@dataclass(frozen=True)
class LinaItem:
    """A text to speak.

    Attributes:
        text: Of any length.
        voice: Who speaks; None as the run's options say.
        seed: Of the random numbers, at least 0.
        name: What it is called in messages.
    """

    text: str
    voice: VoiceChoice | None = None
    seed: int = 0
    name: str = ""


def as_items(items: Sequence[str | LinaItem]) -> list[LinaItem]:
    """Returns texts as items, all of them checked.

    Raises:
        InputError: If these are no list, or one of them is neither a text nor an item, or has a seed that is none.
    """
    if isinstance(items, str | bytes | LinaItem) or not isinstance(items, Iterable):
        raise InputError(
            f"predict_batch was given {items!r:.60}, a {type(items).__name__}; expected a list of texts.",
            "For one text: predict(text).",
        )
    given = []
    for item in items:
        if not isinstance(item, LinaItem):
            check_text(item, "The item")
            item = LinaItem(item)
        check_text(item.text, f"The text of '{item.name}'" if item.name else "The text")
        given.append(replace(item, seed=checked_seed(item.seed)))
    return given


def checked_seed(seed: int) -> int:
    """Returns a seed as a Python number.

    Raises:
        InputError: If it is no whole number, or below 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"The seed is {seed!r:.60}, a {type(seed).__name__}; expected a whole number, 0 or more.")
    if seed < 0:
        raise InputError(f"The seed is {seed}, expected 0 or more.")
    return int(seed)


@dataclass(frozen=True)
class LinaSentence:
    """One sentence.

    Attributes:
        text: As written.
        symbols: M text tokens, readable.
        words: M, number of the word each belongs to, -1 for none.
        alignment: (M, n) float32 weights of the tokens in every frame.
        start: Where it begins in the recording, seconds.
        seconds: How long it is.
        finished: Whether it ended by itself and was not cut.
        retries: Attempts after the first.
        problems: What is wrong with it, in words; empty if nothing is.
        report: How it read the text.
    """

    text: str
    symbols: Sequence[str]
    words: Sequence[int]
    alignment: npt.NDArray[np.float32]
    start: float
    seconds: float
    finished: bool
    retries: int
    problems: tuple[str, ...]
    report: AlignmentReport

    def to_json(self) -> dict[str, Any]:
        """Returns the facts as plain JSON types, words that were skipped or repeated as they are pronounced."""
        spelled = self.spelled_words()
        names = dict(zip(self.words, spelled, strict=True))
        report = self.report.to_json()
        return {
            "text": self.text,
            "start": round(self.start, 3),
            "seconds": round(self.seconds, 3),
            "tokens": " ".join(self.symbols),
            "finished": self.finished,
            "retries": self.retries,
            "problems": list(self.problems),
            "alignment": {
                **report,
                "skipped": [names[word] for word in self.report.skipped],
                "repeated": [names[word] for word in self.report.repeated],
            },
        }

    def spelled_words(self) -> list[str]:
        """Returns M strings: of every token its word, made of that word's symbols; "" where it belongs to none."""
        parts: dict[int, str] = {}
        for symbol, word in zip(self.symbols, self.words, strict=True):
            parts[word] = parts.get(word, "") + symbol
        return ["" if word < 0 else parts[word] for word in self.words]


@dataclass(frozen=True)
class LinaResult:
    """One text, spoken.

    Attributes:
        samples: (S,) float32, nominally in [-1, 1].
        sample_rate: Hz.
        text: As given.
        sentences: In order, at least one.
        seed: Of its random numbers.
        voice: Name of the voice; empty for the model's own start or a prompt.
        model: Fingerprint of the weights.
        work_seconds: Time it took; of texts spoken together, each one's share by length.
        frame_rate: Codec frames per second.
        skipped: Pieces of the text that cannot be spoken.
        format: Of the sound file that :meth:`save` writes.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int
    text: str
    sentences: Sequence[LinaSentence]
    seed: int
    voice: str
    model: str
    work_seconds: float
    frame_rate: float
    skipped: Sequence[str] = ()
    format: Literal["wav", "flac"] = "wav"

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.sample_rate

    @property
    def rtf(self) -> float:
        """Seconds of work per second of sound; below 1 is faster than real time."""
        return self.work_seconds / self.seconds

    @property
    def finished(self) -> bool:
        """Whether every sentence ended by itself."""
        return all(sentence.finished for sentence in self.sentences)

    @property
    def is_nothing(self) -> bool:
        """Whether it ended by itself and cannot hold its words, whoever speaks: a click where a text should be."""
        words = sum(max(sentence.words, default=-1) + 1 for sentence in self.sentences)
        return self.finished and sum(sentence.seconds for sentence in self.sentences) < WORD_SECONDS * words

    def to_json(self) -> dict[str, Any]:
        """Returns all facts as plain JSON types."""
        return {
            "text": self.text,
            "audio_seconds": round(self.seconds, 3),
            "rtf": round(self.rtf, 4),
            "work_seconds": round(self.work_seconds, 4),
            "seed": self.seed,
            "voice": self.voice,
            "model": self.model,
            "sample_rate": self.sample_rate,
            "finished": self.finished,
            "retries": sum(sentence.retries for sentence in self.sentences),
            "problems": sorted({problem for sentence in self.sentences for problem in sentence.problems}),
            "skipped_text": list(self.skipped),
            "note": SYNTHETIC_SPEECH,
            "sentences": [sentence.to_json() for sentence in self.sentences],
        }

    def plot(self) -> npt.NDArray[np.uint8]:
        """Returns spectrum and alignment of the first sentences, about ten seconds, (H, W, 3) uint8 RGB."""
        # Everything else works without matplotlib.
        from mmattn.viz.speech import plot_speech

        shown = [s for s in self.sentences if s.start + s.seconds <= _SHOWN_SECONDS] or list(self.sentences[:1])
        stop = shown[-1].start + shown[-1].seconds
        title = self.text if len(shown) == len(self.sentences) else " ".join(sentence.text for sentence in shown)
        title = " ".join(title.split())
        return plot_speech(
            self.samples[: max(1, round(stop * self.sample_rate))],
            self.sample_rate,
            self._alignment(shown, stop),
            [symbol for sentence in shown for symbol in sentence.symbols],
            words=[word for sentence in shown for word in sentence.spelled_words()],
            frame_rate=self.frame_rate,
            title=title if len(title) <= _TITLE else title[: _TITLE - 1].rstrip() + "\u2026",
        )

    def save(self, directory: Path, name: str) -> list[Path]:
        """Writes sound, JSON and picture, each whole or not at all, and returns their paths.

        The sound file's metadata say that it is synthetic.

        Args:
            directory: Existing folder.
            name: Of the item; outputs are ``NAME.wav`` or ``NAME.flac``, ``NAME.json`` and ``NAME.png``.

        Raises:
            MediaError: If a file cannot be written.
            ImportError: If soundfile or Matplotlib is not installed.
        """
        paths = [directory / f"{name}.{kind}" for kind in (self.format, "json", "png")]
        picture, facts = self.plot(), json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        write_audio(paths[0], self.samples, self.sample_rate, comment=SYNTHETIC_SPEECH)
        with atomic_path(paths[1]) as temporary:
            temporary.write_text(facts + "\n", encoding="utf-8")
        write_png(paths[2], picture)
        return paths

    def _alignment(self, sentences: Sequence[LinaSentence], stop: float) -> npt.NDArray[np.float32]:
        """Returns the weights of some sentences over one time axis, (sum of M, frames up to ``stop``)."""
        frames = max(1, round(stop * self.frame_rate))
        whole = np.zeros((sum(len(sentence.symbols) for sentence in sentences), frames), np.float32)
        row = 0
        for sentence in sentences:
            first, (tokens, count) = round(sentence.start * self.frame_rate), sentence.alignment.shape
            count = min(count, frames - first)
            whole[row : row + tokens, first : first + count] = sentence.alignment[:, :count]
            row += tokens
        return whole
