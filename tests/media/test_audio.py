import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import MediaError, MediaNotFoundError
from mmattn.media.audio import (
    SYNTHETIC_SPEECH,
    audio_seconds,
    is_audio,
    loudness,
    read_audio,
    read_comment,
    resample,
    to_mono,
    write_audio,
)

RATE = 16_000


def tone(hertz: float = 440.0, seconds: float = 0.5, rate: int = RATE, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, **options)
    return buffer.getvalue()


KINDS = {
    "wav-16": ("WAV", "PCM_16", 1e-4),
    "wav-24": ("WAV", "PCM_24", 1e-6),
    "wav-float": ("WAV", "FLOAT", 0.0),
    "wav-8": ("WAV", "PCM_U8", 1e-2),
    "flac": ("FLAC", "PCM_16", 1e-4),
    "vorbis": ("OGG", "VORBIS", 3e-2),
    "opus": ("OGG", "OPUS", 3e-2),
    "aiff": ("AIFF", "PCM_16", 1e-4),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_format_is_read(name: str) -> None:
    kind, subtype, error = KINDS[name]
    recording = read_audio(encoded(tone(), kind=kind, subtype=subtype))
    assert recording.samples.dtype == np.float32
    assert (recording.sample_rate, recording.seconds) == (RATE, 0.5)
    # Lossy codecs need a moment to begin.
    np.testing.assert_allclose(recording.samples[1000:-1000], tone()[1000:-1000], atol=error)


def test_mp3_is_read() -> None:
    recording = read_audio(encoded(tone(), kind="MP3"))
    assert recording.seconds == pytest.approx(0.5, abs=0.1)
    assert loudness(recording.samples, RATE) == pytest.approx(loudness(tone(), RATE), abs=0.5)


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(), np.full_like(tone(), 0.25)], axis=1)
    np.testing.assert_allclose(read_audio(encoded(stereo, subtype="FLOAT")).samples, stereo.mean(1), atol=1e-7)


def test_paths_bytes_and_files_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone()))
    from_path = read_audio(path).samples
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_audio(file).samples, from_path)
        assert not file.closed
    np.testing.assert_array_equal(read_audio(path.read_bytes()).samples, from_path)


def test_a_part_is_the_same_samples_as_in_the_whole() -> None:
    data = encoded(tone(300, 2.0), kind="FLAC")
    whole, part = read_audio(data).samples, read_audio(data, start=0.5, seconds=0.25).samples
    np.testing.assert_array_equal(part, whole[8000:12000])
    assert len(read_audio(data, start=1.9, seconds=5.0).samples) == 1600
    with pytest.raises(MediaError, match="has no samples"):
        read_audio(data, start=3.0)


def test_the_limit_counts_what_is_read() -> None:
    data = encoded(tone(seconds=3.0))
    assert audio_seconds(data) == 3.0
    with pytest.raises(MediaError, match=r"lasts 3\.0 s; the limit is 2 s\. Cut it"):
        read_audio(data, max_seconds=2)
    assert read_audio(data, seconds=1, max_seconds=2).seconds == 1.0


def test_reading_resamples() -> None:
    recording = read_audio(encoded(tone(rate=44_100), 44_100, subtype="FLOAT"), sample_rate=RATE)
    assert recording.sample_rate == RATE
    np.testing.assert_allclose(recording.samples[500:-500], tone()[500:-500], atol=1e-4)


DAMAGE = {
    "text": (b"not a recording at all, only words" * 20, "not a recording that can be read"),
    "header-only": (b"RIFF", "not a recording that can be read"),
    "flac-cut": (encoded(tone(seconds=2.0), kind="FLAC")[:8000], "damaged"),
    "ogg-cut": (encoded(tone(seconds=2.0), kind="OGG")[:3000], "damaged"),
    "no-samples": (encoded(np.zeros(0, np.float32)), "has no samples"),
    "silent": (encoded(np.zeros(100, np.float32)), "is silent"),
    "constant": (encoded(np.full(100, 0.5, np.float32)), "is silent"),
    "nan": (
        encoded(np.array([0.1, np.nan, np.inf], np.float32), subtype="FLOAT"),
        "2 samples that are NaN or infinite",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bad_file_says_what_is_wrong(name: str) -> None:
    data, message = DAMAGE[name]
    with pytest.raises(MediaError, match=message) as caught:
        read_audio(data)
    assert caught.value.hint


def test_silence_is_read_when_allowed() -> None:
    assert read_audio(encoded(np.zeros(100, np.float32)), allow_silence=True).samples.tolist() == [0.0] * 100


def test_missing_empty_and_headerless_files(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match="There is no file"):
        read_audio(tmp_path / "no.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(MediaError, match=r"is empty \(0 bytes\)"):
        read_audio(tmp_path / "empty.wav")
    (tmp_path / "samples.raw").write_bytes(bytes(100))
    with pytest.raises(MediaError, match="without a header"):
        read_audio(tmp_path / "samples.raw")
    with pytest.raises(MediaError, match="is a folder, expected a file"):
        read_audio(tmp_path)


def test_a_cut_wav_is_read_up_to_the_cut() -> None:
    data = encoded(tone(seconds=2.0))
    assert read_audio(data[: len(data) // 2]).seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_written_files_are_read_back_with_their_comment(tmp_path: Path, suffix: str) -> None:
    path = write_audio(tmp_path / "new" / f"voice{suffix}", tone(), RATE, comment=SYNTHETIC_SPEECH)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_comment(path) == SYNTHETIC_SPEECH
    recording = read_audio(path)
    assert recording.sample_rate == RATE
    np.testing.assert_allclose(
        recording.samples[1000:-1000], tone()[1000:-1000], atol=0.05 if suffix == ".ogg" else 1e-4
    )
    assert read_comment(write_audio(path, tone(), RATE)) == ""


def test_writing_clips_and_is_the_same_every_time(tmp_path: Path) -> None:
    loud = tone(peak=2.0).astype(np.float64)
    first = write_audio(tmp_path / "a.flac", loud, RATE).read_bytes()
    assert write_audio(tmp_path / "b.flac", loud, RATE).read_bytes() == first
    np.testing.assert_allclose(read_audio(first).samples, np.clip(loud, -1, 1), atol=1e-4)


def test_writing_refuses_what_is_no_recording(tmp_path: Path) -> None:
    for bad, message in (
        (np.zeros((2, 2)), "shape"),
        (np.zeros(0), "shape"),
        (np.zeros(3, np.int16), "dtype"),
        (np.array([np.nan]), "NaN or infinite"),
    ):
        with pytest.raises(MediaError, match=message):
            write_audio(tmp_path / "a.wav", bad, RATE)
    with pytest.raises(MediaError, match=r"Cannot write audio as '.mp4'.*Expected one of .wav, .flac, .ogg"):
        write_audio(tmp_path / "a.mp4", tone(), RATE)
    with pytest.raises(MediaError, match=r"Cannot write .*a\.flac at 2000000 Hz"):
        write_audio(tmp_path / "a.flac", tone(), 2_000_000)
    assert list(tmp_path.iterdir()) == []


def test_names_tell_recordings() -> None:
    assert is_audio("A.Ogg")
    assert not is_audio("a.mp4")


def test_mono_of_every_type() -> None:
    assert to_mono(np.array([0, 255], np.uint8)).tolist() == [-1.0, 127 / 128]
    assert to_mono(np.array([[2**30], [-(2**31)]], np.int32)).tolist() == [0.5, -1.0]
    assert to_mono(np.array([[0.5, 0.0], [1.0, -1.0]])).tolist() == [0.25, 0.0]
    with pytest.raises(MediaError, match=r"shape \(2, 100\)"):
        to_mono(np.zeros((2, 100)))
    with pytest.raises(MediaError, match="dtype bool"):
        to_mono(np.zeros(3, bool))


def test_without_soundfile_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"pip install 'mmattn\[speech\]'"):
        read_audio(b"")


RATES = [(44_100, 24_000), (48_000, 16_000), (16_000, 24_000), (22_050, 16_000), (4_001, 4_000), (8_000, 48_000)]


@pytest.mark.parametrize(("source", "target"), RATES)
def test_tones_below_the_limit_keep_phase_and_level(source: int, target: int) -> None:
    for hertz in (100.0, 0.43 * min(source, target)):
        resampled = resample(tone(hertz, 0.3, source), source, target)
        assert resampled.shape == (-(-round(0.3 * source) * target // source),)
        wanted = tone(hertz, len(resampled) / target, target)
        edge = target // 20
        np.testing.assert_allclose(resampled[edge:-edge], wanted[edge : len(resampled) - edge], atol=1e-4)


@pytest.mark.parametrize(("source", "target"), [(s, t) for s, t in RATES if 1.1 * t < s])
def test_tones_above_the_limit_vanish(source: int, target: int) -> None:
    resampled = resample(tone(0.51 * target, 0.3, source, peak=1.0), source, target)
    # A tone that begins abruptly is heard at its ends.
    edge = target // 20
    assert np.abs(resampled[edge:-edge]).max() < 10 ** (-80 / 20)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), st.integers(0, 2**31), st.sampled_from([(3, 2), (2, 3), (147, 80), (80, 147), (1, 7)]))
def test_resampling_is_linear_and_knows_no_shift(size: int, seed: int, rates: tuple[int, int]) -> None:
    source, target = rates
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, size)).astype(np.float32)
    both = resample(a + 2 * b, source, target)
    np.testing.assert_allclose(both, resample(a, source, target) + 2 * resample(b, source, target), atol=1e-4)
    # One period of the phases later comes the same, one period later.
    shifted = resample(np.concatenate([np.zeros(source, np.float32), a]), source, target)
    np.testing.assert_allclose(shifted[target : target + len(both)], resample(a, source, target), atol=1e-5)


def test_equal_rates_and_bad_rates() -> None:
    np.testing.assert_array_equal(resample(tone(), 16_000, 16_000), tone())
    assert resample(np.zeros(0, np.float32), 16_000, 8000).shape == (0,)
    with pytest.raises(ValueError, match="positive rates"):
        resample(tone(), 0, 16_000)
    with pytest.raises(ValueError, match="one dimension"):
        resample(np.zeros((2, 3), np.float32), 2, 3)


# ITU-R BS.2217-2 and EBU Tech 3341: a sine of 997 Hz at 0 dB of full scale on one channel is -3.01 LUFS.
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
def test_loudness_of_the_reference_tone(rate: int) -> None:
    # The filters are defined at 48 kHz; at other rates the transform bends their frequencies a little.
    error = 0.01 if rate == 48_000 else 0.05
    assert loudness(tone(997, 3.0, rate, peak=1.0), rate) == pytest.approx(-3.01, abs=error)
    assert loudness(tone(997, 3.0, rate, peak=0.1), rate) == pytest.approx(-23.01, abs=error)


def test_pauses_do_not_count_as_loudness() -> None:
    speech = tone(997, 2.0)
    with_pause = np.concatenate([speech, np.zeros(5 * RATE, np.float32), 1e-3 * speech])
    assert loudness(with_pause, RATE) == pytest.approx(loudness(speech, RATE), abs=0.5)


def test_loudness_at_the_edges() -> None:
    assert loudness(np.zeros(RATE), RATE) == -np.inf
    assert loudness(tone(997, 0.1, peak=1.0), RATE) == pytest.approx(-3.01, abs=0.3)
    with pytest.raises(ValueError, match="expected"):
        loudness(np.zeros(0), RATE)
