from typing import Any

import numpy as np
import pytest
import torch

from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.speaker import Beginning, Speaker, draw_seed
from mmattn.speech.lina.generation.steps import generate
from mmattn.speech.lina.judges.watchdog import Watchdog
from mmattn.speech.lina.text.planning import PlannedSentence
from mmattn.speech.lina.text.tokens import TextTokens
from tests.speech.lina.tiny import ScriptedModel, some_codes, tiny_config, tiny_model


def planned(place: int, *ids: int) -> PlannedSentence:
    tokens = TextTokens(torch.tensor([1, *ids, 2]), [str(i) for i in (1, *ids, 2)], [-1, *range(len(ids)), -1])
    return PlannedSentence(place, " ".join(map(str, ids)), "sentence" if place else "start", tokens)


def scripted(*, seconds_per_token: float = 0.2, max_seconds: float = 9.0, **options: Any) -> Speaker:
    """A speaker that says as many frames as the first id of a sentence tells, at 10 frames a second."""
    watchdog = Watchdog(10.0, seconds_per_token, 2.5, max_seconds)
    return Speaker(ScriptedModel(tiny_config()), watchdog, LinaInferOptions(**options))


def test_sentences_of_several_items_come_back_in_order() -> None:
    items = [[planned(0, 9, 5), planned(1, 4, 5), planned(2, 12, 5)], [planned(0, 7, 5)]]
    spoken = scripted(retries=0, sentences_at_once=3).speak(items, [Beginning(), Beginning()], [0, 0])
    assert [[s.codes.shape[1] for s in item] for item in spoken] == [[9, 4, 12], [7]]
    assert [[s.plan.place for s in item] for item in spoken] == [[0, 1, 2], [0]]
    assert torch.equal(spoken[0][2].codes, some_codes(12, seed=12))
    assert all(s.finished and s.state is None for item in spoken for s in item)


def test_a_runaway_is_cut_whatever_it_is_spoken_with() -> None:
    # The first is expected to last 0.4 s and cut at 2 s, which the second is allowed to exceed.
    items = [[planned(0, 19, 5), planned(1, 15, *[5] * 12)]]
    first, second = scripted(retries=0, seconds_per_token=0.1).speak(items, [Beginning()], [0])[0]
    assert (first.codes.shape[1], first.finished) == (15, False)
    assert first.alignment.shape == (15, 4)
    assert "did not stop" in first.problems
    assert (second.codes.shape[1], second.finished) == (15, True)


def test_a_failure_is_retried_as_often_as_allowed_and_told() -> None:
    speaker = scripted(retries=3, max_seconds=0.5)
    (sentence,) = speaker.speak([[planned(0, 9, 5)]], [Beginning()], [0])[0]
    assert sentence.retries == 3
    assert not sentence.finished
    assert speaker._model.texts_read == 4


def test_without_randomness_nothing_is_tried_again() -> None:
    for options in ({"temperature": 0.0}, {"top_k": 1}, {"sampled_codebooks": 0}):
        speaker = scripted(retries=3, max_seconds=0.5, **options)
        (sentence,) = speaker.speak([[planned(0, 9, 5)]], [Beginning()], [0])[0]
        assert sentence.retries == 0


def test_candidates_are_made_at_once_and_do_not_count_as_retries() -> None:
    speaker = scripted(retries=0, candidates=3)
    (sentence,) = speaker.speak([[planned(0, 9, 5)]], [Beginning()], [0])[0]
    assert sentence.retries == 0
    assert speaker._model.texts_read == 1


def test_the_prompt_is_no_part_of_the_alignment() -> None:
    model = tiny_model()
    speaker = Speaker(model, Watchdog(10.0, 0.2, 2.5, 2.0), LinaInferOptions(retries=0))
    transcript = TextTokens(torch.tensor([1, 7, 8, 9, 2]), list("^abc$"), [-1, 0, 0, 0, -1])
    beginning = Beginning(None, some_codes(6), transcript)
    (sentence,) = speaker.speak([[planned(0, 10, 11)]], [beginning], [0])[0]
    assert sentence.alignment.shape == (sentence.codes.shape[1], 4)
    request = speaker._request(planned(0, 10, 11), beginning, draw_seed(0, 0, 0))
    assert request.text.tolist() == [1, 7, 8, 9, 10, 11, 2]
    whole = generate(model, [request], speaker._generation_options(20))[0].alignment[: len(sentence.alignment)].numpy()
    np.testing.assert_array_equal(sentence.alignment[:, 1:], whole[:, 4:])


def test_a_state_is_carried_and_a_cut_sentence_begins_again_from_the_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = scripted(retries=0, carry="state", max_seconds=1.0)
    begun: list[Any] = []
    make = speaker._request

    def note(plan: PlannedSentence, beginning: Beginning, seed: int) -> Any:
        begun.append(beginning.state)
        return make(plan, beginning, seed)

    monkeypatch.setattr(speaker, "_request", note)
    voice = speaker._model.initial_state(1)
    items = [[planned(0, 5, 5), planned(1, 19, 5), planned(2, 5, 5)]]
    spoken = speaker.speak(items, [Beginning(voice)], [0])[0]
    assert [s.finished for s in spoken] == [True, False, True]
    assert begun[0] is voice
    assert begun[1] is not voice
    assert int(begun[1].position) == 0
    assert begun[2] is voice


def test_every_attempt_has_random_numbers_of_its_own() -> None:
    seeds = {draw_seed(seed, place, attempt) for seed in range(5) for place in range(5) for attempt in range(5)}
    assert len(seeds) == 125
    assert all(0 <= seed < 2**63 for seed in seeds)
