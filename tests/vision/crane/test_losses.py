"""Crane's losses by hand, and how pictures without masks are treated."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmattn.vision.crane.losses import crane_loss, dice_loss, focal_loss
from mmattn.vision.crane.network.tower import VisionFeatures
from tests.vision.crane.tiny import tiny_config


def batch(size: int = 3, sets: int = 2) -> tuple[VisionFeatures, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    patches = tuple(torch.randn(size, 6, 4, generator=generator) for _ in range(sets))
    vision = VisionFeatures(torch.randn(size, 4, generator=generator), patches, (2, 3))
    text = torch.randn(1, 2, 4, generator=generator)
    masks = (torch.rand(size, 1, 8, 12, generator=generator) > 0.7).float()
    return vision, text, torch.arange(size) % 2, masks


def test_focal_loss_of_two_pixels_is_the_one_computed_by_hand() -> None:
    probabilities = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]]]], dtype=torch.float64)
    mask = torch.tensor([[[0.0, 1.0]]])
    expected = (-(0.25**2) * math.log(0.75) - 0.5**2 * math.log(0.5)) / 2
    assert focal_loss(probabilities, mask).item() == pytest.approx(expected, abs=3e-5)
    # With the smoothing of the published code, exactly.
    pt = [(1 - 1e-5) * p + 1e-5 * (1 - p) + 1e-5 for p in (0.75, 0.5)]
    assert focal_loss(probabilities, mask).item() == pytest.approx(sum(-((1 - p) ** 2) * math.log(p) for p in pt) / 2)


def test_focal_loss_is_finite_for_certain_and_wrong_pixels() -> None:
    probabilities = torch.tensor([[[[1.0]], [[0.0]]]], requires_grad=True)
    focal_loss(probabilities, torch.ones(1, 1, 1)).backward()
    assert probabilities.grad.isfinite().all()


def test_dice_loss_averages_over_images() -> None:
    abnormal = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    mask = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    probabilities = torch.stack([1 - abnormal, abnormal], dim=1)
    # (2 * 1 + 1) / (1 + 1 + 1) = 1 and (2 * 0.5 + 1) / (1 + 1 + 1) = 2/3
    assert dice_loss(probabilities, mask).item() == pytest.approx(1 - (1 + 2 / 3) / 2)


def test_total_is_the_weighted_sum_over_sets() -> None:
    vision, text, labels, masks = batch()
    losses = crane_loss(vision, text, labels, masks, tiny_config())
    torch.testing.assert_close(losses.total, 2 * losses.focal + 2 * losses.dice + 0.2 * losses.cross_entropy)
    torch.testing.assert_close(losses.cross_entropy, F.cross_entropy(losses.image_logits, labels))
    one, other = (vision._replace(patch_features=(p,)) for p in vision.patch_features)
    parts = [crane_loss(v, text, labels, masks, tiny_config()) for v in (one, other)]
    torch.testing.assert_close(losses.focal, parts[0].focal + parts[1].focal)
    torch.testing.assert_close(losses.dice, parts[0].dice + parts[1].dice)


def test_a_set_that_counts_four_times_adds_its_map_losses_four_times() -> None:
    vision, text, labels, masks = batch(sets=1)
    once = crane_loss(vision, text, labels, masks, tiny_config())
    four = crane_loss(vision._replace(counts=(4,)), text, labels, masks, tiny_config())
    torch.testing.assert_close(four.focal, 4 * once.focal)
    torch.testing.assert_close(four.dice, 4 * once.dice)
    torch.testing.assert_close(four.cross_entropy, once.cross_entropy)


def test_a_batch_of_one_picture_works_with_either_mask_shape() -> None:
    vision, text, labels, masks = batch(size=1)
    with_channel = crane_loss(vision, text, labels, masks, tiny_config())
    without = crane_loss(vision, text, labels, masks[:, 0], tiny_config())
    torch.testing.assert_close(with_channel.total, without.total)
    assert with_channel.dice > 0


def test_pictures_without_a_mask_only_enter_the_cross_entropy() -> None:
    vision, text, labels, masks = batch()
    has_mask = torch.tensor([True, False, True])
    losses = crane_loss(vision, text, labels, masks, tiny_config(), has_mask=has_mask)
    kept = VisionFeatures(vision.image_features[has_mask], tuple(p[has_mask] for p in vision.patch_features), (2, 3))
    expected = crane_loss(kept, text, labels[has_mask], masks[has_mask], tiny_config())
    torch.testing.assert_close(losses.focal, expected.focal)
    torch.testing.assert_close(losses.dice, expected.dice)
    assert losses.image_logits.shape == (3, 2)


@pytest.mark.parametrize("none_at_all", [True, False])
def test_without_any_mask_the_loss_is_the_cross_entropy(none_at_all: bool) -> None:
    vision, text, labels, masks = batch()
    text.requires_grad_()
    losses = crane_loss(
        vision, text, labels, None if none_at_all else masks, tiny_config(), has_mask=torch.zeros(3, dtype=torch.bool)
    )
    assert losses.focal.item() == losses.dice.item() == 0.0
    torch.testing.assert_close(losses.total, 0.2 * losses.cross_entropy)
    losses.total.backward()
    assert text.grad.abs().max() > 0


def test_interpolation_decides_how_patches_become_pixels() -> None:
    vision, text, labels, masks = batch()
    nearest = crane_loss(vision, text, labels, masks, tiny_config())
    bilinear = crane_loss(vision, text, labels, masks, tiny_config(), interpolation="bilinear")
    assert abs(nearest.focal.item() - bilinear.focal.item()) > 1e-4
    torch.testing.assert_close(nearest.cross_entropy, bilinear.cross_entropy)
