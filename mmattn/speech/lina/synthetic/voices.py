"""Who the embedded Lina learns from: the voices of Debian's ``flite`` and variants of them.

``slt``, ``rms`` and ``awb`` were made from recordings of three people (CMU ARCTIC), ``kal16`` from a fourth one's
diphones. A variant plays a voice faster or slower, which moves pitch and formants as a longer or shorter vocal tract
would, and makes up for the tempo by what ``flite`` is asked for; some move the pitch on its own too. ``awb`` is never
trained on: it is the hard test of cloning, ``rms_mid`` the easy one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.audio import read_audio
from mmattn.media.audio_resample import resample

__all__ = ["EASY", "HARD", "SAMPLE_RATE", "TRAINING_VOICES", "SyntheticVoice", "random_voice", "speak"]

SAMPLE_RATE = 16_000
"""Hz."""

_AUDIBLE = 0.01
"""Of the loudest sample: what is below at both ends is silence."""
_BEFORE, _AFTER = 0.05, 0.10
"""Seconds of silence kept there."""
_PEAK = 10 ** (-3 / 20)
_SECONDS = 20.0
"""The program is stopped after as long."""


@dataclass(frozen=True)
class SyntheticVoice:
    """One voice.

    Attributes:
        name: What it is called.
        base: Voice of ``flite``.
        size: How much faster it is played: above 1 is a smaller speaker with a higher voice.
        pitch: Mean pitch asked of ``flite``, Hz, before that; None is the voice's own. ``rms`` ignores it.
        tempo: Above 1 speaks faster.
    """

    name: str
    base: str
    size: float = 1.0
    pitch: float | None = None
    tempo: float = 1.0


TRAINING_VOICES = (
    SyntheticVoice("slt", "slt"),
    SyntheticVoice("rms", "rms"),
    SyntheticVoice("kal16", "kal16"),
    SyntheticVoice("slt_large", "slt", size=0.86),
    SyntheticVoice("slt_small", "slt", size=1.15),
    SyntheticVoice("slt_deep", "slt", size=0.93, pitch=130.0, tempo=0.95),
    SyntheticVoice("slt_bright", "slt", size=1.05, pitch=235.0, tempo=1.08),
    SyntheticVoice("rms_large", "rms", size=0.87),
    SyntheticVoice("rms_small", "rms", size=1.32),
    SyntheticVoice("rms_quick", "rms", size=1.04, tempo=1.15),
    SyntheticVoice("kal16_large", "kal16", size=0.87, pitch=105.0),
    SyntheticVoice("kal16_small", "kal16", size=1.16, pitch=120.0, tempo=0.95),
    SyntheticVoice("kal16_bright", "kal16", size=1.0, pitch=160.0),
    SyntheticVoice("kal16_child", "kal16", size=1.3, pitch=190.0),
)
"""Those of training."""

EASY = SyntheticVoice("rms_mid", "rms", size=1.16)
"""A variant that is kept out of training."""

HARD = SyntheticVoice("awb", "awb")
"""A person who is kept out of training, with an accent that no other has."""


def random_voice(generator: np.random.Generator) -> SyntheticVoice:
    """Returns a variant of a training person's voice, any size and pitch; for the codec, which should know many."""
    base = str(generator.choice(["slt", "rms", "kal16"]))
    pitch = float(generator.uniform(90, 240)) if base != "rms" and generator.random() < 0.5 else None
    return SyntheticVoice(
        "random", base, float(generator.uniform(0.8, 1.35)), pitch, float(generator.uniform(0.85, 1.2))
    )


def speak(voice: SyntheticVoice, text: str) -> npt.NDArray[np.float32]:
    """Returns a sentence (samples,) at 16 kHz, cut to 50 ms before and 100 ms after what is audible, peak -3 dB.

    The same arguments give the same samples.

    Raises:
        InputError: If ``flite`` is not installed, fails or makes no sound.
    """
    program = shutil.which("flite")
    if program is None:
        raise InputError("The program flite is not installed.", "On Debian: make system-deps, as root.")
    # Played faster by `size`, it has to be spoken slower by as much.
    settings = ["--setf", f"duration_stretch={voice.size / voice.tempo:.4f}"]
    if voice.pitch is not None:
        settings += ["--setf", f"int_f0_target_mean={voice.pitch:.2f}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spoken.wav"
        command = [program, "-voice", voice.base, *settings, "-t", text, "-o", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode != 0 or not file.is_file():
            raise InputError(f"flite could not say '{text}': {done.stderr.strip() or done.returncode}.")
        recording = read_audio(file, allow_silence=True)
    samples = recording.samples
    if voice.size != 1.0:
        # As if it had been recorded at a higher rate: fewer samples per second of the same sound.
        samples = resample(samples, round(SAMPLE_RATE * voice.size / 80) * 80, SAMPLE_RATE)
    return _trimmed(samples, text)


def _trimmed(samples: npt.NDArray[np.float32], text: str) -> npt.NDArray[np.float32]:
    loudest = float(np.abs(samples).max(initial=0.0))
    if loudest == 0.0:
        raise InputError(f"flite made no sound of '{text}'.")
    audible = np.flatnonzero(np.abs(samples) > _AUDIBLE * loudest)
    first = max(0, int(audible[0]) - round(_BEFORE * SAMPLE_RATE))
    last = int(audible[-1]) + 1 + round(_AFTER * SAMPLE_RATE)
    return samples[first:last] * (_PEAK / loudest)
