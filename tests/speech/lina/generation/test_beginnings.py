"""A text begins with the chosen voice, the run's, a recording, the usual voice or nothing, in this order."""

from pathlib import Path

import pytest
import torch

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.beginnings import Beginnings
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices.files import load_voice
from tests.speech.lina.tiny_folder import write_model, write_recording


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LinaPredictor:
    return LinaPredictor.from_pretrained(write_model(tmp_path_factory.mktemp("model")), device="cpu")


def beginnings(predictor: LinaPredictor, default: str | None = "slt", **options: str) -> Beginnings:
    return Beginnings(
        predictor.model,
        predictor.codec,
        predictor.tokenizer,
        voices=predictor.voices,
        default=default,
        fingerprint=predictor.fingerprint,
        options=LinaInferOptions(**options),  # type: ignore[arg-type]
    )


def test_the_usual_voice_speaks_unless_there_is_none(predictor: LinaPredictor):
    beginning, name = beginnings(predictor).begin(None)
    assert name == "slt"
    assert beginning.state is not None
    learned = load_voice(predictor.voices["slt"], predictor.fingerprint).state(predictor.model.initial_state(1))
    for layer, expected in zip(beginning.state.layers, learned.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer, expected, strict=True))
    beginning, name = beginnings(predictor, default=None).begin(None)
    assert (beginning.state, beginning.prompt, name) == (None, None, "")


def test_a_recording_goes_before_the_usual_voice_and_beside_a_chosen_one(predictor: LinaPredictor, tmp_path: Path):
    recording = str(write_recording(tmp_path / "ref.wav", None, 1.5))
    run = beginnings(predictor, prompt=recording, prompt_text="hello there")
    beginning, name = run.begin(None)
    assert (beginning.state, name) == (None, "")
    assert beginning.prompt is not None
    assert beginning.prompt.shape[0] == predictor.config.num_codebooks
    both, name = run.begin("slt")
    assert name == "slt"
    assert both.state is not None
    assert both.prompt is beginning.prompt  # encoded once


def test_a_voice_must_be_one_of_this_model(predictor: LinaPredictor, tmp_path: Path):
    other = LinaPredictor.from_pretrained(write_model(tmp_path / "other", seed=5), device="cpu")
    with pytest.raises(CheckpointError):
        beginnings(predictor).begin(other.voices["slt"])
    with pytest.raises(CheckpointError, match="was made for model"):
        beginnings(predictor).begin(other.load_voice("slt"))
    with pytest.raises(InputError, match="no voice 'carl'"):
        beginnings(predictor).begin("carl")
    with pytest.raises(InputError, match="The voice is 5, a int"):
        beginnings(predictor).begin(5)  # type: ignore[arg-type]
