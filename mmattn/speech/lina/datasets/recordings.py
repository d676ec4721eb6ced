"""Recordings of a speaker, made ready for a codec.

:mod:`.layouts` finds them with their texts. Ready is one channel, the codec's rate, little silence around the speech,
and always the same loudness.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.audio import audio_seconds, loudness, read_audio, resample, to_mono
from mmattn.speech.lina.text.normalise import check_text

__all__ = ["LEAST_SECONDS", "MOST_SECONDS", "Recording", "prepare", "trim_silence"]

FloatArray: TypeAlias = npt.NDArray[np.float32]

LEAST_SECONDS = 0.5
"""Speech that it takes at least, of all recordings together."""
MOST_SECONDS = 30.0
"""Longest single recording."""

_LOWEST_RATE = 4000
_LOUDNESS = -18.0  # LUFS
_PEAK = 10 ** (-1 / 20)
_FRAME_SECONDS = 0.01
_AUDIBLE = 10 ** (-40 / 20)  # of the loudest frame
_BEFORE_SECONDS, _AFTER_SECONDS = 0.05, 0.1
_SILENCE = 10 ** (-70 / 20)
_CLIPPED_RUN = 3
_CLIPPED_SHARE = 1e-3


@dataclass(frozen=True)
class Recording:
    """Someone saying something.

    Attributes:
        audio: Path of a file, or samples (n,) or (n, channels) of any integer or float type with their rate in Hz.
        text: What is said.
    """

    audio: Path | tuple[npt.NDArray[np.generic], int]
    text: str

    def __post_init__(self) -> None:
        """Checks the types.

        Raises:
            InputError: If it is neither a path nor samples with their rate, or the text is no string.
        """
        if not isinstance(self.audio, Path) and not (
            isinstance(self.audio, tuple) and len(self.audio) == 2 and isinstance(self.audio[0], np.ndarray)
            and isinstance(self.audio[1], int | np.integer)
        ):  # fmt: skip
            raise InputError(
                f"The recording is {self.audio!r:.60}, a {type(self.audio).__name__}.",
                "Expected a Path of a file, or a pair of samples, a NumPy array, and their rate in Hz.",
            )
        check_text(self.text, "What is said in the recording")

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"'{self.audio}'" if isinstance(self.audio, Path) else f"the recording of '{self.text[:30]}'"


def prepare(recording: Recording, sample_rate: int) -> FloatArray:
    """Returns the speech of a recording, mono float32 (n,), at a loudness of -18 LUFS, a little silence around it.

    Warns if it is clipped, or if its rate is so low that it lacks what the codec could give.

    Args:
        recording: File or samples.
        sample_rate: Hz.

    Raises:
        InputError: If it is longer than 30 s, silent, below 4 kHz, or holds numbers that are not finite.
        MediaError: If a file cannot be read.
    """
    samples, rate = _samples(recording)
    if rate < sample_rate:
        _warn(f"{_capital(recording.name)} has {rate} samples per second, so that it lacks what lies above {rate // 2}"
              f" Hz; the voice may sound dull. Record at {sample_rate} Hz or more.")  # fmt: skip
    if _clipped_share(samples) > _CLIPPED_SHARE:
        _warn(f"{_capital(recording.name)} is clipped; the voice may sound harsh. Record it at a lower level.")
    speech = trim_silence(samples - samples.mean(dtype=np.float64).astype(np.float32), rate)
    level = loudness(speech, rate)
    # Clicks in near silence have a peak, but no loudness.
    gain = 10 ** ((_LOUDNESS - level) / 20) if np.isfinite(level) else 1.0
    gain = min(gain, _PEAK / float(np.abs(speech).max()))
    return resample((speech * gain).astype(np.float32), rate, sample_rate)


def _samples(recording: Recording) -> tuple[FloatArray, int]:
    """Returns the mono samples and their rate, checked."""
    if isinstance(recording.audio, Path):
        _check_length(recording.name, audio_seconds(recording.audio))
        samples, rate = read_audio(recording.audio, max_seconds=2 * MOST_SECONDS)
    else:
        samples, rate = to_mono(recording.audio[0]), int(recording.audio[1])
        if not samples.size or not np.isfinite(samples).all():
            raise InputError(f"{_capital(recording.name)} is empty or holds numbers that are not finite.")
        if float(np.abs(samples - samples.mean(dtype=np.float64)).max()) < _SILENCE:
            raise InputError(f"{_capital(recording.name)} is silent.", "Check the microphone.")
    if rate < _LOWEST_RATE:
        raise InputError(f"{_capital(recording.name)} has {rate} samples per second.", "Expected 16000 or more.")
    _check_length(recording.name, len(samples) / rate)
    return samples, rate


def _check_length(name: str, seconds: float) -> None:
    if seconds > MOST_SECONDS:
        raise InputError(
            f"{_capital(name)} lasts {seconds:.0f} s; a recording may last {MOST_SECONDS:g} s.",
            "Cut it at pauses into recordings of a sentence or two, each with its own text.",
        )


def trim_silence(samples: FloatArray, rate: int) -> FloatArray:
    """Returns mono samples (n,), not all 0, cut to a little before and after what is audible."""
    size = max(1, round(_FRAME_SECONDS * rate))
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    level = np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1))
    audible = np.flatnonzero(level > _AUDIBLE * level.max())
    first = max(0, int(audible[0]) * size - round(_BEFORE_SECONDS * rate))
    return samples[first : (int(audible[-1]) + 1) * size + round(_AFTER_SECONDS * rate)]


def _clipped_share(samples: FloatArray) -> float:
    """Returns which part of the samples lies in runs of three or more at the same extreme."""
    extreme = np.abs(samples) >= 0.98 * np.abs(samples).max()
    same = extreme[1:] & (np.abs(np.diff(samples)) < 1e-6)
    runs = np.convolve(same, np.ones(_CLIPPED_RUN - 1), "valid") == _CLIPPED_RUN - 1
    return float(runs.mean()) if runs.size else 0.0


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)
