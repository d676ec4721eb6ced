"""A model with weights laid out for steps: what they cost in accuracy, and when they are let go."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.kernels.products import Precision
from mmattn.speech.lina.generation.steps import GenerationOptions, SpeechRequest, generate
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.batch import collate
from tests.speech.lina.tiny import text_ids, tiny_model, utterances

LIGHT: list[Precision] = ["bfloat16", "int8"]
CHANGES: list[dict[str, Any]] = [{}, {"tie_embeddings": True}, {"mixer": "rwkv6"}, {"cross_attention": "plain"}]


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
def stepped(model: LinaModel) -> Tensor:
    """Logits of a batch of two, column by column."""
    batch = collate(utterances((6, 9), (9, 9)))
    memory, state, logits = model.remember(batch.text, batch.text_valid), model.initial_state(2), []
    for column in batch.audio.split(1, dim=1):
        out = model.advance(column, memory, state)
        state = out.state
        logits.append(out.logits)
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.1), ("int8", 0.1)])
@pytest.mark.parametrize(
    "changes", [{}, {"tie_embeddings": True}, {"mixer": "rwkv6"}, {"cross_attention": "plain"}], ids=str
)
def test_a_packed_model_says_nearly_the_same(precision: Precision, error: float, changes: dict[str, Any]) -> None:
    model = tiny_model(**changes)
    wanted, weights = stepped(model), copy.deepcopy(model.state_dict())
    model.pack(precision)
    found = stepped(model)
    assert relative(found, wanted) < error
    assert precision == "float32" or not torch.equal(found, wanted)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("precision", LIGHT)
def test_only_steps_without_gradients_use_light_weights(precision: Precision) -> None:
    model, batch = tiny_model(), collate(utterances((6, 9), (9, 9)))
    wanted = model(batch).logits
    model.pack(precision)
    torch.testing.assert_close(model(batch).logits, wanted)
    with torch.no_grad():
        torch.testing.assert_close(model(batch).logits, wanted)
    memory = model.remember(batch.text, batch.text_valid)
    one = model.advance(batch.audio[:, :1], memory, model.initial_state(2)).logits
    torch.testing.assert_close(one, wanted[:, :1], atol=1e-4, rtol=1e-4)
    assert one.requires_grad


@pytest.mark.parametrize("precision", LIGHT)
def test_a_changed_a_moved_and_a_copied_model_drop_their_light_weights(precision: Precision) -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    model.pack(precision)
    light = stepped(model)
    torch.testing.assert_close(stepped(copy.deepcopy(model)), stepped(tiny_model()))
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(stepped(model), stepped(other))
    assert stepped(model.double()).dtype == torch.float64
    again = tiny_model()
    again.pack("float32")
    again.pack(precision)
    torch.testing.assert_close(stepped(again), light)


def test_packing_does_not_change_what_a_seed_says() -> None:
    requests = [SpeechRequest(text_ids(7), seed=3), SpeechRequest(text_ids(9), seed=4)]
    options = GenerationOptions(max_frames=20, min_frames=20)
    model = tiny_model()
    wanted = generate(model, requests, options)
    model.pack()
    found = generate(model, requests, options)
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(found, wanted, strict=True))


def test_a_precision_that_is_none_or_does_not_fit_the_device_is_refused() -> None:
    with pytest.raises(InputError, match="precision is 'float8', expected one of float32, bfloat16, int8"):
        tiny_model().pack("float8")
    with pytest.raises(InputError, match="int8 weights work on the CPU only"):
        tiny_model().to("meta").pack("int8")
    model = tiny_model()
    model.pack("int8")
    assert model.packed is not None


def test_training_and_weights_written_in_place_let_the_layout_go() -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    model.pack("bfloat16")
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(theirs)
    torch.testing.assert_close(stepped(model), stepped(other))
    model.pack("bfloat16")
    model.train().eval()
    assert model.packed is None
    torch.testing.assert_close(stepped(model), stepped(other))
