"""What a speaker chooses, begins with, asks of the model and makes of its answer."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn.errors import InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.attempts import PlannedText, speak_texts
from mmattn.speech.lina.generation.speaker import Beginning, Speaker, choose_speaking, draw_seed
from mmattn.speech.lina.generation.steps import generate
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.text.tokens import TextTokens
from tests.speech.lina.generation.planned import FRAMES, NoTokenizer, planned
from tests.speech.lina.tiny import some_codes, tiny_model
from tests.speech.lina.tiny_folder import write_model, write_recording


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LinaPredictor:
    return LinaPredictor.from_pretrained(write_model(tmp_path_factory.mktemp("model")), device="cpu")


def speaker_of(predictor: LinaPredictor, **options: Any) -> Speaker:
    return Speaker(predictor.model, predictor.codec, predictor.tokenizer, LinaInferOptions(**options))


def test_published_values_are_the_last_resort() -> None:
    assert choose_speaking(LinaInferOptions(), {}) == (SamplingOptions(), 1.0, 200)


def test_the_run_goes_before_the_checkpoint() -> None:
    speaking = {"temperature": 0.6, "guidance": 2.0, "sampled_codebooks": 3, "max_characters": 80}
    chosen = choose_speaking(LinaInferOptions(temperature=1.0, guidance=1.5), speaking)
    assert (chosen.sampling.temperature, chosen.sampling.sampled_codebooks, chosen.guidance) == (1.0, 3, 1.5)
    assert chosen.max_characters == 80
    assert choose_speaking(LinaInferOptions(max_characters=50), speaking).max_characters == 50


@pytest.mark.parametrize(
    ("speaking", "message"),
    [
        ({"loudness": 1}, "recommends loudness"),
        ({"temperature": -1}, "out of range: temperature is -1"),
        ({"guidance": "much"}, "out of range: could not convert"),
        ({"max_characters": 19}, "max_characters is 19, expected a whole number of at least 20"),
        ({"max_characters": 80.5}, "max_characters is 80.5, expected a whole number"),
        ({"max_characters": None}, "max_characters is None, expected a whole number"),
    ],
)
def test_wrong_recommendations(speaking: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_speaking(LinaInferOptions(), speaking)


def test_a_speaker_does_not_change_and_another_run_has_another_one() -> None:
    speaker = Speaker(tiny_model(), FRAMES, NoTokenizer(), LinaInferOptions(max_seconds=2.0))
    assert speaker.limit(planned(0, *[5] * 60)) == 20
    with pytest.raises(FrozenInstanceError):
        speaker.options = LinaInferOptions()  # type: ignore[misc]
    other = replace(speaker, options=LinaInferOptions(max_seconds=1.0, temperature=0.0))
    assert other.limit(planned(0, *[5] * 60)) == 10
    assert (speaker.choice.sampling.temperature, other.choice.sampling.temperature) == (1.0, 0.0)
    assert (speaker.retries, other.retries) == (2, 0)
    assert other.model is speaker.model
    with pytest.raises(InputError, match="temperature is -1"):
        replace(speaker, options=LinaInferOptions(temperature=-1.0))


def test_a_text_begins_with_the_voices_state_or_the_models_own(predictor: LinaPredictor) -> None:
    speaker, voice = speaker_of(predictor), predictor.load_voice("slt")
    beginning = speaker.beginning(voice)
    assert beginning.voice == "slt"
    assert beginning.state is not None
    learned = voice.state(predictor.model.initial_state(1))
    for layer, expected in zip(beginning.state.layers, learned.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer, expected, strict=True))
    assert speaker.beginning(None) == Beginning(None, None, None, "")


def test_a_recording_is_encoded_once_and_stands_beside_a_voice(predictor: LinaPredictor, tmp_path: Path) -> None:
    recording = str(write_recording(tmp_path / "ref.wav", None, 1.5))
    speaker = speaker_of(predictor, prompt=recording, prompt_text="hello there")
    beginning = speaker.beginning(None)
    assert (beginning.state, beginning.voice) == (None, "")
    assert beginning.prompt is not None
    assert beginning.prompt.shape[0] == predictor.config.num_codebooks
    both = speaker.beginning(predictor.load_voice("slt"))
    assert both.voice == "slt"
    assert both.state is not None
    assert both.prompt is beginning.prompt


def test_the_prompt_is_no_part_of_the_alignment() -> None:
    model = tiny_model()
    options = LinaInferOptions(retries=0, seconds_per_token=0.2, max_seconds=2.0)
    speaker = Speaker(model, FRAMES, NoTokenizer(), options)
    transcript = TextTokens(torch.tensor([1, 7, 8, 9, 2]), list("^abc$"), [-1, 0, 0, 0, -1])
    beginning = Beginning(None, some_codes(6), transcript)
    (sentence,) = speak_texts(speaker, [PlannedText([planned(0, 10, 11)], beginning, 0)])[0]
    assert sentence.alignment.shape == (sentence.codes.shape[1], 4)
    request = speaker.request(planned(0, 10, 11), beginning, draw_seed(0, 0, 0))
    assert request.text.tolist() == [1, 7, 8, 9, 10, 11, 2]
    whole = generate(model, [request], speaker.generation_options(20))[0].alignment[: len(sentence.alignment)].numpy()
    np.testing.assert_array_equal(sentence.alignment[:, 1:], whole[:, 4:])


def test_every_attempt_has_random_numbers_of_its_own() -> None:
    seeds = {draw_seed(seed, place, attempt) for seed in range(5) for place in range(5) for attempt in range(5)}
    assert len(seeds) == 125
    assert all(0 <= seed < 2**63 for seed in seeds)
