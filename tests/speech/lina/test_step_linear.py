"""Weights laid out for steps: products, what they cost in accuracy, and when they are let go."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.speech.lina.generation.steps import GenerationOptions, SpeechRequest, generate
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.batch import collate
from mmattn.speech.lina.step_linear import Precision, StepLinear, check_precision, step_product
from tests.speech.lina.tiny import text_ids, tiny_model, utterances

CPU = torch.device("cpu")
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


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("shape", [(1, 1), (13, 40), (7, 341), (300, 256)], ids=str)
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("bfloat16", 5e-3), ("int8", 1.5e-2)])
def test_products_are_those_of_the_weight(
    precision: Precision, error: float, shape: tuple[int, int], rows: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(shape, generator=generator), torch.randn(shape[0], generator=generator)
    x = torch.randn(rows, shape[1], generator=generator)
    for added in (None, bias):
        found = step_product(weight, added, precision)(x)
        assert found.dtype == torch.float32
        assert relative(found, nn.functional.linear(x, weight, added)) < error


def test_an_int8_weight_is_off_by_no_more_than_half_a_step_of_its_own_row() -> None:
    weight = torch.tensor([[1.0, -0.5, 0.25, 0.0], [1e-4, 0.0, 5e-5, -1e-4], [0.0, 0.0, 0.0, 0.0]])
    found = step_product(weight, None, "int8")(torch.eye(4)).T
    assert bool(((found - weight).abs() <= weight.abs().amax(1, keepdim=True) / 100).all())
    assert torch.equal(found[2], torch.zeros(4))


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


def test_weights_made_in_inference_mode_can_be_packed() -> None:
    with torch.inference_mode():
        layer = StepLinear(8, 4)
        layer.pack("bfloat16")
        x = torch.ones(2, 1, 8)
        assert relative(layer(x), nn.functional.linear(x, layer.weight, layer.bias)) < 1e-2


def test_a_precision_that_is_none_or_does_not_fit_the_device_is_refused() -> None:
    with pytest.raises(InputError, match="precision is 'float8', expected one of float32, bfloat16, int8"):
        tiny_model().pack("float8")
    with pytest.raises(InputError, match="int8 weights work on the CPU only"):
        check_precision("int8", torch.device("cuda"))
    assert check_precision("int8", CPU) == "int8"
