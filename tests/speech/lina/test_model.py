"""The model: decoding in any steps, batches, states, embeddings, options."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.losses import lina_loss
from mmattn.speech.lina.model import LinaModel, LinaOutput
from mmattn.speech.lina.network.batch import SpeechBatch, collate
from mmattn.speech.lina.network.decoder import DecoderState
from tests.speech.lina.tiny import text_ids, tiny_config, tiny_model, utterances

BATCH = collate(utterances((9, 11), (5, 4), (7, 8)))
VARIANTS: dict[str, dict[str, Any]] = {
    "gla": {},
    "gla without convolution": {"short_conv": False, "expand_k": 1.0, "expand_v": 2.0},
    "simple gla": {"mixer": "simple_gla"},
    "rwkv6": {"mixer": "rwkv6"},
    "rotary": {"cross_rotary": True, "position": "sinusoidal"},
    "plain": {"cross_attention": "plain", "cross_rotary": True},
    "two stage": {"cross_attention": "two_stage"},
}
variants = pytest.mark.parametrize("changes", [pytest.param(value, id=name) for name, value in VARIANTS.items()])


@torch.no_grad()
def in_parts(model: LinaModel, batch: SpeechBatch, sizes: list[int]) -> LinaOutput:
    memory, state = model.remember(batch.text, batch.text_valid), model.initial_state(len(batch.text))
    logits, maps = [], []
    for part in batch.audio.split(sizes, dim=1):
        out = model.advance(part, memory, state, with_maps=True)
        assert out.maps is not None
        logits.append(out.logits)
        maps.append(out.maps)
        state = out.state
    return LinaOutput(torch.cat(logits, 1), state, torch.cat(maps, 2))


def tensors_of(state: DecoderState) -> list[torch.Tensor]:
    return [tensor for layer in (*state.layers, state.alignment) for tensor in layer] + [state.position]


@variants
@pytest.mark.parametrize("sizes", [[1] * 14, [1, 4, 9], [13, 1]], ids=str)
def test_decoding_in_parts_equals_decoding_at_once(changes: dict[str, Any], sizes: list[int]) -> None:
    model = tiny_model(**changes).double()
    whole, parts = in_parts(model, BATCH, [14]), in_parts(model, BATCH, sizes)
    torch.testing.assert_close(parts.logits, whole.logits)
    torch.testing.assert_close(parts.maps, whole.maps)
    for one, other in zip(tensors_of(parts.state), tensors_of(whole.state), strict=True):
        torch.testing.assert_close(one, other)


@given(split=st.integers(1, 13))
@settings(max_examples=8, deadline=None)
def test_decoding_continues_rightly_from_any_state(split: int) -> None:
    model = tiny_model(seed=3).double()
    whole, parts = in_parts(model, BATCH, [14]), in_parts(model, BATCH, [split, 14 - split])
    torch.testing.assert_close(parts.logits, whole.logits)


@variants
@torch.no_grad()
def test_training_and_decoding_agree(changes: dict[str, Any]) -> None:
    model = tiny_model(**changes).double()
    trained, decoded = model(BATCH, with_maps=True), in_parts(model, BATCH, [14])
    for item, columns in enumerate(BATCH.audio_valid.sum(1).tolist()):
        ours, theirs = trained.logits[item, : columns - 1], decoded.logits[item, : columns - 1]
        torch.testing.assert_close(ours, theirs)


@variants
@torch.no_grad()
def test_an_utterance_is_scored_the_same_in_any_batch(changes: dict[str, Any]) -> None:
    model, items = tiny_model(**changes).double(), utterances((9, 11), (5, 4), (7, 8))
    together = model(BATCH).logits
    for item, one in enumerate(items):
        alone = model(collate([one])).logits[0]
        torch.testing.assert_close(together[item, : len(alone)], alone)


@variants
@torch.no_grad()
def test_a_state_is_never_changed_in_place(changes: dict[str, Any]) -> None:
    model = tiny_model(**changes)
    memory = model.remember(BATCH.text, BATCH.text_valid)
    state = model.advance(BATCH.audio[:, :3], memory, model.initial_state(3)).state
    before = copy.deepcopy(tensors_of(state))
    first = model.advance(BATCH.audio[:, 3:4], memory, state)
    second = model.advance(BATCH.audio[:, 3:4], memory, state)
    model.advance(BATCH.audio[:, 3:9], memory, state)
    assert torch.equal(first.logits, second.logits)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(state), before, strict=True))


@torch.no_grad()
def test_the_future_has_no_influence() -> None:
    model, changed = tiny_model().double(), BATCH.audio.clone()
    changed[:, 6:] = 7
    before, after = model(BATCH).logits, model(BATCH._replace(audio=changed)).logits
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("changes", [{}, {"short_conv": False}, {"mixer": "rwkv6"}, {"mixer": "simple_gla"}], ids=str)
def test_packed_weights_step_the_same(changes: dict[str, Any]) -> None:
    model, packed = tiny_model(**changes).double(), tiny_model(**changes).double()
    packed.pack()
    assert all(
        torch.equal(a, b) for a, b in zip(packed.state_dict().values(), model.state_dict().values(), strict=True)
    )
    for _ in range(2):
        one, other = in_parts(model, BATCH, [1] * 14), in_parts(packed, BATCH, [1] * 14)
        torch.testing.assert_close(other.logits, one.logits)
        torch.testing.assert_close(tensors_of(other.state), tensors_of(one.state))
        # What is loaded later counts, and a model moved elsewhere is as any other.
        for module in (model, packed):
            module.load_state_dict(tiny_model(seed=1, **changes).double().state_dict())
    assert in_parts(packed.float(), BATCH, [1] * 14).logits.dtype == torch.float32


@torch.no_grad()
def test_streams_are_selected_and_put_together() -> None:
    model = tiny_model()
    state = in_parts(model, BATCH, [14]).state
    one, two = state.select(torch.tensor([2])), state.select(torch.tensor([0, 1]))
    again = DecoderState.concatenate([two, one])
    assert again.batch == 3
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(again), tensors_of(state), strict=True))


@torch.no_grad()
def test_the_next_text_starts_with_the_voice_and_from_its_beginning() -> None:
    model = tiny_model()
    state, fresh = in_parts(model, BATCH, [14]).state, model.initial_state(3)
    after = state.for_next_text(fresh)
    assert after.layers == state.layers
    assert after.alignment == fresh.alignment
    assert after.position.tolist() == [0, 0, 0]


def test_every_parameter_is_trained_and_the_padding_is_not() -> None:
    model = tiny_model()
    lina_loss(model(BATCH).logits, BATCH.audio, BATCH.audio_valid).total.backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == set()
    assert model.audio_embedding.grad is not None
    assert model.audio_embedding.grad[:, 0].abs().max() == 0.0
    assert model.audio_embedding.grad[:, 1].abs().max() > 0.0


def test_tied_embeddings_make_the_logits() -> None:
    model = tiny_model(tie_embeddings=True)
    assert model.head is None
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in tiny_model().parameters()) - 2 * 15 * 16
    hidden: list[torch.Tensor] = []
    model.decoder.register_forward_hook(lambda _m, _i, out: hidden.append(out[0]))
    logits = model(BATCH).logits
    torch.testing.assert_close(logits[..., 1, 4], hidden[0] @ model.audio_embedding[1, 4])


def test_recomputing_changes_memory_only() -> None:
    kept, again = tiny_model(), tiny_model()
    again.decoder.recompute = True
    for model in (kept, again):
        lina_loss(model(BATCH).logits, BATCH.audio, BATCH.audio_valid).total.backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_texts_are_dropped_in_training_as_often_as_told() -> None:
    model = tiny_model(text_mask_probability=0.5, text_dropout=0.0)
    batch = collate(utterances(*[(5, 3)] * 2) * 30)
    seen: list[torch.Tensor] = []
    model.text_embedding.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    model(batch)
    assert not bool((seen[0] == model.mask_token).any())
    model.train()(batch)
    whole, some = (seen[1] == 20).all(dim=1), (seen[1] == 20).any(dim=1)
    assert torch.equal(whole, some)
    assert 15 < int(whole.sum()) < 45


def test_a_model_that_always_had_text_has_no_mask_token() -> None:
    with pytest.raises(InputError, match="never trained without text"):
        _ = tiny_model().mask_token


def test_weights_that_do_not_fit_are_named() -> None:
    model = LinaModel(tiny_config())
    tensors = model.state_dict()
    with pytest.raises(CheckpointError, match=r"1 missing \(head\)"):
        model.load_tensors({name: t for name, t in tensors.items() if name != "head"})
    with pytest.raises(CheckpointError, match=r"head of shape \(2, 3\), expected \(2, 15, 16\)"):
        model.load_tensors({**tensors, "head": torch.zeros(2, 3)})


def test_one_batch_is_learned_by_heart() -> None:
    model = LinaModel(tiny_config(text_dropout=0.0))
    batch = collate(utterances((5, 6), (4, 5)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(40):
        loss = lina_loss(model(batch).logits, batch.audio, batch.audio_valid).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@torch.no_grad()
def test_reading_an_unpadded_text_needs_no_mask() -> None:
    model, text = tiny_model(), text_ids(6)[None]
    memory = model.remember(text, torch.ones(1, 6, dtype=torch.bool))
    assert memory.mask is None
    assert torch.equal(memory.tensors[0], model.remember(text).tensors[0])
