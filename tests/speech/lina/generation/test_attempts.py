from typing import Any

import pytest
import torch

from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.attempts import PlannedText, speak_texts
from mmattn.speech.lina.generation.speaker import Beginning, Speaker, SpokenSentence
from mmattn.speech.lina.text.planning import PlannedSentence
from tests.speech.lina.generation.planned import FRAMES, NoTokenizer, planned
from tests.speech.lina.tiny import ScriptedModel, some_codes, tiny_config


def scripted(*, seconds_per_token: float = 0.2, max_seconds: float = 9.0, **options: Any) -> Speaker:
    """A speaker that says as many frames as the first id of a sentence tells, at 10 frames a second."""
    run = LinaInferOptions(seconds_per_token=seconds_per_token, max_seconds=max_seconds, **options)
    return Speaker(ScriptedModel(tiny_config()), FRAMES, NoTokenizer(), run)


def speak(
    speaker: Speaker, *texts: list[PlannedSentence], beginning: Beginning | None = None
) -> list[list[SpokenSentence]]:
    return speak_texts(speaker, [PlannedText(sentences, beginning or Beginning(), 0) for sentences in texts])


def test_sentences_of_several_items_come_back_in_order() -> None:
    items = [[planned(0, 9, 5), planned(1, 4, 5), planned(2, 12, 5)], [planned(0, 7, 5)]]
    spoken = speak(scripted(retries=0, sentences_at_once=3), *items)
    assert [[s.codes.shape[1] for s in item] for item in spoken] == [[9, 4, 12], [7]]
    assert [[s.plan.place for s in item] for item in spoken] == [[0, 1, 2], [0]]
    assert torch.equal(spoken[0][2].codes, some_codes(12, seed=12))
    assert all(s.finished and s.state is None for item in spoken for s in item)


def test_a_runaway_is_cut_whatever_it_is_spoken_with() -> None:
    # The first is expected to last 0.4 s and cut at 2 s, which the second is allowed to exceed.
    items = [[planned(0, 19, 5), planned(1, 15, *[5] * 12)]]
    first, second = speak(scripted(retries=0, seconds_per_token=0.1), *items)[0]
    assert (first.codes.shape[1], first.finished) == (15, False)
    assert first.alignment.shape == (15, 4)
    assert "did not stop" in first.problems
    assert (second.codes.shape[1], second.finished) == (15, True)


def test_a_failure_is_retried_as_often_as_allowed_and_told() -> None:
    speaker = scripted(retries=3, max_seconds=0.5)
    (sentence,) = speak(speaker, [planned(0, 9, 5)])[0]
    assert sentence.retries == 3
    assert not sentence.finished
    assert speaker.model.texts_read == 4


def test_without_randomness_nothing_is_tried_again() -> None:
    for options in ({"temperature": 0.0}, {"top_k": 1}, {"sampled_codebooks": 0}):
        speaker = scripted(retries=3, max_seconds=0.5, **options)
        (sentence,) = speak(speaker, [planned(0, 9, 5)])[0]
        assert sentence.retries == 0


def test_candidates_are_made_at_once_and_do_not_count_as_retries() -> None:
    speaker = scripted(retries=0, candidates=3)
    (sentence,) = speak(speaker, [planned(0, 9, 5)])[0]
    assert sentence.retries == 0
    assert speaker.model.texts_read == 1


def test_a_state_is_carried_and_a_cut_sentence_begins_again_from_the_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = scripted(retries=0, carry="state", max_seconds=1.0)
    begun: list[Any] = []
    make = Speaker.request

    def note(self: Speaker, plan: PlannedSentence, beginning: Beginning, seed: int) -> Any:
        begun.append(beginning.state)
        return make(self, plan, beginning, seed)

    monkeypatch.setattr(Speaker, "request", note)
    voice = speaker.model.initial_state(1)
    items = [[planned(0, 5, 5), planned(1, 19, 5), planned(2, 5, 5)]]
    spoken = speak(speaker, *items, beginning=Beginning(voice))[0]
    assert [s.finished for s in spoken] == [True, False, True]
    assert begun[0] is voice
    assert begun[1] is not voice
    assert int(begun[1].position) == 0
    assert begun[2] is voice
