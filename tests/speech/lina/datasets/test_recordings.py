import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError, MediaError
from mmattn.media.audio import loudness, write_audio
from mmattn.speech.lina.datasets.recordings import Recording, prepare
from tests.speech.lina.checkpoint_tiny import RATE, hum


def from_samples(samples: np.ndarray, rate: int = RATE) -> Recording:
    return Recording((samples, rate), "some words")


def test_speech_is_trimmed_and_brought_to_one_loudness() -> None:
    quiet = np.concatenate([np.zeros(4000), 0.01 * hum(1.0), np.zeros(8000)]).astype(np.float32)
    speech = prepare(from_samples(quiet), RATE)
    assert speech.dtype == np.float32
    assert len(speech) / RATE == pytest.approx(1.15, abs=0.03)
    assert loudness(speech, RATE) == pytest.approx(-18, abs=0.3)
    np.testing.assert_allclose(prepare(from_samples(quiet * 5), RATE), speech, atol=1e-4)


def test_a_peaky_recording_is_not_driven_over_full_scale() -> None:
    peaky = 0.01 * hum(1.0)
    peaky[4000] = 0.5
    assert np.abs(prepare(from_samples(peaky), RATE)).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)


@pytest.mark.parametrize("form", ["stereo", "integers", "other rate", "offset", "file"])
def test_recordings_of_every_form_are_the_same(form: str, tmp_path: Path) -> None:
    wave = hum(1.0)
    expected = prepare(from_samples(wave), RATE)
    recording = {
        "stereo": lambda: from_samples(np.stack([wave * 1.5, wave * 0.5], axis=1)),
        "integers": lambda: from_samples((wave * 32767).astype(np.int16)),
        "other rate": lambda: from_samples(hum(1.0, 22_050), 22_050),
        "offset": lambda: from_samples(wave + 0.1),
        "file": lambda: Recording(write_audio(tmp_path / "a.flac", wave, RATE), "some words"),
    }[form]()
    speech = prepare(recording, RATE)
    count = min(len(speech), len(expected))
    assert abs(len(speech) - len(expected)) < 0.02 * RATE
    # The filter of another rate and the trimmed edges differ a little.
    assert np.corrcoef(speech[400 : count - 400], expected[400 : count - 400])[0, 1] > 0.99


def test_a_low_rate_is_used_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="has 8000 samples per second, so that it lacks what lies above 4000 Hz"):
        speech = prepare(from_samples(hum(1.0)), 16_000)
    assert len(speech) == 16_000


def test_clipping_is_warned_of_and_sound_that_is_only_loud_is_not() -> None:
    wave = hum(1.0)
    prepare(from_samples(wave / np.abs(wave).max()), RATE)
    with pytest.warns(UserWarning, match="is clipped"):
        prepare(from_samples(np.clip(wave * 4, -0.99, 0.99)), RATE)


def test_two_hours_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write_audio(path, np.zeros(4000 * 7200, np.float32), 4000)
    with pytest.raises(InputError, match=r"lasts 7200 s; a recording may last 30 s. Cut it at pauses"):
        prepare(Recording(path, "x"), RATE)
    with pytest.raises(InputError, match="lasts 31 s"):
        prepare(from_samples(hum(31.0)), RATE)


@pytest.mark.parametrize(("samples", "rate", "message"), [
    (np.zeros(8000, np.float32), RATE, "is silent"),
    (np.full(8000, 0.3, np.float32), RATE, "is silent"),
    (np.zeros(0, np.float32), RATE, "empty or holds numbers"),
    (np.full(8000, np.nan, np.float32), RATE, "not finite"),
    (hum(1.0, 2000), 2000, "has 2000 samples per second"),
    (hum(1.0), 0, "has 0 samples per second"),
])  # fmt: skip
def test_samples_that_cannot_be_used_are_errors(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(from_samples(samples, rate), RATE)


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF and nothing else")
    for name in ("corrupt.wav", "missing.wav"):
        with pytest.raises(MediaError, match=re.escape(name)):
            prepare(Recording(tmp_path / name, "x"), RATE)


@pytest.mark.parametrize(("audio", "text", "message"), [
    (None, "x", "The recording is None, a NoneType"),
    ("a.wav", "x", "The recording is 'a.wav', a str"),
    ((np.zeros(9), "8000"), "x", "a tuple"),
    ((np.zeros(9), 8000), None, "What is said in the recording is None"),
])  # fmt: skip
def test_what_is_no_recording_is_refused_at_once(audio: Any, text: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recording(audio, text)
