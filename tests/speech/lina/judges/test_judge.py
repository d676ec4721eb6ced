from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.errors import CheckpointError, InputError
from mmattn.media.audio import resample
from mmattn.speech.lina.judges.judge import Wave, heard_wave, packaged_file
from mmattn.speech.lina.judges.quality import Quality, QualityJudge
from mmattn.speech.lina.judges.recogniser import Recogniser, choose_distractors, read_pronunciations
from mmattn.speech.lina.judges.speaker import SpeakerJudge, similarity, voice_centroids
from mmattn.speech.lina.synthetic.voices import SyntheticVoice, speak

SENTENCES = ("the old river carried seven letters", "no garden was quiet before the winter", "he painted a yellow boat")
WORDS = [word for sentence in SENTENCES for word in sentence.split()]

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"the package {package} is not installed")


def tone(seconds: float, rate: int = 16_000) -> Wave:
    time = np.arange(int(seconds * rate)) / rate
    return np.asarray(0.3 * np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 3 * time), np.float32)


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    pytest.importorskip("pocketsphinx")
    return Recogniser(WORDS, num_distractors=300)


@pytest.fixture(scope="module")
def spoken() -> dict[str, list[Wave]]:
    if shutil.which("flite") is None:
        pytest.skip("the program flite is not installed")
    return {name: [speak(SyntheticVoice(name, name), text) for text in SENTENCES] for name in ("slt", "rms")}


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    parts = {"lstm": torch.nn.LSTM(40, 256, 3), "linear": torch.nn.Linear(256, 256)}
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    torch.save({"model_state": {**state, "similarity_bias": torch.zeros(1)}}, tmp_path / "encoder.pt")
    return tmp_path / "encoder.pt"


def test_the_recogniser_understands_clean_speech(recogniser: Recogniser, spoken: dict[str, list[Wave]]) -> None:
    heard = [" ".join(recogniser.transcribe(wave, 16_000)) for wave in spoken["rms"]]
    right = sum(word in line.split() for line, text in zip(heard, SENTENCES, strict=True) for word in text.split())
    assert right >= 15, heard  # of 18


def test_a_transcript_does_not_depend_on_what_was_heard_before(
    recogniser: Recogniser, spoken: dict[str, list[Wave]]
) -> None:
    first, second = spoken["slt"][:2]
    before = recogniser.transcribe(first, 16_000)
    recogniser.transcribe(second, 16_000)
    assert recogniser.transcribe(first, 16_000) == before
    assert Recogniser(WORDS, num_distractors=300).transcribe(first, 16_000) == before


def test_noise_and_silence_are_not_made_into_the_text(recogniser: Recogniser) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    assert len(recogniser.transcribe(noise, 16_000)) <= 2
    assert len(recogniser.transcribe(np.zeros(8_000, np.float32), 16_000)) <= 1


def test_other_rates_are_resampled(recogniser: Recogniser, spoken: dict[str, list[Wave]]) -> None:
    wave = resample(spoken["rms"][1], 16_000, 24_000)
    assert recogniser.transcribe(wave, 24_000) == recogniser.transcribe(resample(wave, 24_000, 16_000), 16_000)


def test_distractors_are_other_words_and_sound_otherwise(recogniser: Recogniser) -> None:
    known = read_pronunciations()
    others = set(recogniser.vocabulary) - set(WORDS)
    sounds = {phones for word in WORDS for phones in known[word]}
    assert len(others) == 300
    assert all(3 <= len(word) <= 9 and sounds.isdisjoint(known[word]) for word in others)


def test_distractors_depend_on_the_seed_alone() -> None:
    known = {word: (word.upper(),) for word in ("cat", "hat", "mat", "rat", "sat", "ox", "elephantine")}
    chosen = choose_distractors(["cat"], known, 2, seed=1)
    assert chosen == choose_distractors(["cat"], dict(reversed(known.items())), 2, seed=1)
    assert set(choose_distractors(["cat"], known, 4, seed=0)) == {"hat", "mat", "rat", "sat"}
    with pytest.raises(InputError, match="expected 0 to 4"):
        choose_distractors(["cat"], known, 5, seed=0)


def test_words_that_sound_like_the_text_are_spelled_as_there() -> None:
    pytest.importorskip("pocketsphinx")
    recogniser = Recogniser(["two", "too", "to", "cats"], num_distractors=5)
    assert recogniser.sounds_alike("two", "too")
    assert not recogniser.sounds_alike("two", "cats")
    assert recogniser.spell_like(["two", "cats"], ["too", "cats", "too"]) == ["two", "cats", "too"]


def test_words_without_a_pronunciation_are_listed() -> None:
    pytest.importorskip("pocketsphinx")
    with pytest.raises(InputError, match=r"lacks 2 of the words: 'blorf', 'zzyx'\."):
        Recogniser(["the", "zzyx", "blorf"])
    with pytest.raises(InputError, match="no words"):
        Recogniser([])


@pytest.mark.parametrize(
    ("wave", "rate"),
    [(np.zeros(0, np.float32), 16_000), (np.zeros((2, 9), np.float32), 16_000), (np.ones(9, np.float32), 0)],
)
def test_waves_of_a_wrong_shape_or_rate_are_refused(wave: Wave, rate: int) -> None:
    with pytest.raises(InputError, match=r"expected \(N,\)"):
        heard_wave(wave, rate)


def test_waves_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        heard_wave(np.array([0.0, np.nan], np.float32), 16_000)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(InputError, match="pip install --no-deps Someone") as caught:
        packaged_file("package_that_is_nowhere", "weights.pt", "Someone", "Judging voices")
    assert "Judging voices needs weights.pt" in caught.value.message


def test_voices_become_unit_vectors_whatever_the_loudness(encoder_file: Path) -> None:
    judge = SpeakerJudge(encoder_file)
    vector = judge.embed(tone(2.0), 16_000)
    assert vector.shape == (256,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert similarity(vector, judge.embed(0.1 * tone(2.0), 16_000)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("seconds", "windows"), [(0.1, 1), (1.6, 1), (1.99, 1), (2.0, 2), (2.4, 2), (4.0, 4)])
def test_a_window_begins_every_eight_tenths_of_a_second(encoder_file: Path, seconds: float, windows: int) -> None:
    judge = SpeakerJudge(encoder_file)
    seen: list[torch.Size] = []
    judge.lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    judge.embed(tone(seconds), 16_000)
    assert seen == [torch.Size([windows, 160, 40])]


def test_mel_filters_have_the_area_one(encoder_file: Path) -> None:
    filters = SpeakerJudge(encoder_file).filters  # (40, 201), 40 Hz apart
    assert (filters * 40).sum(1)[20:] == pytest.approx(torch.ones(20), abs=0.02)


def test_silence_has_a_finite_vector(encoder_file: Path) -> None:
    assert np.isfinite(SpeakerJudge(encoder_file).embed(np.zeros(100, np.float32), 16_000)).all()


def test_other_files_are_no_speaker_encoder(tmp_path: Path) -> None:
    torch.save({"model_state": {"lstm.weight_ih_l0": torch.zeros(2)}}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name in ("other.pt", "text.pt", "missing.pt"):
        with pytest.raises(CheckpointError, match=name):
            SpeakerJudge(tmp_path / name)


def test_a_centroid_is_the_direction_of_the_mean() -> None:
    east, north = np.eye(256, dtype=np.float32)[:2]
    centroid = voice_centroids({"anna": [east, north]})["anna"]
    assert similarity(centroid, east) == pytest.approx(0.5**0.5)
    with pytest.raises(ValueError, match="'berta'"):
        voice_centroids({"berta": []})


@needs("resemblyzer")
def test_the_encoder_tells_two_voices_apart(spoken: dict[str, list[Wave]]) -> None:
    judge = SpeakerJudge()
    vectors = {voice: [judge.embed(wave, 16_000) for wave in waves] for voice, waves in spoken.items()}
    centroids = voice_centroids({voice: own[:2] for voice, own in vectors.items()})
    for voice, other in (("slt", "rms"), ("rms", "slt")):
        assert similarity(vectors[voice][2], centroids[voice]) > 0.85
        assert similarity(vectors[voice][2], centroids[other]) < 0.7


@needs("speechmos")
@needs("onnxruntime")
def test_clean_speech_is_rated_above_noisy_speech(spoken: dict[str, list[Wave]]) -> None:
    judge, wave = QualityJudge(), spoken["rms"][0]
    noise = np.random.default_rng(0).normal(0, 0.1, wave.shape).astype(np.float32)
    clean, noisy = judge.rate(wave, 16_000), judge.rate(wave + noise, 16_000)
    assert clean.background > noisy.background + 1
    assert clean.overall > noisy.overall + 0.8
    assert 1 <= noisy.overall < clean.overall <= 5


@needs("speechmos")
@needs("onnxruntime")
@pytest.mark.parametrize(("seconds", "windows"), [(5.0, 1), (8.0, 7), (12.5, 3)])
def test_short_recordings_are_repeated_and_windows_begin_every_second(
    seconds: float, windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = QualityJudge()
    lengths: list[int] = []

    def rate(samples: Wave) -> Quality:
        lengths.append(len(samples))
        return Quality(signal=3.0, background=4.0, overall=float(len(lengths)))

    monkeypatch.setattr(judge, "_rate", rate)
    assert judge.rate(tone(seconds), 16_000).overall == (windows + 1) / 2
    assert lengths == [144_160] * windows
