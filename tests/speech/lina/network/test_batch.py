"""Delayed tokens, and texts and codes put together to padded batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.speech.lina.network.batch import TextAndCodes, collate, delay, pad_texts, to_codes, to_tokens, undelay
from tests.speech.lina.tiny import some_codes, text_ids, utterances


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


def test_texts_and_audio_are_padded_with_zero() -> None:
    items = utterances((5, 4), (3, 7))
    batch = collate(items)
    assert batch.text.shape == (2, 5)
    assert batch.text[1].tolist() == [*items[1].text.tolist(), 0, 0]
    assert batch.text_valid.sum(1).tolist() == [5, 3]
    assert batch.audio.shape == (2, 10, 2)
    assert torch.equal(batch.audio[0, :7].T, delay(items[0].codes + 3))
    assert batch.audio[0, 7:].abs().sum() == 0
    assert batch.audio_valid.sum(1).tolist() == [7, 10]


@pytest.mark.parametrize("shape", [(9,), (1, 9), (1, 1, 9)])
def test_codes_of_one_codebook_come_in_three_shapes(shape: tuple[int, ...]) -> None:
    codes = some_codes(9, 1)
    batch = collate([TextAndCodes(text_ids(3), codes.reshape(shape))])
    assert torch.equal(batch.audio[0, 1:-1, 0], codes[0] + 3)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="no utterances"):
        collate([])
    with pytest.raises(InputError, match="different numbers of codebooks: 1, 2"):
        collate([TextAndCodes(text_ids(3), some_codes(4, 1)), TextAndCodes(text_ids(3), some_codes(4, 2))])
    with pytest.raises(InputError, match=r"codes of 'odd' have shape \(2, 3, 4\)"):
        collate([TextAndCodes(text_ids(3), torch.zeros(2, 3, 4), "odd")])
    with pytest.raises(InputError, match=r"text has shape \(0,\)"):
        pad_texts([torch.empty(0, dtype=torch.long)])


def test_a_batch_moves_as_a_whole() -> None:
    moved = collate(utterances((3, 2))).to("meta")
    assert {tensor.device.type for tensor in moved} == {"meta"}
