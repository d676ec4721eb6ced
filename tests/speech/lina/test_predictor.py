import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn.core.predictor import Predictor, Result
from mmattn.errors import CheckpointError, InputError, WeightsUnavailableError
from mmattn.media.audio import write_audio
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.predictor import LinaItem, LinaPredictor
from mmattn.speech.lina.voices.files import save_voice
from tests.speech.lina.checkpoint_tiny import CODEC, RATE, hum, save, stored, voice

TEXT = "Dr. Smith was here. Who? A boat and a tree;\nthat is all!\n\nThe end."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("lina") / "tiny", voices=["slt", "awb"])


def load(folder: Path, **options: Any) -> LinaPredictor:
    return LinaPredictor.from_pretrained(folder, device="cpu", **{"max_seconds": 0.6, "retries": 0, **options})


def test_a_text_becomes_sound_with_a_record_of_how_it_was_read(folder: Path) -> None:
    predictor = load(folder)
    result = predictor.predict(LinaItem(TEXT, seed=3))
    assert isinstance(predictor, Predictor)
    assert isinstance(result, Result)
    assert result.samples.dtype == np.float32
    assert np.isfinite(result.samples).all()
    assert [s.text for s in result.sentences] == [
        "Dr. Smith was here.", "Who?", "A boat and a tree;", "that is all!", "The end.",
    ]  # fmt: skip
    assert (result.sample_rate, result.seed, result.voice, result.model) == (RATE, 3, "awb", predictor.fingerprint)
    assert result.work_seconds > 0
    for sentence in result.sentences:
        frames = sentence.seconds * predictor.frame_rate
        assert frames == pytest.approx(round(frames))
        assert sentence.alignment.shape == (len(sentence.symbols), round(frames))
        np.testing.assert_allclose(sentence.alignment.sum(axis=0), 1, atol=1e-4)
        assert sentence.symbols[0] == "^"
    starts = [sentence.start for sentence in result.sentences]
    ends = [sentence.start + sentence.seconds for sentence in result.sentences]
    gaps = [start - end for start, end in zip(starts[1:], ends, strict=False)]
    np.testing.assert_allclose(gaps, [0.25, 0.25, 0.08, 0.6], atol=1e-3)
    assert result.seconds == pytest.approx(ends[-1])
    first = result.samples[round(ends[0] * RATE) : round(starts[1] * RATE)]
    assert not first.any()


def test_seeds_and_voices_change_the_speech_and_nothing_else_does(folder: Path) -> None:
    predictor = load(folder)
    base = predictor.predict(LinaItem(TEXT, voice="slt"))
    assert np.array_equal(predictor.predict(LinaItem(TEXT, voice="slt")).samples, base.samples)
    assert np.array_equal(predictor.predict(LinaItem(TEXT, voice=predictor.load_voice("slt"))).samples, base.samples)
    for other in (LinaItem(TEXT, voice="slt", seed=1), LinaItem(TEXT, voice="awb")):
        assert not np.array_equal(predictor.predict(other).samples, base.samples)
    assert np.array_equal(load(folder, voice="slt").predict(TEXT).samples, base.samples)


@pytest.mark.parametrize("options", [
    {}, {"carry": "state"}, {"candidates": 2, "retries": 1}, {"guidance": 1.0, "temperature": 0.0},
])  # fmt: skip
def test_items_of_a_batch_are_as_if_alone(folder: Path, options: dict[str, Any]) -> None:
    predictor = load(folder, **options)
    items = [LinaItem(TEXT, seed=1), LinaItem("Short."), LinaItem(TEXT[20:], voice="slt", seed=2)]
    for item, together in zip(items, predictor.predict_batch(items), strict=True):
        alone = predictor.predict(item)
        np.testing.assert_allclose(together.samples, alone.samples, atol=1e-6)
        assert [s.to_json() for s in together.sentences] == [s.to_json() for s in alone.sentences]


def test_the_state_may_be_carried_from_sentence_to_sentence(folder: Path) -> None:
    text = "First one here. Second one there."
    anchored, carried = (load(folder, carry=carry).predict(text) for carry in ("voice", "state"))
    first = round(anchored.sentences[1].start * RATE)
    assert np.array_equal(anchored.samples[:first], carried.samples[:first])
    if anchored.sentences[0].finished:
        assert not np.array_equal(anchored.samples[first:], carried.samples[first:])


def test_a_sentence_that_failed_is_tried_again_and_the_best_one_kept(folder: Path) -> None:
    once, often = (load(folder, retries=retries).predict(TEXT) for retries in (0, 4))
    problems = [[len(s.problems) for s in result.sentences] for result in (once, often)]
    assert all(after <= before for before, after in zip(*problems, strict=True))
    assert sum(problems[1]) < sum(problems[0])
    assert all(s.retries == 0 for s in once.sentences)
    assert all(0 < s.retries <= 4 for s, before in zip(often.sentences, problems[0], strict=True) if before)


def test_a_runaway_sentence_is_cut_and_reported(folder: Path) -> None:
    result = load(folder, max_seconds=0.1).predict("It goes on and on and on and on.")
    sentence = result.sentences[0]
    assert sentence.seconds == pytest.approx(6 / 62.5)
    assert not sentence.finished
    assert "did not stop" in sentence.problems
    assert result.samples[-1] == 0
    assert not result.finished


def test_a_recording_can_be_continued(folder: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "ref.wav", hum(1.5), RATE)
    options = {"prompt": str(tmp_path / "ref.wav"), "prompt_text": "Hello from here"}
    result = load(folder, **options).predict("And more.")
    sentence = result.sentences[0]
    assert result.voice == ""
    assert "".join(sentence.symbols) == "^and more.$"
    assert sentence.alignment.shape[0] == len(sentence.symbols)
    assert sentence.alignment.sum(axis=0).max() <= 1 + 1e-4
    assert not np.array_equal(result.samples, load(folder).predict("And more.").samples)


def test_the_chosen_voice_goes_before_the_runs_a_recording_and_the_usual_one(folder: Path, tmp_path: Path) -> None:
    def chosen(choice: str | None = None, **options: Any) -> str | None:
        voice = load(folder, **options)._chosen(choice)
        return None if voice is None else voice.name

    prompt = {"prompt": str(tmp_path / "ref.wav"), "prompt_text": "hello there"}
    assert chosen() == "awb"
    assert chosen(voice="slt") == "slt"
    assert chosen("awb", voice="slt") == "awb"
    assert chosen(**prompt) is None
    assert chosen("slt", **prompt) == "slt"
    assert load(save(tmp_path / "without"))._chosen(None) is None


def test_a_voice_must_be_one_of_this_model(folder: Path, tmp_path: Path) -> None:
    predictor = load(folder)
    other = load(save(tmp_path / "other", stored(seed=5), voices=["slt"]))
    with pytest.raises(CheckpointError):
        predictor.predict(LinaItem("Hello.", other.voices["slt"]))
    with pytest.raises(CheckpointError, match="was made for model"):
        predictor.predict(LinaItem("Hello.", other.load_voice("slt")))
    with pytest.raises(InputError, match="no voice 'carl'"):
        predictor.predict(LinaItem("Hello.", "carl"))


def test_what_a_run_cannot_speak_with_is_told_before(folder: Path, tmp_path: Path) -> None:
    load(folder, candidates=3).check_speaking(seed=2)
    with pytest.raises(InputError, match="seed is -1"):
        load(folder).check_speaking(seed=-1)
    write_audio(tmp_path / "ref.wav", hum(0.3), RATE)
    predictor = load(folder, prompt=str(tmp_path / "ref.wav"), prompt_text="hello there")
    with pytest.raises(InputError, match="too little to go on from"):
        predictor.check_speaking()


def test_half_a_prompt_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="prompt is given without prompt_text"):
        load(folder, prompt="x.wav")


def test_what_ships_is_listed(folder: Path, tmp_path: Path) -> None:
    predictor = load(folder)
    assert list(predictor.voices) == ["awb", "slt"]
    assert predictor.default_voice == "awb"
    bare = load(save(tmp_path / "bare"))
    assert (bare.voices, bare.default_voice, bare.predict("Hello.").voice) == ({}, None, "")


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_text_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(InputError, match="text of 'line 3' is empty"):
        load(folder).predict(LinaItem(text, name="line 3"))


@pytest.mark.parametrize("text", ["*** --- ***", "\u4f60\u597d\u3002", "\U0001f600", "...", "\u200b"])
def test_a_text_that_nobody_can_pronounce_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(InputError, match="nothing that can be spoken"):
        load(folder).predict(text)


def test_what_cannot_be_spoken_in_a_text_is_left_out_and_named(folder: Path) -> None:
    result = load(folder).predict("One.\n\n* * *\n\nTwo.")
    assert [sentence.text for sentence in result.sentences] == ["One.", "Two."]
    assert result.skipped == ("* * *",)
    assert result.to_json()["skipped_text"] == ["* * *"]
    assert result.sentences[1].start - result.sentences[0].seconds == pytest.approx(0.6)


def test_a_hundred_thousand_characters_are_spoken(folder: Path) -> None:
    text = ("This is one of very many sentences of a book that is long " * 3 + ". ") * 570
    result = load(folder, max_seconds=0.03, sentences_at_once=64).predict(text)
    assert len(text) > 100_000
    assert len(result.sentences) == 570
    assert result.seconds > 569 * 0.25


def test_a_number_without_end_is_spoken_in_parts(folder: Path) -> None:
    result = load(folder, max_seconds=0.03).predict("7" * 190)
    assert max(len(sentence.symbols) for sentence in result.sentences) <= 800
    assert " ".join(sentence.text for sentence in result.sentences) == " ".join(["seven"] * 190)


def test_a_voice_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = voice(stored(seed=1))
    path = save_voice(tmp_path / "other.safetensors", other)
    for choice in (path, str(path), other):
        with pytest.raises(CheckpointError, match=f"was made for model {other.model}; this is"):
            load(folder).predict(LinaItem("Hello.", voice=choice))
    with pytest.raises(CheckpointError, match="was made for model"):
        load(folder, voice=str(path))


def test_an_unknown_voice_is_an_error_that_names_those_there_are(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no voice 'nobody'.*voices awb, slt"):
        load(folder, voice="nobody")
    (tmp_path / "broken.safetensors").write_bytes(b"no voice")
    with pytest.raises(CheckpointError, match="damaged or no voice file"):
        load(folder).load_voice(tmp_path / "broken.safetensors")


def test_a_codec_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    lina = stored(codebook_size=12)
    with pytest.raises(CheckpointError, match="has 16 tokens in each, the model was trained on 12"):
        load(save(tmp_path / "size", lina))
    lina = stored(num_codebooks=4)
    with pytest.raises(CheckpointError, match="has 3 codebooks, the model was trained on 4"):
        load(save(tmp_path / "number", lina))


def test_a_codec_can_come_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    without = save(tmp_path / "without", dataclasses.replace(stored(), part={}))
    with pytest.raises(CheckpointError):
        load(without)
    result = load(without, codec=str(folder)).predict("Hello.")
    assert np.array_equal(result.samples, load(save(tmp_path / "with")).predict("Hello.").samples)
    unnamed = stored(codec="wavtokenizer", codec_options={})
    with pytest.raises(WeightsUnavailableError, match="WavTokenizer, whose weights it does not hold"):
        load(save(tmp_path / "unnamed", dataclasses.replace(unnamed, part={})))


@pytest.mark.parametrize("part", ["tensors", "part"])
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, part: str) -> None:
    lina = stored()
    tensors = getattr(lina, part)
    name = sorted(tensors)[0]
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    with pytest.raises(CheckpointError, match=f"damaged: its weights {name} hold numbers that are not finite"):
        load(save(tmp_path / "nan", lina))


def test_a_text_front_end_of_another_model_is_refused(tmp_path: Path) -> None:
    for vocab in (20, 77):
        with pytest.raises(CheckpointError, match=f"has 38 tokens, the model knows {vocab}"):
            load(save(tmp_path / str(vocab), stored(text_vocab=vocab)))


@pytest.mark.parametrize(("options", "message"), [
    ({"temperature": -1.0}, "temperature is -1"),
    ({"candidates": 0}, "candidates is 0, expected at least 1"),
    ({"max_seconds": 0.0}, "max_seconds is 0.0, expected more than 0"),
    ({"carry": "nothing"}, "carry is 'nothing', expected one of voice, state"),
    ({"speed": 2}, "There is no option speed"),
])  # fmt: skip
def test_options_out_of_range_are_errors(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, **options)


def test_other_misuse_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed is -1"):
        load(folder).predict(LinaItem("Hello.", seed=-1))
    with pytest.raises(InputError, match="never trained without text"):
        load(folder, guidance=2.0).predict("Hello.")
    with pytest.raises(WeightsUnavailableError, match="does not exist"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(("item", "message"), [
    (None, "The item is None, a NoneType; expected a text"),
    (5, "The item is 5, a int; expected a text"),
    (b"hi", r"The item is b'hi', a bytes; expected a text"),
    (LinaItem(None), "The text is None"),
    (LinaItem(3, name="line 2"), "The text of 'line 2' is 3"),
    (LinaItem("Hi.", seed=1.5), "The seed is 1.5, a float; expected a whole number"),
    (LinaItem("Hi.", seed="a"), "The seed is 'a', a str"),
    (LinaItem("Hi.", seed=True), "The seed is True, a bool"),
    (LinaItem("Hi.", voice=5), "The voice is 5, a int"),
])  # fmt: skip
def test_what_is_no_item_is_refused(folder: Path, item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder).predict(item)


@pytest.mark.parametrize("items", ["Hi", b"Hi", 5, None, LinaItem("Hi")])
def test_what_is_no_list_of_items_is_refused(folder: Path, items: Any) -> None:
    with pytest.raises(InputError, match="expected a list of texts"):
        load(folder).predict_batch(items)


def test_a_seed_may_be_numpys(folder: Path) -> None:
    result = load(folder).predict(LinaItem("Hi.", seed=np.int64(3)))
    assert json.loads(json.dumps(result.to_json()))["seed"] == 3


def test_a_session_refuses_the_same(folder: Path) -> None:
    predictor = load(folder)
    with pytest.raises(InputError, match=r"seed is 1\.5"):
        predictor.open_session(seed=1.5)
    with pytest.raises(InputError, match="voice is 5"):
        predictor.open_session(5)


def test_the_options_given_are_not_changed(folder: Path) -> None:
    options = LinaInferOptions(temperature=0.5)
    predictor = LinaPredictor.from_pretrained(folder, device="cpu", options=options, top_k=5)
    assert (predictor.options.temperature, predictor.options.top_k, options.top_k) == (0.5, 5, None)
    assert CODEC.codebooks == 3
    assert predictor.codec.codebooks == 2


def test_other_choices_share_the_model(folder: Path) -> None:
    predictor = load(folder)
    other = predictor.with_options(temperature=0.0, voice="slt", top_k=None)
    assert other.model is predictor.model
    assert (other.sampling.temperature, other.sampling.top_k, predictor.sampling.temperature) == (0.0, 100, 1.0)
    expected = load(folder, temperature=0.0, voice="slt").predict(TEXT)
    assert np.array_equal(other.predict(TEXT).samples, expected.samples)
    assert predictor.predict(TEXT).voice == "awb"
    with pytest.raises(InputError, match="temperature is -1"):
        predictor.with_options(temperature=-1.0)


def test_the_checkpoint_says_how_long_a_sentence_may_be(tmp_path: Path) -> None:
    text = "The small boat crossed the wide river before the sun had come up over the hills."
    short = save(tmp_path / "short", stored(speaking={"max_characters": 40}))
    predictor = load(short, max_seconds=0.1)
    parts = [sentence.text for sentence in predictor.predict(text).sentences]
    assert " ".join(parts) == text
    assert max(map(len, parts)) <= 40
    with predictor.open_session() as session:
        list(session.feed(text))
        list(session.flush())
        assert [sentence.text for sentence in session.sentences] == parts
    assert len(predictor.with_options(max_characters=200).predict(text).sentences) == 1
    assert len(load(save(tmp_path / "free"), max_seconds=0.1).predict(text).sentences) == 1
    with pytest.raises(InputError, match="max_characters is 10, expected a whole number of at least 20"):
        load(save(tmp_path / "wrong", stored(speaking={"max_characters": 10})))


def test_a_model_with_its_own_codec_loads_no_other_one(folder: Path) -> None:
    code = (
        "import sys\nfrom mmattn.speech.lina.predictor import LinaPredictor\n"
        f"LinaPredictor.from_pretrained({str(folder)!r}, device='cpu')\n"
        "print(*(n for n in sys.modules if n.startswith('mmattn.speech.lina.codec.') or n == 'transformers'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("mmattn.speech.lina.codec.") for name in result.stdout.split()}
    assert "embedded" in loaded
    assert not loaded & {"wavtokenizer", "seanet", "transformers"}
