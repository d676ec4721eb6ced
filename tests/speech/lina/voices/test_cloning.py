import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.errors import InputError, MediaError
from mmattn.media.audio import read_audio, write_audio
from mmattn.speech.lina.predictor import LinaItem, LinaPredictor, Recording
from mmattn.speech.lina.voices.cloning import read_utterances, usual_tuning
from mmattn.speech.lina.voices.files import load_voice, save_voice
from mmattn.speech.lina.voices.tuning import TuningOptions
from tests.speech.lina.checkpoint_tiny import RATE, hum, save

CONSENT = "I, Anna Smith, agree."
QUICK = TuningOptions(rank=2, batch_size=2, accumulate=1, passes=8)
TEXTS = ("Hello there my friend.", "It is late.", "We went home again.")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LinaPredictor:
    folder = save(tmp_path_factory.mktemp("lina") / "tiny")
    return LinaPredictor.from_pretrained(folder, device="cpu", max_seconds=0.5, retries=0)


def recordings() -> list[Recording]:
    return [Recording((hum(1.5, seed=i), RATE), text) for i, text in enumerate(TEXTS)]


def test_a_voice_is_learned_saved_and_spoken_with(predictor: LinaPredictor, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in predictor.model.state_dict().items()}
    steps: list[tuple[int, int, float]] = []
    cloned = predictor.clone(
        recordings(), consent=f" {CONSENT} ", name="anna", options=QUICK,
        report=lambda step, total, loss: steps.append((step, total, loss)),
    )  # fmt: skip
    assert [step for step, _, _ in steps] == list(range(1, 17))
    assert {total for _, total, _ in steps} == {16}
    assert np.mean([loss for *_, loss in steps[-4:]]) < np.mean([loss for *_, loss in steps[:4]]) - 0.05
    assert (cloned.name, cloned.consent, cloned.model) == ("anna", CONSENT, predictor.fingerprint)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in predictor.model.state_dict().items())
    path = save_voice(tmp_path / "anna.safetensors", cloned)
    assert path.stat().st_size < 50_000
    assert load_voice(path, predictor.fingerprint).consent == CONSENT
    spoken = predictor.predict(LinaItem("Hello.", voice=path))
    assert spoken.voice == "anna"
    assert np.array_equal(spoken.samples, predictor.predict(LinaItem("Hello.", voice=cloned)).samples)


def test_seconds_that_are_too_few_to_sound_alike_are_told(
    predictor: LinaPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    def read(*items: Recording) -> None:
        read_utterances(items, predictor.codec, predictor.tokenizer, seconds_per_token=0.06)

    read(Recording((hum(2.0), RATE), "Hello there."))
    (record,) = caplog.records
    assert record.message.startswith("The recordings hold 2.0 s of speech; the voice may not sound alike.")
    caplog.clear()
    read(*[Recording((hum(2.5, seed=seed), RATE), "Hello there, my friend.") for seed in range(5)])
    assert not caplog.records


def test_files_and_samples_give_the_same_voice(predictor: LinaPredictor, tmp_path: Path) -> None:
    in_memory, on_disk = [], []
    for i, text in enumerate(TEXTS):
        file = write_audio(tmp_path / f"{i}.wav", hum(1.5, seed=i), RATE)
        on_disk.append(Recording(file, text))
        in_memory.append(Recording(tuple(read_audio(file)), text))
    voices = [predictor.clone(r, consent=CONSENT, name="a", options=QUICK) for r in (in_memory, on_disk)]
    for name, tensor in voices[0].state.tensors.items():
        assert torch.equal(tensor, voices[1].state.tensors[name])


def test_the_usual_settings_take_the_same_work_for_any_number_of_recordings() -> None:
    for count in (1, 3, 10, 60, 1000):
        options = usual_tuning(count)
        updates = options.passes * count / options.batch_size
        assert updates >= 200
        assert updates < 200 + count / options.batch_size


@pytest.mark.parametrize("consent", ["", "  \n"])
def test_no_voice_without_consent_and_nothing_is_read_before(predictor: LinaPredictor, consent: str) -> None:
    with pytest.raises(InputError, match="statement that its speaker agreed"):
        predictor.clone([Recording(Path("nowhere.wav"), "x")], consent=consent, name="a")


@pytest.mark.parametrize(("recording", "message"), [
    (Recording((hum(0.2), RATE), "hi"), "hold 0.20 s of speech, too little"),
    (Recording((np.zeros(RATE, np.float32), RATE), "hi"), "is silent"),
    (Recording((hum(31.0), RATE), "hi"), "lasts 31 s"),
    (Recording((hum(1.0), RATE), "***"), r"The text of the recording of '\*\*\*' cannot be used"),
    (Recording((hum(1.0), RATE), ""), "cannot be used: The text is empty"),
    (Recording((hum(1.0), RATE), "a very long text that cannot be said in a second " * 3), "does not fit it: 1.0 s"),
])  # fmt: skip
def test_recordings_that_cannot_be_used_are_errors(
    predictor: LinaPredictor, recording: Recording, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predictor.clone([recording], consent=CONSENT, name="a")


def test_no_recordings_and_corrupt_files_are_errors(predictor: LinaPredictor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recordings to learn a voice from"):
        predictor.clone([], consent=CONSENT, name="a")
    (tmp_path / "bad.wav").write_bytes(b"noise")
    with pytest.raises(MediaError, match=r"bad.wav is not a recording"):
        predictor.clone([Recording(tmp_path / "bad.wav", "hi")], consent=CONSENT, name="a")


def test_a_prompt_that_is_too_short_or_too_long_is_an_error(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    for seconds, message in ((0.2, "holds 0.20 s of speech, too little to go on from"), (40.0, "lasts 40 s")):
        path = write_audio(tmp_path / "prompt.wav", hum(seconds), RATE)
        options = {"prompt": str(path), "prompt_text": "hi"}
        speaker = LinaPredictor.from_pretrained(folder, device="cpu", **options)
        with pytest.raises(InputError, match=message):
            speaker.predict("Hello.")


def test_a_voice_takes_seconds_on_a_tiny_model(predictor: LinaPredictor) -> None:
    start = time.perf_counter()
    predictor.clone(recordings(), consent=CONSENT, name="a", options=replace(usual_tuning(3), passes=10))
    assert time.perf_counter() - start < 20
