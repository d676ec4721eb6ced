"""One utterance's columns: what is put in, when it ends, what is complete."""

import torch
from torch import Tensor

from mmattn.speech.lina.generation.utterance import Utterance
from mmattn.speech.lina.network.batch import END, START, to_tokens
from tests.speech.lina.tiny import some_codes


def utterance(prompt: int = 0, limit: int = 10, codebooks: int = 3, *, free_running: bool = False) -> Utterance:
    tokens = to_tokens(some_codes(prompt, codebooks))
    return Utterance(tokens, prompt + limit, torch.Generator(), 4, free_running)


def say(item: Utterance, *tokens: int) -> Tensor:
    """Adds a column that was drawn so and returns what it became."""
    column = torch.tensor(tokens)
    item.put_in(column)
    item.append(column, column.tolist(), torch.ones(item.text_length))
    return column


def test_before_the_first_frame_are_starts_and_after_the_last_one_ends() -> None:
    item = utterance()
    assert say(item, 5, 6, 7).tolist() == [5, START, START]
    assert say(item, 5, 6, 7).tolist() == [5, 6, START]
    assert say(item, END, 6, 7).tolist() == [END, 6, 7]
    assert (item.end, item.closed) == (2, False)
    assert say(item, 5, 6, 7).tolist() == [END, END, 7]
    assert item.closed
    assert item.codes().tolist() == [[2, 2], [3, 3], [4, 4]]


def test_a_prompt_is_put_in_frame_by_frame_and_is_not_part_of_the_codes() -> None:
    item = utterance(prompt=2, codebooks=2)
    columns = [say(item, 9, 8).tolist() for _ in range(4)]
    prompt = item.prompt.tolist()
    assert columns == [[prompt[0][0], START], [prompt[0][1], prompt[1][0]], [9, prompt[1][1]], [9, 8]]
    assert item.frames == 1
    assert item.codes().tolist() == [[6], [5]]
    assert item.codes(1).shape == (2, 0)


def test_an_utterance_without_an_end_is_cut_and_its_last_frame_completed() -> None:
    item = utterance(limit=2, codebooks=2)
    for _ in range(3):
        say(item, 9, 8)
    assert item.closed
    assert item.end is None
    assert item.codes().shape == (2, 2)
    assert item.columns[-1].tolist() == [END, 8]


def test_the_first_codebook_may_end_after_the_prompt_and_the_fewest_frames() -> None:
    item = utterance(prompt=1, codebooks=2)
    assert [item.may_end(1), say(item, 9, 9) is not None, item.may_end(1)] == [False, True, False]
    say(item, 9, 9)
    assert item.may_end(1)
    assert not item.may_end(2)


def test_a_free_running_utterance_is_what_the_model_says_and_ends_when_all_codebooks_do() -> None:
    item = utterance(codebooks=2, free_running=True)
    assert say(item, 5, 6).tolist() == [5, 6]
    say(item, END, 6)
    assert (item.end, item.closed) == (None, False)
    say(item, END, END)
    assert (item.end, item.closed, item.frames) == (1, True, 1)
