"""One text of a visitor, spoken: sound while it is made, then the recording, its picture and its numbers."""

from __future__ import annotations

import io
import random
import shutil
import tempfile
import wave
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.results import LinaResult

__all__ = ["MAX_CHARACTERS", "MAX_TOKENS", "Settings", "Spoken", "choose_seed", "speak", "to_wav"]

MAX_CHARACTERS = 2000
MAX_TOKENS = 4000
"""Of all sentences: about five minutes of speech. A page of letters stays far below it, one of digits does not."""
_FIRST_SECONDS, _NEXT_SECONDS = 0.25, 1.0
_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Settings:
    """What a visitor may choose beside text and voice.

    Attributes:
        temperature: Randomness; 0 is none.
        top_k: Likeliest tokens that may be drawn; 0 allows all.
        seed: Of the random numbers.
    """

    temperature: float
    top_k: int
    seed: int


@dataclass
class Spoken:
    """One finished text; its files are removed when it is forgotten.

    Attributes:
        result: What was said.
        first_audio: Seconds until the first sound.
        folder: Of the files.
        files: Recording, numbers and picture.
    """

    result: LinaResult
    first_audio: float | None
    folder: Path
    files: list[Path]

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def speak(
    predictor: LinaPredictor, text: str, voice: Path | None, settings: Settings
) -> Iterator[tuple[bytes | None, Spoken | None]]:
    """Speaks a text; yields (WAV of the next sound, None) while it is made and (None, all of it) at the end.

    Args:
        predictor: Speaks.
        text: What to say.
        voice: Voice file; None is the model's own.
        settings: The visitor's.

    Raises:
        InputError: If the text is empty, too long in characters or as it is spoken, or has nothing that can be spoken.
        CheckpointError: If the voice is none of this model.
    """
    said = text.strip()
    if not said:
        raise InputError("There is nothing to say yet.", "Write a sentence, or click an example.")
    if len(said) > MAX_CHARACTERS:
        raise InputError(
            f"The text has {len(said)} characters; this page takes up to {MAX_CHARACTERS}.",
            "Shorten it, or use: mmattn infer lina SCRIPT.txt --whole --output OUT",
        )
    chosen = predictor.with_options(temperature=settings.temperature, top_k=settings.top_k, candidates=1)
    session = chosen.open_session(voice, seed=settings.seed)
    with closing(session):
        waiting: list[npt.NDArray[np.float32]] = []
        wanted = _FIRST_SECONDS
        parts = (session.feed(said), session.flush())
        if session.planned_tokens > MAX_TOKENS:
            raise InputError(
                f"Read out, the text has {session.planned_tokens} characters or sounds; this page takes up to "
                f"{MAX_TOKENS}.",
                "Numbers and addresses are long when they are spoken. Shorten it.",
            )
        for part in parts:
            for chunk in part:
                waiting.append(chunk.samples)
                if sum(map(len, waiting)) >= wanted * chunk.sample_rate:
                    yield to_wav(np.concatenate(waiting), chunk.sample_rate), None
                    waiting, wanted = [], _NEXT_SECONDS
        if not session.sentences:
            raise InputError(f"There is nothing in this text that can be spoken: {said[:40]!r}.", "Write words.")
        result = session.result()
        if waiting:
            yield to_wav(np.concatenate(waiting), result.sample_rate), None
    yield None, _save(result, session.first_audio_seconds)


def to_wav(samples: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """Returns a WAV file of mono samples (n,), 16 bits; what exceeds [-1, 1] is clipped."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def choose_seed(seed: float | None, *, is_random: bool) -> int:
    """Returns the seed of the next text.

    Raises:
        InputError: If it is no whole number from 0 to 2147483647.
    """
    if is_random:
        return random.SystemRandom().randrange(_LARGEST_SEED)
    if seed is None or not 0 <= seed <= _LARGEST_SEED or seed != int(seed):
        raise InputError(f"The seed is {seed}, expected a whole number from 0 to {_LARGEST_SEED}.")
    return int(seed)


def _save(result: LinaResult, first_audio: float | None) -> Spoken:
    folder = Path(tempfile.mkdtemp(prefix="mmattn-lina-"))
    return Spoken(result, first_audio, folder, result.save(folder, "speech"))
