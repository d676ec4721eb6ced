from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.evaluation.scores import (
    Judged,
    Judges,
    SpeechScores,
    clone_similarity,
    format_table,
    judge_utterances,
    open_judges,
    similarity_table,
    spoken_words,
)
from mmattn.speech.lina.judges.recogniser import Recogniser
from mmattn.speech.lina.judges.speaker import Embedding
from mmattn.speech.lina.judges.watchdog import AlignmentReport

pytest.importorskip("pocketsphinx")

TEXTS = ("The two cats sat.", "No garden was quiet.", "He painted a boat.")
TRAINING = frozenset(["the", "two", "cats", "no", "was", "he", "a"])
WAVE = np.zeros(16_000, np.float32)


class Dictated(Recogniser):
    """Hears what it is told, so that the scores can be worked out by hand."""

    def __init__(self, transcripts: Sequence[str]) -> None:
        super().__init__({word for text in TEXTS for word in spoken_words(text)} | {"too"}, num_distractors=3)
        self._transcripts = iter(transcripts)

    def transcribe(self, wave: object, sample_rate: int) -> list[str]:
        return next(self._transcripts).split()


class Listener:
    """Knows a voice by the first sample."""

    def embed(self, wave: np.ndarray, sample_rate: int) -> Embedding:
        return np.eye(4, dtype=np.float32)[int(wave[0])]


def report(**changes: object) -> AlignmentReport:
    facts = {"monotonic": 1.0, "coverage": 1.0, "skipped": (), "repeated": (), "reached_end": True} | changes
    return AlignmentReport(**facts)  # type: ignore[arg-type]


def judge(transcripts: Sequence[str], items: Sequence[Judged]) -> SpeechScores:
    return judge_utterances(items, Judges(Dictated(transcripts)), seen_words=TRAINING)


@pytest.fixture(scope="module")
def scores() -> SpeechScores:
    items = [
        Judged(TEXTS[0], WAVE, 16_000, "anna", 1.0, report()),
        Judged(TEXTS[1], WAVE, 16_000, "anna", 0.8, report(monotonic=0.98, repeated=(1,))),
        Judged(TEXTS[2], WAVE, 16_000, "berta", 0.5, report(skipped=(0,), reached_end=False)),
    ]
    return judge(["the too cats sat", "no garden quiet", "he painted a sat boat"], items)


def test_words_are_those_a_reader_says() -> None:
    assert spoken_words("Dr. Smith's 2 dogs!") == ["doctor", "smith's", "two", "dogs"]


def test_error_rates_and_recalls_are_those_worked_out_by_hand(scores: SpeechScores) -> None:
    total = scores.total
    assert (total.sentences, total.seconds) == (3, 3.0)
    assert total.wer == pytest.approx(2 / 12)  # "was" is missing, "sat" too much; "too" is "two" to the ear
    assert total.cer == pytest.approx((4 + 4) / (16 + 19 + 17))
    assert (total.seen_words, total.unseen_words) == (7, 5)
    assert total.seen_recall == pytest.approx(6 / 7)
    assert total.unseen_recall == 1.0


def test_alignments_and_durations_are_shares_of_sentences(scores: SpeechScores) -> None:
    total = scores.total
    assert total.monotonic == pytest.approx(2 / 3)
    assert total.forward_steps == pytest.approx((1 + 0.98 + 1) / 3)
    assert total.complete == pytest.approx(1 / 3)
    assert total.reached_end == pytest.approx(2 / 3)
    assert total.in_time == pytest.approx(2 / 3)  # ratios 1, 1.25, 2
    assert total.duration_ratio == pytest.approx(1.25)


def test_voices_are_scored_apart(scores: SpeechScores) -> None:
    assert list(scores.by_voice) == ["anna", "berta"]
    assert scores.by_voice["berta"].wer == pytest.approx(1 / 4)


def test_chance_is_the_rate_against_other_texts(scores: SpeechScores) -> None:
    assert scores.chance_wer == pytest.approx((4 + 4 + 4) / 12)
    assert scores.chance_cer > 0.5


def test_chance_is_not_defined_for_one_text() -> None:
    item = Judged(TEXTS[0], WAVE, 16_000, "anna")
    alone = judge(["the two cats sat"] * 2, [item, item])
    assert np.isnan(alone.chance_wer)
    assert alone.to_json()["chance"] == {"wer": None, "cer": None}


def test_scores_become_json_and_a_table_without_what_nobody_judged(scores: SpeechScores) -> None:
    written = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert written["total"]["wer"] == 0.1667
    assert written["total"]["similarity"] is None
    assert written["voices"]["berta"]["sentences"] == 1
    assert written["utterances"][0]["heard"] == "the two cats sat"
    head, _, row = format_table({"speech": scores.total}).splitlines()
    assert head.startswith("| | sentences | WER | CER |")
    assert "similarity" not in head
    assert row.startswith("| speech | 3 | 16.7 | 15.4 | 85.7 | 100.0 | 66.7 |")


def test_similarity_is_to_the_voice_that_should_speak() -> None:
    waves = [np.full(16_000, number, np.float32) for number in (0, 1)]
    items = [Judged(TEXTS[0], wave, 16_000, "anna") for wave in waves]
    centroids = {"anna": np.eye(4, dtype=np.float32)[0]}
    judges = Judges(Dictated(["the two cats sat"] * 2), speaker=Listener())  # type: ignore[arg-type]
    scores = judge_utterances(items, judges, seen_words=TRAINING, centroids=centroids)
    assert [score.similarity for score in scores.utterances] == [1.0, 0.0]
    assert scores.total.similarity == 0.5
    judges = Judges(Dictated(["the two cats sat"]), speaker=Listener())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'carla' has no centroid"):
        judge_utterances([Judged(TEXTS[0], WAVE, 16_000, "carla")], judges, seen_words=TRAINING, centroids=centroids)


@pytest.mark.parametrize(("text", "message"), [("The dog sat.", "listen for: dog"), ("...", "no words")])
def test_texts_that_the_recogniser_was_not_opened_for_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judge(["sat"], [Judged(text, WAVE, 16_000, "anna")])


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(InputError, match="no speech"):
        judge([], [])


def test_judges_that_are_missing_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattn.speech.lina.judges.judge.find_spec", lambda package: None)
    judges = open_judges(TEXTS, num_distractors=3)
    assert judges.speaker is None
    assert judges.quality is None
    assert "pip install --no-deps Resemblyzer" in judges.left_out["speaker"]
    assert set(judges.left_out) == {"speaker", "quality"}


def test_a_clone_is_nearest_to_its_own_voice_or_not() -> None:
    east, north, up = np.eye(4, dtype=np.float32)[:3]
    utterances = [east, (east + 2 * north) / 5**0.5, east]
    clone = clone_similarity("anna", utterances, {"berta": north, "anna": east, "carla": up})
    assert list(clone.similarities) == ["anna", "berta", "carla"]
    assert clone.is_nearest
    assert clone.nearest == pytest.approx(2 / 3)
    assert clone.similarities["anna"] == pytest.approx((2 + 1 / 5**0.5) / 3)
    assert not clone_similarity("carla", utterances, {"anna": east, "carla": up}).is_nearest
    assert similarity_table([clone]).splitlines()[-1] == "| anna | 0.816 | berta | 0.298 | 67 % |"
    with pytest.raises(InputError, match="0 utterances of 'anna'"):
        clone_similarity("anna", [], {"anna": east})
