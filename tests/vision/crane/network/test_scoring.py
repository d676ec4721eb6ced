"""Scores and maps: by hand, against scipy, and independent of the batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from mmattn.vision.crane.network.scoring import (
    fuse,
    image_logits,
    patch_logits,
    score_features,
    smooth_maps,
    upsample_maps,
)
from mmattn.vision.crane.network.tower import VisionFeatures
from tests.vision.crane.tiny import tiny_config

TEXT = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])  # normal along x, abnormal along y


def features(batch: int = 2, sets: int = 2, seed: int = 0) -> VisionFeatures:
    generator = torch.Generator().manual_seed(seed)
    patches = tuple(torch.randn(batch, 6, 2, generator=generator) for _ in range(sets))
    return VisionFeatures(torch.randn(batch, 2, generator=generator), patches, (2, 3))


def unit(angle: float) -> Tensor:
    return torch.tensor([math.cos(angle), math.sin(angle)])


def test_logits_are_cosines_over_the_temperature() -> None:
    patches = 5.0 * unit(math.pi / 6)[None, None]
    assert torch.allclose(patch_logits(patches, TEXT, 0.5), torch.tensor([[[math.sqrt(3), 1.0]]]))
    assert torch.allclose(image_logits(patches[:, 0], TEXT, 0.5), torch.tensor([[math.sqrt(3), 1.0]]))


def test_fusion_is_the_formula_by_hand() -> None:
    patches = torch.stack([unit(0.0), 2.0 * unit(math.pi / 2)])[None]
    vision = VisionFeatures(3.0 * unit(0.0)[None], (patches,), (1, 2))
    logits = [torch.tensor([[[0.0, 0.0], [0.0, math.log(3.0)]]])]  # abnormal with probability 1/2 and 3/4
    pooled = torch.tensor([2.0, 3.0]) / math.sqrt(13.0)
    expected = 0.5 * pooled + 0.5 * unit(0.0)
    torch.testing.assert_close(fuse(vision, logits)[0], expected / expected.norm())
    torch.testing.assert_close(fuse(vision, logits, alpha=1.0)[0], pooled)
    torch.testing.assert_close(fuse(vision, logits, alpha=1.0, threshold=0.6)[0], unit(math.pi / 2))
    torch.testing.assert_close(fuse(vision, logits, alpha=1.0, top_k=1)[0], unit(math.pi / 2))
    torch.testing.assert_close(fuse(vision, logits, alpha=1.0, top_k=9)[0], pooled)


def test_a_set_that_counts_three_times_is_three_equal_sets() -> None:
    vision = features()
    first, second = vision.patch_features
    written_out = vision._replace(patch_features=(first, second, second, second))
    counted = vision._replace(counts=(1, 3))
    for soft_mean in (True, False):
        config = tiny_config(soft_mean=soft_mean)
        for a, b in zip(score_features(written_out, TEXT, config), score_features(counted, TEXT, config), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("soft_mean", [True, False], ids=["probabilities", "logits"])
def test_maps_equal_the_two_channel_definition(soft_mean: bool) -> None:
    vision, config = features(), tiny_config(soft_mean=soft_mean, sigma=0.0)
    layers = []
    for patches in vision.patch_features:
        logits = patch_logits(patches, TEXT, config.tau_pixel)
        low = (logits.softmax(dim=-1) if soft_mean else logits).transpose(1, 2).unflatten(2, (2, 3))
        layers.append(torch.nn.functional.interpolate(low, size=(48, 48), mode="bilinear"))
    mean = torch.stack(layers).mean(dim=0)
    expected = mean[:, 1] if soft_mean else mean.softmax(dim=1)[:, 1]
    output = score_features(vision, TEXT, config)
    torch.testing.assert_close(output.raw_map, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output.anomaly_map, output.raw_map)


def test_map_maximum_enters_the_score_on_request() -> None:
    vision = features()
    text, peak, mean = (score_features(vision, TEXT, tiny_config(image_score=rule)) for rule in ("text", "max", "mean"))
    torch.testing.assert_close(peak.score, text.anomaly_map.amax(dim=(1, 2)))
    torch.testing.assert_close(mean.score, (text.score + peak.score) / 2)


@pytest.mark.parametrize("fusion", [True, False])
def test_scores_do_not_depend_on_the_batch(fusion: bool) -> None:
    config = tiny_config(fusion=fusion)
    together = score_features(features(3), TEXT, config)
    vision = features(3)
    alone = VisionFeatures(vision.image_features[1:2], tuple(p[1:2] for p in vision.patch_features), vision.grid)
    for a, b in zip(together, score_features(alone, TEXT, config), strict=True):
        torch.testing.assert_close(a[1:2], b)


def test_each_picture_may_have_texts_of_its_own() -> None:
    vision, config = features(2), tiny_config()
    texts = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(5))
    together = score_features(vision, texts, config)
    second = VisionFeatures(vision.image_features[1:], tuple(p[1:] for p in vision.patch_features), vision.grid)
    torch.testing.assert_close(together.score[1:], score_features(second, texts[1:], config).score)


def test_fusion_without_it_compares_the_image_feature_alone() -> None:
    vision = features()
    expected = image_logits(vision.image_features, TEXT, 0.07).softmax(dim=-1)[:, 1]
    torch.testing.assert_close(score_features(vision, TEXT, tiny_config(fusion=False)).score, expected)


def test_nearest_upsampling_repeats_pixels() -> None:
    low = torch.tensor([[[1.0, 2.0]]])
    assert upsample_maps(low, (1, 4), "nearest").tolist() == [[[1.0, 1.0, 2.0, 2.0]]]
    assert upsample_maps(low, (1, 4)).tolist() == [[[1.0, 1.25, 1.75, 2.0]]]
    assert upsample_maps(low, 2).shape == (1, 2, 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 9.0), st.integers(0, 1000))
def test_smoothing_is_scipys_gaussian_filter(height: int, width: int, sigma: float, seed: int) -> None:
    maps = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = np.stack([gaussian_filter(m, sigma=sigma) for m in maps.numpy()])
    np.testing.assert_allclose(smooth_maps(maps, sigma).numpy(), expected, atol=1e-12)


def test_smoothing_keeps_a_constant_map_and_the_device_dtype() -> None:
    maps = torch.full((1, 30, 20), 0.25)
    smooth = smooth_maps(maps, 4.0)
    assert smooth.dtype == torch.float32
    torch.testing.assert_close(smooth, maps)
    assert smooth_maps(maps, 0.0) is maps


def test_smoothing_after_inference_mode_is_differentiable() -> None:
    with torch.inference_mode():
        smooth_maps(torch.rand(1, 9, 9), 1.5)
    maps = torch.rand(1, 9, 9, requires_grad=True)
    smooth_maps(maps, 1.5).sum().backward()
    torch.testing.assert_close(maps.grad, torch.ones(1, 9, 9))
