"""Handlers of the Lina app, called as plain functions, and the page built without starting it."""

import gc
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from mmattn.errors import CheckpointError, InputError, MediaError
from mmattn.media.audio import SYNTHETIC_SPEECH, read_audio, read_comment
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices import cloning
from mmattn.ui.hub import build_hub
from mmattn.ui.lina.app import _finished, build_app, preselected
from mmattn.ui.lina.speak import MAX_CHARACTERS, Settings, choose_seed, speak, to_wav
from mmattn.ui.lina.view import SENTENCES, model_line, numbers_html, recordings_html
from mmattn.ui.lina.voices import OWN_VOICE, Visit, clone, voice_choices, voice_of
from mmattn.ui.notices import as_notices
from tests.speech.lina.tiny_folder import write_model, write_recording

STATEMENT = "I, Anna, agree."
SETTINGS = Settings(temperature=1.0, top_k=0, seed=3)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LinaPredictor:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return LinaPredictor.from_pretrained(folder, device="cpu").with_options(max_seconds=2.0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> LinaPredictor:
    return LinaPredictor.from_pretrained(write_model(tmp_path_factory.mktemp("other"), seed=5), device="cpu")


@pytest.fixture
def wave_file(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "one.wav", "Hello there my friend.", 1.5)


@pytest.fixture
def cloned(predictor: LinaPredictor, wave_file: Path, monkeypatch: pytest.MonkeyPatch) -> Visit:
    monkeypatch.setattr(cloning, "_UPDATES", 3)
    visit = Visit()
    visit.record(wave_file, "Hello there my friend.")
    assert clone(predictor, visit, name="Anna S.", consent=STATEMENT, has_agreed=True) == "Anna-S"
    return visit


def said(predictor: LinaPredictor, text: str, voice: Path | None = None, settings: Settings = SETTINGS) -> Any:
    *sounds, (_, spoken) = speak(predictor, text, voice, settings)
    return [sound for sound, _ in sounds], spoken


def test_streamed_sound_is_the_recording_which_says_that_it_is_synthetic(predictor: LinaPredictor):
    sounds, spoken = said(predictor, "  Hello there. All is well. ")
    streamed = np.concatenate([read_audio(io.BytesIO(sound), allow_silence=True).samples for sound in sounds])
    np.testing.assert_allclose(streamed, np.clip(spoken.result.samples, -1, 1), atol=1e-4)
    assert spoken.first_audio > 0
    wav, facts, picture = spoken.files
    assert [path.name for path in spoken.files] == ["speech.wav", "speech.json", "speech.png"]
    assert read_comment(wav) == SYNTHETIC_SPEECH
    assert json.loads(facts.read_text())["seed"] == 3
    assert picture.stat().st_size > 1000


def test_chunks_are_short_at_first_and_a_second_later(predictor: LinaPredictor):
    lengths = [read_audio(io.BytesIO(sound), allow_silence=True).seconds for sound in said(predictor, "Hi. " * 4)[0]]
    assert lengths[0] < 0.6
    assert all(1.0 <= length < 2.1 for length in lengths[1:-1])


def test_a_seed_repeats_and_settings_reach_the_model(predictor: LinaPredictor):
    first = said(predictor, "Hello there.")[1].result.samples
    np.testing.assert_array_equal(said(predictor, "Hello there.")[1].result.samples, first)
    cold = said(predictor, "Hello there.", settings=Settings(0.0, 0, 3))[1].result.samples
    colder = said(predictor, "Hello there.", settings=Settings(0.0, 0, 4))[1].result.samples
    np.testing.assert_array_equal(cold, colder)
    assert not np.array_equal(cold, first[: len(cold)])
    assert predictor.sampling.temperature == 1.0


def test_words_that_were_left_out_are_told(predictor: LinaPredictor, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", told.append)
    _, spoken = said(predictor, "Hello \u732b there.")
    (sentence,) = spoken.result.sentences
    for finished, problems in ((True, ()), (True, ("skipped words",)), (False, ("did not stop", "skipped words"))):
        sentences = (replace(sentence, finished=finished, problems=problems),)
        _finished(replace(spoken, result=replace(spoken.result, sentences=sentences)), "tiny")
    left_out = "Left out, as nobody can say it: \u732b"
    assert told == [
        left_out,
        left_out,
        "Not all of it was read as written: skipped words. Try another seed.",
        left_out,
        "A sentence did not come to an end and was cut. Try another seed.",
    ]


def test_files_of_a_forgotten_text_are_removed(predictor: LinaPredictor):
    _, spoken = said(predictor, "Hi.")
    folder = spoken.folder
    assert folder.is_dir()
    del spoken
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to say"),
        (" \n ", "nothing to say"),
        ("*** !!!", "nothing in this text that can be spoken"),
        ("こんにちは", "nothing in this text that can be spoken"),
        ("a" * (MAX_CHARACTERS + 1), "2001 characters"),
        ("9" * MAX_CHARACTERS, "Read out, the text has 10080 characters or sounds; this page takes up to 4000"),
    ],
)
def test_a_text_that_cannot_be_spoken_is_a_notice(predictor: LinaPredictor, text: str, message: str):
    with pytest.raises(gr.Error, match=message), as_notices():
        list(speak(predictor, text, None, SETTINGS))


def test_a_visitor_who_leaves_ends_the_session(predictor: LinaPredictor, monkeypatch: pytest.MonkeyPatch):
    sessions = []
    monkeypatch.setattr(
        LinaPredictor, "open_session", lambda *args, _open=LinaPredictor.open_session, **kwargs: sessions.append(
            _open(*args, **kwargs)) or sessions[-1]
    )  # fmt: skip
    speaking = speak(predictor, "Hello there. All is well.", None, SETTINGS)
    next(speaking)
    speaking.close()
    with pytest.raises(InputError, match="closed"):
        sessions[0].feed("more")


def test_sound_is_written_as_16_bits_and_clipped():
    sound = read_audio(io.BytesIO(to_wav(np.array([0.0, 0.5, 3.0, -3.0], np.float32), 8000)))
    assert sound.sample_rate == 8000
    np.testing.assert_allclose(sound.samples, [0, 0.5, 1, -1], atol=1e-4)


def test_a_seed_is_a_whole_number_or_drawn():
    assert choose_seed(7.0, is_random=False) == 7
    drawn = {choose_seed(None, is_random=True) for _ in range(5)}
    assert len(drawn) == 5
    for wrong in (float("nan"), float("inf"), None, -1, 2.5, 2**31):
        with pytest.raises(InputError, match="whole number"):
            choose_seed(wrong, is_random=False)


def test_a_clone_joins_the_choice_of_voices_and_speaks(predictor: LinaPredictor, cloned: Visit):
    choices = voice_choices(predictor, cloned)
    assert choices == [("Anna-S · yours", "yours:Anna-S"), ("slt", "slt")]
    file = voice_of(predictor, cloned, "yours:Anna-S")
    assert file.suffix == ".safetensors"
    voice = predictor.load_voice(file)
    assert (voice.consent, voice.name) == (STATEMENT, "Anna S.")
    _, spoken = said(predictor, "Hello.", file)
    assert spoken.result.voice == "Anna S."
    assert preselected(predictor, choices) == "slt"


def test_a_clone_reports_how_far_it_is(predictor: LinaPredictor, wave_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cloning, "_UPDATES", 3)
    visit, steps = Visit(), []
    visit.record(wave_file, "Hello there my friend.")
    clone(predictor, visit, name="a", consent="b", has_agreed=True, report=lambda *step: steps.append(step[:2]))
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"has_agreed": False}, "consent only"),
        ({"consent": "  "}, "consent only"),
        ({"name": " "}, "Give the voice a name"),
    ],
)
def test_nothing_is_cloned_without_consent_and_name(
    predictor: LinaPredictor, wave_file: Path, changes: dict[str, Any], message: str
):
    visit = Visit()
    visit.record(wave_file, "Hello there my friend.")
    with pytest.raises(InputError, match=message):
        clone(predictor, visit, **{"name": "anna", "consent": STATEMENT, "has_agreed": True, **changes})
    assert visit.voices == {}


def test_nothing_is_cloned_from_nothing(predictor: LinaPredictor):
    for visit in (None, Visit()):
        with pytest.raises(InputError, match="no recordings yet"):
            clone(predictor, visit, name="anna", consent=STATEMENT, has_agreed=True)


def test_recordings_that_cannot_be_used_are_refused(tmp_path: Path, wave_file: Path):
    visit = Visit()
    for audio, text, message in (
        (None, "Hello", "no recording yet"),
        (wave_file, " ", "Write what is said"),
        (wave_file, "a" * 601, "601 characters"),
        (write_recording(tmp_path / "short.wav", None, 0.2), "Hi", r"lasts 0\.20 s"),
    ):
        with pytest.raises(InputError, match=message):
            visit.record(audio, text)
    (tmp_path / "torn.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(MediaError, match=r"torn\.wav"):
        visit.record(tmp_path / "torn.wav", "Hello")
    with pytest.raises(MediaError, match="the limit is 30 s"):
        visit.record(write_recording(tmp_path / "long.wav", None, 31.0), "Hello")
    assert visit.recordings == []


def test_several_files_come_with_their_texts_or_not_at_all(tmp_path: Path):
    files = []
    for name in ("a", "b"):
        files += [write_recording(tmp_path / f"{name}.wav", f"This is {name}."), tmp_path / f"{name}.txt"]
    visit = Visit()
    assert visit.record_files(files) == 2
    assert [item.text for item in visit.recordings] == ["This is a.", "This is b."]
    with pytest.raises(InputError, match=r"b\.wav has no text"):
        visit.record_files(files[:3])
    with pytest.raises(InputError, match="no recording among"):
        visit.record_files([files[1]])
    for content, message in ((b" ", "has no text in it"), (b"caf\xe9", "is not UTF-8")):
        (tmp_path / "b.txt").write_bytes(content)
        with pytest.raises(InputError, match=message):
            visit.record_files(files)
    assert len(visit.recordings) == 2


def test_a_voice_file_can_be_brought_if_it_fits(predictor: LinaPredictor, other: LinaPredictor, tmp_path: Path):
    visit = Visit()
    assert visit.add_voice(predictor, predictor.voices["slt"]) == "slt"
    assert visit.add_voice(predictor, predictor.voices["slt"]) == "slt-2"
    assert [value for _, value in voice_choices(predictor, visit)] == ["yours:slt", "yours:slt-2", "slt"]
    with pytest.raises(CheckpointError, match="was made for model"):
        visit.add_voice(predictor, other.voices["slt"])
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged or no voice"):
        visit.add_voice(predictor, tmp_path / "no.safetensors")


def test_a_voice_is_offered_to_its_own_model_only(predictor: LinaPredictor, other: LinaPredictor, cloned: Visit):
    assert voice_choices(other, cloned) == [("slt", "slt")]
    for choice in ("yours:Anna-S", "nobody", "/etc/passwd"):
        with pytest.raises(InputError, match="has no voice"):
            voice_of(other, cloned, choice)
    assert voice_of(predictor, None, OWN_VOICE) is None
    assert voice_of(predictor, None, "slt") == predictor.voices["slt"]


def test_what_a_visitor_left_is_removed_with_the_visit(cloned: Visit):
    folder = Visit().folder
    gc.collect()
    assert not folder.exists()
    assert cloned.folder.is_dir()


def test_lines_of_the_page_are_escaped():
    assert "&lt;b&gt; <small>(2.0 s)" in recordings_html([("<b>", 2.0)])
    line = numbers_html(seconds=2.0, rtf=0.25, first_audio=None, seed=5, voice="<i>", model="m")
    assert "2.0 s" in line
    assert "real-time factor 0.25" in line
    assert "first sound" not in line
    assert "&lt;i&gt;" in line


def test_the_sentences_to_read_are_a_minute_and_hold_every_letter():
    assert 800 < sum(map(len, SENTENCES)) < 1000
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(" ".join(SENTENCES).lower())


@pytest.mark.parametrize("program", ["/usr/bin/ffmpeg", None])
def test_without_ffmpeg_the_page_says_so_and_streams_nothing(
    predictor: LinaPredictor, program: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "which", lambda name: program)
    app = build_app({"tiny": predictor})
    streams = [block for block in app.blocks.values() if isinstance(block, gr.Audio) and block.streaming]
    texts = [str(getattr(block, "value", "")) for block in app.blocks.values()]
    assert len(streams) == (program is not None)
    assert any("ffmpeg" in text for text in texts) == (program is None)


def test_the_page_names_its_model_and_its_one_public_endpoint(predictor: LinaPredictor):
    app = build_app({"tiny": predictor})
    assert {f.api_name for f in app.fns.values() if f.api_visibility == "public"} == {"speak"}
    texts = [str(getattr(block, "value", "")) for block in app.blocks.values()]
    assert any("**tiny**" in text and "8 kHz" in text for text in texts)
    assert any("Synthetic speech." in text for text in texts)


def test_the_hub_shows_it(predictor: LinaPredictor):
    hub = build_hub({"Lina": build_app({"tiny": predictor})})
    labels = [getattr(block, "label", None) for block in hub.blocks.values()]
    assert "Lina" in labels
    assert "Clone a voice" in labels


def test_a_model_is_described_in_words():
    line = model_line("mine", parameters=3_600_000, sample_rate=16_000, tokenizer="gruut")
    assert line == "**mine**: 3.6 million parameters, text as phonemes (gruut), sound at 16 kHz."
