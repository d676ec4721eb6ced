"""D-Attn: its map by hand, its degenerate cases, and the shared map against one map per head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.bench.peers.crane import dattn_per_head
from mmattn.vision.crane.network.dattn import dattn, foundation_attention, resize_patches
from tests.vision.crane.tiny import tiny_model


def test_map_of_three_patches_is_the_one_computed_by_hand() -> None:
    # Unit vectors: two equal, one orthogonal. S has five ones and four zeros, mean 5/9.
    features = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])[None, :, None]
    weights = foundation_attention(features, beta=0.9, gamma=2.0)[0]
    assert torch.allclose(weights, torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))


def test_scores_above_the_mean_are_weighted_by_their_softmax() -> None:
    angle = torch.tensor([0.0, 0.3, 1.2])
    features = torch.stack([angle.cos(), angle.sin()])[None, :, None]
    similarity = (angle[:, None] - angle).cos()
    scores = 3.0 * (similarity - 1.2 * similarity.mean())
    expected = torch.where(scores < 0, -torch.inf, scores).softmax(dim=-1)
    torch.testing.assert_close(foundation_attention(features)[0], expected)


def test_a_uniform_picture_maps_every_patch_to_itself() -> None:
    weights = foundation_attention(torch.ones(1, 4, 3, 3))
    assert torch.equal(weights[0], torch.eye(9))


def test_a_patch_without_features_attends_to_itself_and_gives_finite_rows() -> None:
    features = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    features[..., 0, 0] = 0.0
    weights = foundation_attention(features)
    assert weights.isfinite().all()
    assert weights[0, 0, 0] > 0


def test_image_mean_is_independent_of_the_batch_and_batch_mean_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, 3, generator=generator) + torch.tensor([2.0, 0.0]).view(2, 1, 1, 1)
    alone = foundation_attention(features[:1])
    torch.testing.assert_close(foundation_attention(features)[:1], alone)
    assert (foundation_attention(features, mean="batch")[:1] - alone).abs().max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.floats(0.0, 3.0))
def test_rows_always_sum_to_one(seed: int, height: int, width: int, beta: float) -> None:
    features = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    rows = foundation_attention(features, beta=beta).sum(dim=-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("target", [(6, 6), (4, 9)], ids=["same-grid", "other-grid"])
def test_one_shared_map_equals_one_map_per_head(target: tuple[int, int]) -> None:
    block = tiny_model().clip.visual.transformer.resblocks[-1]
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 37, 32, generator=generator)
    features = torch.randn(2, 5, *target, generator=generator)
    ours = dattn(block, source, foundation_attention(features), (6, 6), target)
    torch.testing.assert_close(ours, dattn_per_head(block, source, features, (6, 6)), atol=1e-6, rtol=1e-5)


def test_patches_are_resized_by_the_bilinear_rule() -> None:
    patches = torch.tensor([[[0.0], [4.0]]])
    assert resize_patches(patches, (1, 2), (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert resize_patches(patches, (1, 2), (1, 2)) is patches
