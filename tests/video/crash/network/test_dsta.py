"""DSTA's parts by their formulas, and the tensors the published code forgot to register."""

import pytest
import torch

from mmattn.video.crash.network.dsta import AdditiveAttention, DstaModel, GatedHistory, TimeWeights
from tests.video.crash.tiny import clips, tiny_model

B, N, D = 3, 4, 6


def attention() -> tuple[AdditiveAttention, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    module = AdditiveAttention(D).double()
    with torch.no_grad():
        module.bias.normal_()
        module.from_hidden.normal_()
        module.from_boxes.normal_()
    return module, torch.rand(B, N, D).double(), torch.randn(B, D).double()


@torch.no_grad()
def test_box_weights_follow_the_additive_formula() -> None:
    module, boxes, hidden = attention()
    out, weights = module(boxes, module.keys(boxes), hidden, None, False)
    for b in range(B):
        scores = [
            (
                torch.tanh(hidden[b] @ module.from_hidden + box @ module.from_boxes + module.bias) * module.weight[:, 0]
            ).sum()
            for box in boxes[b]
        ]
        expected = torch.stack(scores).softmax(0)
        torch.testing.assert_close(weights[b], expected)
        torch.testing.assert_close(out[b], expected @ boxes[b])


@torch.no_grad()
def test_empty_slots_lose_their_weight_and_with_renormalising_the_others_share_it() -> None:
    module, boxes, hidden = attention()
    valid = torch.tensor([[True, True, False, True], [False] * 4, [True] * 4])
    everything = module(boxes, module.keys(boxes), hidden, None, False)[1]
    _, lost = module(boxes, module.keys(boxes), hidden, valid, False)
    torch.testing.assert_close(lost, everything * valid)
    out, shared = module(boxes, module.keys(boxes), hidden, valid, True)
    torch.testing.assert_close(shared[0], lost[0] / lost[0].sum())
    assert torch.equal(shared[1], torch.zeros(N).double())
    assert torch.equal(out[1], torch.zeros(D).double())
    torch.testing.assert_close(shared[2], everything[2])


@torch.no_grad()
def test_history_is_weighted_feature_by_feature_over_time() -> None:
    torch.manual_seed(0)
    module, history = GatedHistory(D).double(), torch.randn(5, 1, B, D).double()
    weights = (history.tanh() @ module.weight).softmax(0)
    torch.testing.assert_close(module(history), (weights * history).sum(0))
    same = history[:1].expand(5, 1, B, D)
    torch.testing.assert_close(module(same), history[0])


@torch.no_grad()
def test_frames_beyond_the_weighted_ones_take_no_part_in_the_auxiliary_branch() -> None:
    torch.manual_seed(0)
    module, hidden = TimeWeights(4).double(), torch.randn(B, 7, D).double()
    torch.testing.assert_close(module(hidden), module(hidden[:, :4]))
    short = module(hidden[:, :3])
    twice = torch.cat([hidden, hidden], dim=-1)[:, :3]
    mixed = (twice @ twice.transpose(1, 2)).softmax(-1) @ twice
    torch.testing.assert_close(short, torch.einsum("btd,t->bd", mixed, module.weight[:3, 0]))


def test_the_box_attention_is_registered_and_learned() -> None:
    torch.manual_seed(0)
    model = tiny_model(architecture="dsta", num_layers=1).train()
    assert isinstance(model, DstaModel)
    names = {name for name, _ in model.named_parameters() if name.startswith("object_attention")}
    assert names == {f"object_attention.{name}" for name in ("from_hidden", "from_boxes", "bias", "weight")}
    model(clips()).logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.object_attention.parameters())


@pytest.mark.parametrize("window", [3, 5])
@torch.no_grad()
def test_the_temporal_window_is_the_configured_one(window: int) -> None:
    model, features = tiny_model(architecture="dsta", temporal_window=window), clips(1, 9)
    _, state = model.extend(features, model.initial_state())
    assert len(state.history) == window


@torch.no_grad()
def test_published_rule_takes_zero_boxes_for_empty_even_without_the_mask_option() -> None:
    features = clips(1, 4)
    features[:, :, 2] = 0.0
    weights = tiny_model(architecture="dsta")(features).box_attention
    assert torch.equal(weights[..., 1], torch.zeros(1, 4))
    assert (weights.sum(-1) < 1).all()
