"""The blind cross-attention and its alternatives: masks, maps, and what each may see."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.speech.lina.network.cross_attention import CrossAttention, TextMemory, attend, cross_mask
from mmattn.speech.lina.network.multihead_cross import LEARNED_POSITIONS
from tests.speech.lina.tiny import tiny_model

KINDS = ["blind", "plain", "two_stage"]


def cross(kind: str, **changes: Any) -> CrossAttention:
    return tiny_model(cross_attention=kind, **changes).decoder.cross


def read(attention: CrossAttention, y: Tensor, memory: TextMemory, mask: Tensor | None = None) -> Tensor:
    start = torch.zeros(len(y), dtype=torch.long)
    out: Tensor = attention(y, memory, attention.initial_state(len(y)), mask=mask, start=start, with_maps=False)[0]
    return out


def test_the_first_token_is_always_visible() -> None:
    text, audio = torch.tensor([[True, True, False]]), torch.tensor([[True, False]])
    assert cross_mask(text, audio).tolist() == [[[True, True, False], [True, False, False]]]
    assert cross_mask(text).tolist() == [[[True, True, False]]]


@pytest.mark.parametrize("masked", [False, True])
def test_asking_for_the_weights_changes_nothing(masked: bool) -> None:
    q, k, v = torch.randn(3, 2, 5, 8)
    mask = torch.rand(2, 5, 5) > 0.4 if masked else None
    if mask is not None:
        mask[..., 0] = True
    plain, none = attend(q, k, v, mask, 0.0, with_weights=False)
    shown, weights = attend(q, k, v, mask, 0.0, with_weights=True)
    assert none is None
    assert weights is not None
    torch.testing.assert_close(shown, plain)
    torch.testing.assert_close(weights @ v, plain)
    assert mask is None or float(weights.masked_select(~mask).abs().sum()) == 0.0


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_maps_are_weights_and_the_padding_gets_none(kind: str, rotary: bool) -> None:
    attention = cross(kind, cross_rotary=rotary)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    memory = attention.remember(torch.randn(2, 6, 16), valid)
    y, start = torch.randn(2, 7, 16), torch.zeros(2, dtype=torch.long)
    out, _, maps = attention(y, memory, attention.initial_state(2), mask=memory.mask, start=start, with_maps=True)
    torch.testing.assert_close(out, read(attention, y, memory, memory.mask))
    assert maps.shape == (2, 1 if kind == "plain" else 2, 7, 6)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:3]))
    assert maps[1, :, :, 4:].abs().max() == 0.0


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_text_is_read_the_same_in_any_batch(kind: str) -> None:
    attention = cross(kind)
    text, y = torch.randn(2, 40, 16), torch.randn(2, 5, 16)
    valid = torch.arange(40)[None] < torch.tensor([[40], [17]])
    memory = attention.remember(text, valid)
    alone = attention.remember(text[1:, :17], None)
    torch.testing.assert_close(read(attention, y, memory, memory.mask)[1:], read(attention, y[1:], alone))


@torch.no_grad()
def test_the_blind_attention_chooses_by_position_alone() -> None:
    attention = cross("blind")
    memory, y = attention.remember(torch.randn(1, 6, 16), None), torch.randn(1, 5, 16)
    k, v, table = memory.tensors
    out = read(attention, y, memory)
    # What is read is linear in the values: they have no part in choosing.
    doubled = read(attention, y, TextMemory((k, 2 * v, table), None))
    torch.testing.assert_close(doubled, 2 * out)
    # Where all positions are alike, nothing can be chosen: everything is read evenly.
    even = read(attention, y, TextMemory((k, v, table[:, :1].expand_as(table)), None))
    torch.testing.assert_close(even, v.mean(dim=1, keepdim=True).expand_as(even))


@torch.no_grad()
def test_given_positions_replace_counting() -> None:
    attention = cross("blind", position="sinusoidal")
    text = torch.randn(1, 4, 16)
    counted, given = attention.remember(text, None), attention.remember(text, None, torch.tensor([[0, 1, 2, 3]]))
    shifted = attention.remember(text, None, torch.tensor([[5, 6, 7, 8]]))
    assert torch.equal(counted.tensors[2], given.tensors[2])
    assert not torch.allclose(counted.tensors[2], shifted.tensors[2])


@torch.no_grad()
def test_rotary_keys_of_plain_attention_know_only_differences() -> None:
    attention = cross("plain", cross_rotary=True)
    text, y = torch.randn(1, 4, 16), torch.randn(1, 3, 16)
    zero, shifted = attention.remember(text, None), attention.remember(text, None, torch.tensor([[7, 8, 9, 10]]))
    outs = [
        attention(y, memory, (), mask=None, start=torch.tensor([start]), with_maps=False)[0]
        for memory, start in ((zero, 0), (shifted, 7), (zero, 7))
    ]
    torch.testing.assert_close(outs[0], outs[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(outs[0], outs[2], atol=1e-4)


def test_two_stage_attention_knows_few_positions() -> None:
    attention = cross("two_stage")
    with pytest.raises(InputError, match=f"text has {LEARNED_POSITIONS + 1} tokens, this model knows 512"):
        attention.remember(torch.zeros(1, LEARNED_POSITIONS + 1, 16), None)


def test_dropout_acts_in_training_only() -> None:
    attention = cross("blind", cross_dropout=0.5)
    memory, y = attention.remember(torch.randn(1, 6, 16), None), torch.randn(1, 5, 16)
    assert torch.equal(read(attention, y, memory), read(attention, y, memory))
    attention.train()
    assert not torch.equal(read(attention, y, memory), read(attention, y, memory))
