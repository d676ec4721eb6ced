"""The plain baseline: boxes as mean and maximum, nothing but the GRU depends on the past."""

import torch
from torch import nn

from mmattn.video.crash.network.gru import GruModel
from tests.video.crash.tiny import clips, tiny_model


@torch.no_grad()
def test_states_are_those_of_torchs_gru_on_mean_maximum_and_frame() -> None:
    model, features = tiny_model(architecture="gru", num_layers=1), clips(2, 7)
    assert isinstance(model, GruModel)
    gru = nn.GRU(48, 16, batch_first=True)
    gru.load_state_dict(
        {
            "weight_ih_l0": torch.cat([part.weight for part in model.recurrence.parts], dim=1),
            "bias_ih_l0": model.recurrence.bias,
            "weight_hh_l0": model.recurrence.recurrent[0].weight,
            "bias_hh_l0": model.recurrence.recurrent[0].bias,
        }
    )
    embedded = model.embed(features)
    boxes = embedded[:, :, 1:]
    out, _ = gru(torch.cat([boxes.mean(2), boxes.amax(2), embedded[:, :, 0]], dim=-1))
    torch.testing.assert_close(model(features).hidden, out, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_every_box_has_the_same_weight_and_their_order_does_not_matter() -> None:
    model, features = tiny_model(architecture="gru"), clips(2, 5)
    output = model(features)
    torch.testing.assert_close(output.box_attention, torch.full((2, 5, 4), 0.25))
    shuffled = model(features[:, :, [0, 3, 1, 4, 2]])
    torch.testing.assert_close(shuffled.logits, output.logits, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_under_the_mask_features_of_empty_slots_change_nothing() -> None:
    model, features = tiny_model(architecture="gru", mask_empty_boxes=True), clips(1, 5)
    valid = torch.ones(1, 5, 5, dtype=torch.bool)
    valid[:, :, 3:] = False
    changed = features.clone()
    changed[:, :, 3:] = 7.0
    assert torch.equal(model(changed, valid).logits, model(features, valid).logits)
    torch.testing.assert_close(model(features, valid).box_attention[0, 0], torch.tensor([0.5, 0.5, 0.0, 0.0]))
