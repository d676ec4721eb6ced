"""The networks as a whole: causal, the same in a stream as in a clip, and defined when there is little to see."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmattn.errors import CheckpointError, InputError
from mmattn.kernels.products import uses_onednn
from mmattn.video.crash.config import TRAINING_SETTINGS, CrashConfig
from mmattn.video.crash.losses import crash_loss
from mmattn.video.crash.model import CrashModel, RiskModel, build_model
from tests.video.crash.tiny import clips, tiny_config, tiny_model

VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "from_scratch": TRAINING_SETTINGS["from_scratch"],
    "identity": {"tfa_output": "identity"},
    "layernorm": {"tfa_output": "layernorm"},
    "no_objects": {"use_oam": False},
    "no_context": {"use_cam": False},
    "no_focus": {"use_tfa": False},
    "one_layer": {"num_layers": 1},
    "dsta": {"architecture": "dsta", "num_layers": 1},
    "dsta_masked": {"architecture": "dsta", "mask_empty_boxes": True},
    "gru": {"architecture": "gru"},
    "gru_masked": {"architecture": "gru", "mask_empty_boxes": True},
}
every_variant = pytest.mark.parametrize("options", [pytest.param(o, id=name) for name, o in VARIANTS.items()])


def with_empty_boxes(features: Tensor) -> Tensor:
    """Takes the last boxes of every frame away, and all boxes of some frames."""
    features = features.clone()
    features[:, :, 3:] = 0.0
    features[:, 1::3, 1:] = 0.0
    return features


@every_variant
@torch.no_grad()
def test_shapes_are_those_of_the_contract_and_weights_are_shares(options: dict[str, Any]) -> None:
    output = tiny_model(**options)(clips(3, 7))
    assert output.logits.shape == (3, 7, 2)
    assert output.hidden.shape == (3, 7, 16)
    assert output.aux_logits is not None
    assert output.aux_logits.shape == (3, 2)
    assert output.uncertainty is None
    torch.testing.assert_close(output.box_attention.sum(-1), torch.ones(3, 7))
    assert output.box_attention.min() >= 0


@every_variant
@torch.no_grad()
def test_the_future_changes_nothing(options: dict[str, Any]) -> None:
    model, features = tiny_model(**options), with_empty_boxes(clips(2, 10))
    before = model(features)
    for t in (1, 4, 9):
        changed = features.clone()
        changed[:, t:] = clips(2, 10 - t, seed=t)
        after = model(changed)
        assert torch.equal(after.logits[:, :t], before.logits[:, :t])
        assert torch.equal(after.box_attention[:, :t], before.box_attention[:, :t])
        assert (after.logits[:, t:] - before.logits[:, t:]).abs().max() > 1e-6


@every_variant
@given(cuts=st.sets(st.integers(1, 12)))
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_a_stream_in_any_pieces_is_the_clip(options: dict[str, Any], cuts: set[int]) -> None:
    model, features = tiny_model(**options), with_empty_boxes(clips(2, 13))
    whole, state, rows, weights = model(features), model.initial_state(2), [], []
    edges = [0, *sorted(cuts), 13]
    for start, end in pairwise(edges):
        piece, state = model.extend(features[:, start:end], state)
        rows.append(piece.logits)
        weights.append(piece.box_attention)
        assert piece.aux_logits is None
    torch.testing.assert_close(torch.cat(rows, dim=1), whole.logits, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(torch.cat(weights, dim=1), whole.box_attention, atol=1e-5, rtol=0.0)


@every_variant
@torch.no_grad()
def test_frame_by_frame_is_the_clip_and_memory_stays_constant(options: dict[str, Any]) -> None:
    model, features = tiny_model(**options), clips(2, 130)
    valid = (torch.rand(2, 130, 5) > 0.4) | (torch.arange(5) == 0)
    whole, state = model(features, valid), model.initial_state(2)
    for t in range(130):
        logits, weights, state = model.step(features[:, t], state, valid[:, t])
        torch.testing.assert_close(logits, whole.logits[:, t], atol=1e-5, rtol=0.0)
        torch.testing.assert_close(weights, whole.box_attention[:, t], atol=1e-5, rtol=0.0)
        assert len(state.history) <= 5


@every_variant
@torch.no_grad()
def test_a_clip_scores_the_same_alone_and_in_a_batch(options: dict[str, Any]) -> None:
    model, features = tiny_model(**options), clips(4, 6)
    together, alone = model(features), model(features[2:3])
    torch.testing.assert_close(alone.logits, together.logits[2:3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(alone.aux_logits, together.aux_logits[2:3], atol=1e-6, rtol=1e-5)


@every_variant
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_and_all_zero_clips_are_scored_and_learned_from(options: dict[str, Any], frames: int) -> None:
    model = tiny_model(**options).train()
    output = model(torch.zeros(2, frames, 5, 12))
    assert output.logits.isfinite().all()
    loss = crash_loss(
        output, torch.tensor([0, 1]), torch.tensor([frames + 1.0, 1.0]), 10.0, rho=(model.rho_1, model.rho_2)
    )
    loss.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_variant
def test_every_parameter_is_learned_from(options: dict[str, Any]) -> None:
    """DDP stops when a parameter has no part in the loss."""
    model = tiny_model(**options).train()
    output = model(clips(3, 6))
    loss = crash_loss(
        output, torch.tensor([0, 1, 1]), torch.tensor([7.0, 3.0, 6.0]), 10.0, rho=(model.rho_1, model.rho_2)
    )
    loss.total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_temporal_attention_starts_at_the_third_frame() -> None:
    features, models = clips(2, 4), [tiny_model(), tiny_model()]
    with torch.no_grad():
        models[1].focus.layers[0].dense[0].bias.normal_()
        first, other = (model(features).hidden for model in models)
    assert torch.equal(first[:, :2], other[:, :2])
    assert (first[:, 2] - other[:, 2]).abs().max() > 1e-6


@torch.no_grad()
def test_the_window_is_forgotten_beyond_its_length_only() -> None:
    model, features = tiny_model(window=4), clips(1, 8)
    state = model.initial_state()
    for t in range(6):
        _, _, state = model.step(features[:, t], state)
    assert len(state.history) == 4
    # The next frame sees its own state and three of these: the oldest is out of the window, the next one is in it.
    for position, is_seen in ((0, False), (1, True)):
        history = list(state.history)
        history[position] = history[position] + 1.0
        changed = model.restore_state({"hidden": state.hidden, "history": torch.stack(history)})
        difference = (model.step(features[:, 6], changed)[0] - model.step(features[:, 6], state)[0]).abs().max()
        assert (difference > 1e-7) == is_seen


@torch.no_grad()
def test_without_focus_and_attention_the_network_is_a_gru_of_torch() -> None:
    model, features = tiny_model(use_tfa=False, use_cam=False, use_oam=False), clips(2, 9)
    assert isinstance(model, CrashModel)
    gru = nn.GRU(32, 16, 2, batch_first=True)
    ours = model.recurrence
    pairs = {
        "weight_ih_l0": torch.cat([part.weight for part in ours.parts], dim=1),
        "bias_ih_l0": ours.bias,
        "weight_ih_l1": ours.between[0].weight,
        "bias_ih_l1": ours.between[0].bias,
    }
    for layer, recurrent in enumerate(ours.recurrent):
        pairs |= {f"weight_hh_l{layer}": recurrent.weight, f"bias_hh_l{layer}": recurrent.bias}
    gru.load_state_dict(pairs)
    embedded = model.embed(features)
    out, _ = gru(torch.cat([embedded[:, :, 1:].mean(2), embedded[:, :, 0]], dim=-1))
    torch.testing.assert_close(model(features).hidden, out, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_empty_slots_take_part_in_the_published_code_and_not_under_the_mask() -> None:
    features = with_empty_boxes(clips(2, 6))
    published, masked = tiny_model()(features), tiny_model(mask_empty_boxes=True)(features)
    assert published.box_attention[..., 2:].min() > 0
    assert torch.equal(masked.box_attention[..., 2:], torch.zeros(2, 6, 2))
    torch.testing.assert_close(masked.box_attention[:, 0].sum(-1), torch.ones(2))
    assert torch.equal(masked.box_attention[:, 1], torch.zeros(2, 4))
    assert masked.logits.isfinite().all()


@torch.no_grad()
def test_a_given_mask_overrules_the_features_only_where_masks_are_used() -> None:
    features = clips(2, 6)
    valid = torch.ones(2, 6, 5, dtype=torch.bool)
    valid[:, :, 4] = False
    masked = tiny_model(mask_empty_boxes=True)(features, valid)
    assert torch.equal(masked.box_attention[..., 3], torch.zeros(2, 6))
    published = tiny_model()
    assert torch.equal(published(features, valid).logits, published(features).logits)


@torch.no_grad()
def test_scores_are_the_same_twice_at_evaluation_and_random_in_training() -> None:
    model, features = tiny_model(), clips()
    assert torch.equal(model(features).logits, model(features).logits)
    model.train()
    assert not torch.equal(model(features).logits, model(features).logits)


@torch.no_grad()
def test_legacy_dropout_is_on_at_evaluation_and_leaves_the_states_alone() -> None:
    model, plain, features = tiny_model(legacy_eval_dropout=True), tiny_model(), clips()
    first, second = model(features), model(features)
    assert not torch.equal(first.logits, second.logits)
    assert first.uncertainty is None
    assert torch.equal(first.hidden, plain(features).hidden)


@torch.no_grad()
def test_monte_carlo_passes_average_to_the_plain_score_and_say_how_much_they_vary() -> None:
    model, features = tiny_model(legacy_eval_dropout=True, mc_samples=400), clips()
    output = model(features)
    assert output.uncertainty is not None
    assert output.uncertainty.shape == (2, 8)
    risk, plain = (x.softmax(-1)[..., 1] for x in (output.logits, tiny_model()(features).logits))
    assert ((risk - plain).abs() < 0.25 * output.uncertainty + 0.01).all()
    streamed, _ = model.extend(features[:, :1], model.initial_state(2))
    assert streamed.uncertainty is not None
    torch.testing.assert_close(streamed.uncertainty, output.uncertainty[:, :1], rtol=0.2, atol=0.0)
    assert model.train()(features).uncertainty is None


@every_variant
def test_half_precision_training_stays_close_and_keeps_its_memory_precise(options: dict[str, Any]) -> None:
    model, features = tiny_model(**options, dropout=0.0).train(), clips(2, 8)
    plain = model(features)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(features)
        loss = crash_loss(output, torch.tensor([0, 1]), torch.tensor([9.0, 5.0]), 10.0, rho=(model.rho_1, model.rho_2))
    assert output.hidden.dtype == torch.float32
    torch.testing.assert_close(output.logits.float(), plain.logits, atol=0.03, rtol=0.0)
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_variant
@torch.no_grad()
def test_double_precision_agrees(options: dict[str, Any]) -> None:
    model, features = tiny_model(**options), with_empty_boxes(clips(2, 9))
    single = model(features)
    double = model.double()(features.double())
    torch.testing.assert_close(single.logits.double(), double.logits, atol=1e-5, rtol=0.0)


def test_gradients_through_time_pass_gradcheck() -> None:
    model = tiny_model(
        feature_dim=3, num_boxes=2, hidden_dim=4, grid=(2, 2), tfa_heads=2, dropout=0.0, window=3
    ).double()
    features = (torch.rand(1, 4, 3, 3).double() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x).logits, features, atol=1e-6)


@torch.no_grad()
def test_a_stored_state_continues_the_stream() -> None:
    model, features = tiny_model(), clips(2, 9)
    state = model.initial_state(2)
    for cut in (0, 1, 7):
        if cut:
            _, state = model.extend(features[:, :cut], model.initial_state(2))
        restored = model.restore_state(state.to_tensors())
        ours, _ = model.extend(features[:, cut:], restored)
        torch.testing.assert_close(ours.logits, model(features).logits[:, cut:], atol=1e-6, rtol=0.0)


@torch.no_grad()
def test_an_older_state_can_be_taken_up_again() -> None:
    model, features = tiny_model(), clips(1, 6)
    _, before = model.extend(features[:, :4], model.initial_state())
    first = model.step(features[:, 4], before)[0]
    model.step(100.0 * features[:, 5], before)
    assert torch.equal(model.step(features[:, 4], before)[0], first)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 5, 11), r"shape \(1, 4, 5, 11\), expected \(clips, frames, 5, 12\): the frame and 4 boxes, 12 numbers"),
        ((1, 4, 6, 12), r"expected \(clips, frames, 5, 12\)"),
        ((4, 5, 12), r"expected \(clips, frames, 5, 12\)"),
        ((1, 0, 5, 12), "expected at least one clip and one frame"),
    ],
)
def test_features_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model()(torch.zeros(shape))


def test_states_and_masks_of_another_size_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(InputError, match="Got frames of 2 streams for a state of 3"):
        model.step(clips()[:, 0], model.initial_state(3))
    with pytest.raises(InputError, match=r"valid has shape \(2, 8, 4\), expected \(2, 8, 5\)"):
        model(clips(), torch.ones(2, 8, 4, dtype=torch.bool))


@every_variant
def test_tensors_load_into_the_model_their_config_describes(options: dict[str, Any]) -> None:
    model = tiny_model(seed=1, **options)
    config = CrashConfig.from_dict(model.config.to_dict())
    other = build_model(config)
    assert not other.training
    other.load_tensors(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(clips()).logits, model(clips()).logits)


def test_tensors_of_another_model_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"phi_x.weight of shape \(16, 12\), expected \(16, 7\)"):
        tiny_model(feature_dim=7).load_tensors(tiny_model().state_dict())
    with pytest.raises(CheckpointError, match=r"6 missing \(context.gate.complex_weight"):
        tiny_model().load_tensors(tiny_model(use_cam=False).state_dict())


@pytest.mark.parametrize("architecture", ["crash", "dsta", "gru"])
def test_packed_weights_score_the_same_until_training_takes_them_up(architecture: str) -> None:
    options = {"architecture": architecture, "hidden_dim": 128, "grid": (16, 8), "feature_dim": 1024}
    model = tiny_model(**options)
    features = torch.rand(4, 6, 5, 1024)
    with torch.no_grad():
        plain = model(features)
        assert model.pack_weights() is model
        assert model.phi_x.packed is not None or not uses_onednn(model.phi_x.weight, model.phi_x.weight)
        torch.testing.assert_close(model(features).logits, plain.logits, atol=1e-5, rtol=0.0)
        model.phi_x.weight.mul_(0.5)
        model.pack_weights()
        changed = model(features).logits
    model.train()
    assert model.phi_x.packed is None
    torch.testing.assert_close(model.eval()(features).logits, changed, atol=1e-5, rtol=0.0)
    assert set(model.state_dict()) == set(tiny_model(**options).state_dict())


def test_an_exported_program_scores_the_same() -> None:
    model, features = tiny_model(mask_empty_boxes=True), with_empty_boxes(clips(2, 5))
    with torch.no_grad():
        program = torch.export.export(model, (features,))
        exported = program.module()(features)
        torch.testing.assert_close(exported.logits, model(features).logits, atol=1e-6, rtol=0.0)


def test_architectures_are_built_by_name() -> None:
    kinds = {name: type(build_model(tiny_config(architecture=name))) for name in ("crash", "dsta", "gru")}
    assert {name: kind.__name__ for name, kind in kinds.items()} == {
        "crash": "CrashModel",
        "dsta": "DstaModel",
        "gru": "GruModel",
    }
    assert all(issubclass(kind, RiskModel) for kind in kinds.values())


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = build_model(CrashConfig())
    # 17,164,886 in the published code, of which 6 unused layers and one bias without effect are left out.
    count = sum(p.numel() for p in model.parameters())
    assert count == 17_164_886 - 6 * (512 * 512 + 512) - 512
