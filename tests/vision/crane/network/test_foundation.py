"""Foundation models: their input, which tokens are used, and what happens without their weights."""

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.models.vision_transformer import VisionTransformer

from mmattn.errors import CheckpointError, InputError, WeightsUnavailableError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.foundation import CLIP_MEAN, CLIP_STD, TimmFoundation, build_foundation, to_imagenet
from tests.vision.crane.tiny import tiny_config, tiny_model


def tiny_vit(**changes: object) -> VisionTransformer:
    fields = {"img_size": 28, "patch_size": 14, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
    return VisionTransformer(**{**fields, **changes}).eval()


@pytest.fixture
def small_timm(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """Replaces the 86-million-parameter networks; returns what was asked for."""
    asked = []

    def create(name: str, **options: object) -> VisionTransformer:
        asked.append((name, options))
        return tiny_vit()

    monkeypatch.setattr(timm, "create_model", create)
    return asked


def test_colours_change_from_clips_normalisation_to_imagenets() -> None:
    colour = torch.tensor([0.2, 0.5, 0.9])
    clip = ((colour - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).view(1, 3, 1, 1)
    expected = (colour - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(to_imagenet(clip).flatten(), expected)


def test_colours_outside_the_displayable_range_are_clamped() -> None:
    bright = to_imagenet(torch.full((1, 3, 1, 1), 100.0)).flatten()
    torch.testing.assert_close(bright[0], torch.tensor((1 - 0.485) / 0.229))


def test_features_are_the_normed_patch_tokens_of_the_last_block() -> None:
    vit = tiny_vit(reg_tokens=4)
    images = torch.randn(2, 3, 28, 28)
    features = TimmFoundation(vit)(images)
    expected = vit.get_intermediate_layers(to_imagenet(images), n=1, reshape=True, norm=True)[0]
    assert features.shape == (2, 16, 2, 2)
    torch.testing.assert_close(features, expected)


def test_pixels_beyond_the_last_whole_patch_are_dropped() -> None:
    foundation = TimmFoundation(tiny_vit(patch_size=8, img_size=16))
    images = torch.randn(1, 3, 18, 18)
    torch.testing.assert_close(foundation(images), foundation(images[:, :, :16, :16]))


@pytest.mark.parametrize(
    ("name", "model", "size"),
    [("dinov2", "vit_base_patch14_reg4_dinov2.lvd142m", 518), ("dino", "vit_base_patch8_224.dino", 512)],
)
def test_the_published_networks_are_asked_for(small_timm: list, name: str, model: str, size: int) -> None:
    build_foundation(CraneConfig(foundation=name), pretrained=True)
    assert small_timm == [(model, {"pretrained": True, "img_size": size, "num_classes": 0})]


def test_plain_crane_has_none_and_the_trunk_is_not_built_here() -> None:
    assert build_foundation(CraneConfig()) is None
    with pytest.raises(InputError, match="foundation is 'trunk', expected one of none, dinov2, dino"):
        build_foundation(CraneConfig(foundation="trunk"))


def test_weights_from_a_file_are_loaded(small_timm: list, tmp_path: Path) -> None:
    weights = tiny_vit().state_dict()
    torch.save(weights, tmp_path / "vit.pth")
    foundation = build_foundation(
        CraneConfig(foundation="dinov2", foundation_pretrained=str(tmp_path / "vit.pth")), pretrained=True
    )
    torch.testing.assert_close(foundation.vit.state_dict(), weights)
    assert small_timm[0][1]["pretrained"] is False


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"blocks.0.norm1.weight": torch.ones(3)}, "1 of 1 tensors differ in shape.*Choose the foundation"),
        ({"norm.weight": torch.ones(16)}, "missing .*tensors"),
        ([torch.ones(3)], "holds no foundation weights"),
    ],
    ids=["shapes", "names", "no-table"],
)
def test_a_file_that_does_not_fit_is_refused(small_timm: list, tmp_path: Path, state: object, message: str) -> None:
    torch.save(state, tmp_path / "vit.pth")
    config = CraneConfig(foundation="dino", foundation_pretrained=str(tmp_path / "vit.pth"))
    with pytest.raises(CheckpointError, match=message):
        build_foundation(config, pretrained=True)


def test_missing_weights_name_what_is_missing_and_which_option_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(name: str, **options: object) -> None:
        raise LocalEntryNotFoundError("cannot find the file")

    with pytest.raises(WeightsUnavailableError, match="do not exist"):
        build_foundation(
            CraneConfig(foundation="dino", foundation_pretrained=str(tmp_path / "no.pth")), pretrained=True
        )
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsUnavailableError, match="timm/vit_base_patch8_224") as caught:
        build_foundation(CraneConfig(foundation="dino"), pretrained=True)
    assert "--foundation-pretrained" in caught.value.hint


def test_crane_plus_uses_both_feature_sets_and_its_foundation() -> None:
    config = tiny_config(foundation="dinov2")
    crane = CraneModel(config, tiny_model().clip, TimmFoundation(tiny_vit(img_size=48, patch_size=8))).eval()
    images = torch.randn(2, 3, 48, 48)
    vision = crane.encode_image(images)
    assert len(vision.patch_features) == 2
    torch.testing.assert_close(crane.memory_features(images), crane.foundation(images))
    with pytest.raises(InputError, match="asks for the foundation 'dinov2', but none was given"):
        CraneModel(config, crane.clip)
