"""Batches of utterances."""

import pytest
import torch

from mmattn.errors import InputError
from mmattn.speech.lina.network.batch import TextAndCodes, collate, pad_texts
from mmattn.speech.lina.network.delay import delay
from tests.speech.lina.tiny import some_codes, text_ids, utterances


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
