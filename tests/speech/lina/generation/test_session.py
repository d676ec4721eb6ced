from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn.errors import CheckpointError, InputError
from mmattn.media.audio import write_audio
from mmattn.speech.lina.generation.session import AudioChunk, LinaSession
from mmattn.speech.lina.predictor import LinaItem, LinaPredictor
from tests.speech.lina.checkpoint_tiny import CODEC, RATE, hum, save, stored, voice
from tests.speech.lina.codec.tiny import WAVTOKENIZER, wavtokenizer

TEXT = "Dr. Smith was here. Who? A boat and a tree;\nthat is all!\n\n* * *\n\nThe end"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("lina") / "tiny", voices=["slt", "awb"])


def load(folder: Path, **options: Any) -> LinaPredictor:
    fixed = {"max_seconds": 0.6, "retries": 0, "sentences_at_once": 1}
    return LinaPredictor.from_pretrained(folder, device="cpu", **{**fixed, **options})


def joined(chunks: Iterator[AudioChunk]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(chunk.samples for chunk in chunks)])


def stream(session: LinaSession, text: str, size: int) -> np.ndarray:
    pieces = [joined(session.feed(text[i : i + size])) for i in range(0, len(text), size)]
    return np.concatenate([*pieces, joined(session.flush())])


@pytest.mark.parametrize(
    ("size", "options"),
    [(1, {}), (9, {"carry": "state"}), (1000, {}), (1000, {"even_loudness": False, "temperature": 0.0})],
)
def test_the_chunks_are_the_offline_result_bit_for_bit(folder: Path, size: int, options: dict[str, Any]) -> None:
    predictor = load(folder, **options)
    offline = predictor.predict(LinaItem(TEXT, seed=5))
    session = predictor.open_session(seed=5)
    np.testing.assert_array_equal(stream(session, TEXT, size), offline.samples)
    result = session.result()
    np.testing.assert_array_equal(result.samples, offline.samples)
    assert [s.to_json() for s in result.sentences] == [s.to_json() for s in offline.sentences]
    assert all(
        np.array_equal(a.alignment, b.alignment) for a, b in zip(result.sentences, offline.sentences, strict=True)
    )
    assert (result.text, result.skipped, result.voice) == (TEXT, ("* * *",), "awb")


def test_sentences_generated_together_stream_the_same(folder: Path) -> None:
    predictor = load(folder, sentences_at_once=8)
    np.testing.assert_array_equal(stream(predictor.open_session("slt"), TEXT, 20),
                                  predictor.predict(LinaItem(TEXT, "slt")).samples)  # fmt: skip


def test_a_codec_without_a_finite_receptive_field_streams_its_windowed_decode(tmp_path: Path) -> None:
    codec = wavtokenizer()
    lina = stored(num_codebooks=1, codebook_size=32, codec="wavtokenizer", codec_options=WAVTOKENIZER.to_dict())
    lina = replace(lina, part=dict(codec.state_dict()))
    # 100 frames a second; long enough for several windows.
    predictor = load(save(tmp_path / "wav", lina), max_seconds=2.5, duration_ratio=50.0, even_loudness=False)
    with torch.no_grad():
        offline = predictor.predict(TEXT)
    np.testing.assert_array_equal(stream(predictor.open_session(), TEXT, 30), offline.samples)
    assert codec.context is None


def test_a_recording_that_is_continued_streams_the_same(folder: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "ref.wav", hum(1.5), RATE)
    predictor = load(folder, prompt=str(tmp_path / "ref.wav"), prompt_text="Hello from here")
    offline = predictor.predict(TEXT)
    np.testing.assert_array_equal(stream(predictor.open_session(), TEXT, 12), offline.samples)


def test_a_sentence_waits_for_its_end(folder: Path) -> None:
    session = load(folder).open_session()
    assert list(session.feed("Hello the")) == []
    assert session.first_audio_seconds is None
    assert list(session.feed("re.")) == []
    assert len(list(session.feed(" And")))
    assert [sentence.text for sentence in session.sentences] == ["Hello there."]
    assert list(session.flush())
    assert [sentence.text for sentence in session.sentences] == ["Hello there.", "And"]


def test_the_first_chunk_comes_before_the_end_and_its_delay_is_measured(folder: Path) -> None:
    predictor, text = load(folder), "A sentence of some length is spoken here. "
    seed = max(range(8), key=lambda seed: predictor.predict(LinaItem(text, seed=seed)).seconds)
    session = predictor.open_session(seed=seed)
    chunks = session.feed(text)
    first = next(chunks)
    assert session.sentences == []
    assert first.sample_rate == RATE
    assert len(first.samples) == 5 * CODEC.hop
    assert session.first_audio_seconds == first.seconds_since_feed > 0
    rest = list(chunks)
    assert len(session.sentences) == 1
    times = [first.seconds_since_feed, *(chunk.seconds_since_feed for chunk in rest)]
    assert times == sorted(times)
    assert session.first_audio_seconds == times[0]


def test_chunks_that_were_not_taken_come_with_the_next_call(folder: Path) -> None:
    predictor = load(folder)
    session = predictor.open_session()
    first = next(session.feed("One sentence here. Two sentences here. "))
    rest = joined(session.flush())
    whole = predictor.predict("One sentence here. Two sentences here. ").samples
    np.testing.assert_array_equal(np.concatenate([first.samples, rest]), whole)


def test_feeding_counts_even_if_no_chunk_is_taken(folder: Path) -> None:
    session = load(folder).open_session()
    session.feed("One sentence. ")
    assert len(list(session.feed("")))
    assert [sentence.text for sentence in session.sentences] == ["One sentence."]


def test_a_runaway_sentence_is_cut_and_reported(folder: Path) -> None:
    predictor = load(folder, max_seconds=0.03, retries=3)
    session = predictor.open_session()
    samples = joined(session.feed("It goes on and on and on. "))
    assert len(samples) == 2 * CODEC.hop
    (sentence,) = session.sentences
    assert not sentence.finished
    assert sentence.retries == 0
    assert "did not stop" in sentence.problems


def test_symbols_are_left_out_and_a_text_of_nothing_else_gives_no_sound(folder: Path) -> None:
    session = load(folder).open_session()
    assert list(session.feed("*** --- \u4f60\u597d\u3002 ")) == []
    assert list(session.flush()) == []
    assert len(session.skipped)
    with pytest.raises(InputError, match="Nothing has been spoken in this session yet"):
        session.result()


def test_a_closed_session_speaks_no_more_but_keeps_its_result(folder: Path) -> None:
    with load(folder).open_session() as session:
        spoken = joined(session.feed("One. "))
        chunks = session.feed("Two. ")
    assert list(chunks) == []
    np.testing.assert_array_equal(session.result().samples, spoken)
    for call in (lambda: session.feed("Three."), session.flush):
        with pytest.raises(InputError, match="session is closed"):
            call()


def test_what_is_no_text_leaves_the_session_as_it_was(folder: Path) -> None:
    session = load(folder).open_session()
    chunks = [*session.feed("One. Tw")]
    for wrong in (None, 5, b"o"):
        with pytest.raises(InputError, match=r"What was fed is .*; expected a text"):
            session.feed(wrong)
    chunks += [*session.feed("o."), *session.flush()]
    assert session.result().text == "One. Two."
    assert [sentence.text for sentence in session.sentences] == ["One.", "Two."]
    assert session.planned_tokens == 6 + 6


def test_sessions_do_not_disturb_each_other(folder: Path) -> None:
    predictor = load(folder)
    sessions = [predictor.open_session(seed=seed) for seed in (0, 1)]
    streams = [session.feed("One two three four. Five six. ") for session in sessions]
    pieces: list[list[np.ndarray]] = [[], []]
    waiting = [0, 1]
    while waiting:
        for number in list(waiting):
            chunk = next(streams[number], None)
            if chunk is None:
                waiting.remove(number)
            else:
                pieces[number].append(chunk.samples)
    for seed in (0, 1):
        expected = predictor.predict(LinaItem("One two three four. Five six. ", seed=seed)).samples
        np.testing.assert_array_equal(np.concatenate(pieces[seed]), expected)


def test_the_callers_gradients_stay_as_they_are(folder: Path) -> None:
    for _ in load(folder).open_session().feed("One. Two. "):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_what_cannot_be_streamed_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="candidates is 2"):
        load(folder, candidates=2).open_session()
    with pytest.raises(InputError, match="no voice 'nobody'"):
        load(folder).open_session("nobody")
    with pytest.raises(CheckpointError, match="was made for model"):
        load(folder).open_session(voice(stored(seed=1)))
    with pytest.raises(InputError, match="seed is -3"):
        load(folder).open_session(seed=-3)
