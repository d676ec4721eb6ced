"""The delay pattern and its inverse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.speech.lina.network.delay import delay, to_codes, to_tokens, undelay
from tests.speech.lina.tiny import some_codes


def test_one_codebook_gets_a_start_and_an_end() -> None:
    assert delay(torch.tensor([[5, 6]])).tolist() == [[1, 5, 6, 2]]


def test_three_codebooks_run_behind_each_other() -> None:
    assert delay(torch.tensor([[5, 6], [7, 8], [9, 10]])).tolist() == [
        [1, 5, 6, 2, 2, 2],
        [1, 1, 7, 8, 2, 2],
        [1, 1, 1, 9, 10, 2],
    ]


@given(codebooks=st.integers(1, 5), frames=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_undelaying_gives_the_codes_back_with_their_first_frame(codebooks: int, frames: int) -> None:
    codes = some_codes(frames, codebooks)
    pattern = delay(to_tokens(codes))
    assert torch.equal(to_codes(undelay(pattern, frames, first=1)), codes)
    # Generated tokens have no start column; nothing may get lost at their beginning.
    assert torch.equal(to_codes(undelay(pattern[:, 1:], frames, first=0)), codes)


def test_the_published_reading_of_generated_tokens_loses_the_first_frame() -> None:
    codes = some_codes(5)
    generated = delay(to_tokens(codes))[:, 1:]
    assert torch.equal(to_codes(undelay(generated, 4, first=1)), codes[:, 1:])


def test_too_few_columns_are_an_error() -> None:
    with pytest.raises(ValueError, match="5 frames of 2 codebooks need 7 columns, got 6"):
        undelay(torch.zeros(2, 6, dtype=torch.long), 5, first=1)
