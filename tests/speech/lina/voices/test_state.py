"""Learned initial states: products, full rank, what they replace, blending."""

import pytest
import torch

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.voices.state import InitialState, VoiceTable, blend
from tests.speech.lina.tiny import tiny_config, tiny_model


def test_a_state_is_the_scaled_sum_of_products() -> None:
    k, v = torch.randn(1, 3, 2, 4, 1), torch.randn(1, 3, 2, 1, 8)
    state = InitialState({"layer0_k": k, "layer0_v": v}, scale=0.5)
    expected = 0.5 * torch.einsum("xrhko,xrhov->xhkv", k, v)
    torch.testing.assert_close(state.matrix("layer0"), expected)
    assert state.matrix("layer1") is None
    assert state.numbers == 3 * 2 * 12


def test_layers_are_told_apart_by_number_and_the_rest_stays() -> None:
    model = tiny_model(num_layers=6)
    like = model.initial_state(1)
    state = InitialState({f"layer{i}": torch.full((1, *layer[0].shape[1:]), float(i)) for i, layer in enumerate(like.layers)})  # fmt: skip  # noqa: E501
    started = state(model.initial_state(3))
    assert [layer[0].mean().item() for layer in started.layers] == [float(i) for i in range(12)]
    assert [layer[0].shape[0] for layer in started.layers] == [3] * 12
    assert all(float(cache.abs().sum()) == 0 for layer in started.layers for cache in layer[1:])
    assert float(started.alignment[0].abs().sum()) == 0.0


def test_a_drawn_state_is_small_and_seeded() -> None:
    like = tiny_model().initial_state(1)
    one, same, other = (InitialState.draw(like, rank=2, seed=s) for s in (1, 1, 2))
    assert set(one.tensors) == {f"layer{i}_{part}" for i in range(4) for part in "kv"}
    assert one.tensors["layer0_k"].shape == (1, 2, 2, 4, 1)
    assert one.tensors["layer0_v"].shape == (1, 2, 2, 1, 8)
    assert torch.equal(one.tensors["layer3_v"], same.tensors["layer3_v"])
    assert not torch.equal(one.tensors["layer3_v"], other.tensors["layer3_v"])
    assert float(one.tensors["layer0_v"].detach().abs().max()) < 0.1


@pytest.mark.parametrize("rank", [1, None])
def test_alignment_and_caches_can_be_learned_too(rank: int | None) -> None:
    model = tiny_model()
    state = InitialState.draw(model.initial_state(1), rank=rank, with_alignment=True, with_extras=True)
    assert state(model.initial_state(2)).layers[0][1].shape == (2, 32, 4)
    started = state(model.initial_state(2))
    sum(t.sum() for layer in (*started.layers, started.alignment) for t in layer).backward()
    assert all(parameter.grad is not None for parameter in state.parameters())


def test_equal_parts_of_one_voice_are_that_voice() -> None:
    like = tiny_model().initial_state(1)
    one, other = (InitialState.draw(like, rank=1, seed=s, with_extras=True) for s in (1, 2))
    for weights in ((0.5, 0.5), (1.5, -0.5)):
        torch.testing.assert_close(blend([one, one], weights).matrix("layer1"), one.matrix("layer1"))
    middle = blend([one, other], [0.25, 0.75]).matrix("layer2")
    torch.testing.assert_close(middle, 0.25 * one.matrix("layer2") + 0.75 * other.matrix("layer2"))  # type: ignore[operator]


def test_voices_of_different_models_do_not_blend() -> None:
    one, other = (InitialState.draw(tiny_model(expand_v=e).initial_state(1)) for e in (1.0, 2.0))
    with pytest.raises(InputError, match="differ in layer0"):
        blend([one, other], [0.5, 0.5])
    with pytest.raises(InputError, match="0 voices and 0 weights"):
        blend([], [])


def test_a_voice_of_other_sizes_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(
        CheckpointError, match=r"layer0_v has shape \(1, 1, 2, 1, 16\), the model expects \(1, 1, 2, 1, 8\)"
    ):
        InitialState.draw(tiny_model(expand_v=2.0).initial_state(1))(model.initial_state(1))
    with pytest.raises(CheckpointError, match="state of layer4, the model has 4 blocks"):
        InitialState.draw(tiny_model(num_layers=3).initial_state(1))(model.initial_state(1))


@pytest.mark.parametrize(
    ("changed", "shape", "message"),
    [
        ("layer0_k", (3, 3), r"layer0_k has shape \(3, 3\) beside layer0_v of \(1, 2, 2, 1, 8\)"),
        ("layer0_k", (1, 2, 2, 3, 1), r"layer0_k has shape \(1, 2, 2, 3, 1\), the model expects \(1, 2, 2, 4, 1\)"),
        ("layer1", (2, 4, 8), r"layer1 has shape \(2, 4, 8\), the model expects \(1, 2, 4, 8\)"),
        ("layer1_extra0", (1, 2), r"layer1_extra0 has shape \(1, 2\), the model expects \(1, \d+"),
        ("layer1_extra9", (1, 2), "layer1_extra9, and the model keeps nothing there"),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_what_was_expected(
    changed: str, shape: tuple[int, ...], message: str
) -> None:
    fresh = tiny_model().initial_state(1)
    drawn = InitialState.draw(fresh, rank=2)
    assert drawn(fresh).layers[0][0].shape == fresh.layers[0][0].shape
    with pytest.raises(CheckpointError, match=message):
        InitialState({**drawn.tensors, changed: torch.zeros(shape)})(fresh)


def test_tensors_that_are_no_voice_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no tensor 'weight'"):
        InitialState({"weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="layer0_k but no layer0_v"):
        InitialState({"layer0_k": torch.zeros(1)})
    with pytest.raises(InputError, match="rank is 0"):
        InitialState.draw(tiny_model().initial_state(1), rank=0)


def test_a_row_of_the_table_is_the_voice_it_gives() -> None:
    torch.manual_seed(0)
    model = LinaModel(tiny_config()).eval()
    table = VoiceTable(model.initial_state(1), 3, rank=2, spread=1.0)
    state = table(model.initial_state(3), torch.tensor([2, -1, 0]))
    for row, number in ((0, 2), (2, 0)):
        alone = table.voice(number)(model.initial_state(1))
        for ours, theirs in zip(state.layers, alone.layers, strict=True):
            torch.testing.assert_close(ours[0][row], theirs[0][0])
            assert float(ours[0][row].detach().abs().max()) > 0
    assert all(float(layer[0][1].detach().abs().max()) == 0.0 for layer in state.layers)


def test_gradients_reach_the_voices_that_spoke() -> None:
    torch.manual_seed(0)
    model = LinaModel(tiny_config())
    table = VoiceTable(model.initial_state(1), 2)
    state = table(model.initial_state(2), torch.tensor([1, -1]))
    sum(layer[0].square().sum() for layer in state.layers).backward()
    for parameter in table.values:
        assert float(parameter.grad[1].abs().max()) > 0
        assert float(parameter.grad[0].abs().max()) == 0
