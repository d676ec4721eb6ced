"""Backbones of timm and open_clip by name: their width, their normalisation, their weights."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from mmattn.errors import CheckpointError, InputError, WeightsUnavailableError
from mmattn.video.crash.perception.backbones import build_backbone_perception, open_clip_backbone, timm_backbone
from mmattn.video.crash.perception.crop_perception import CropOptions
from tests.video.crash.perception.crop_parts import Told, pictures


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), file)
    return file


TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the whole of a CLIP that open_clip learns of here."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-crash-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    state = open_clip.create_model("tiny-crash-clip", load_weights=False).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_timm_network_is_used_as_it_was_trained(timm_file: Path):
    perception = build_backbone_perception(
        "timm", {"detector": "none", "backbone": "test_vit", "backbone_weights": str(timm_file)}, num_boxes=3
    )
    assert perception.feature_dim == 64
    crops = perception.crops
    assert (crops.size, crops.mean, crops.std, crops.resample) == (160, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert (crops.frame, crops.box) == ("squash", "squash")
    network = timm.create_model("test_vit", pretrained=False, num_classes=0).eval()
    network.load_state_dict({k: v for k, v in timm.models.load_state_dict(timm_file).items() if "head." not in k})
    frames = pictures(2)
    seen = perception.open().push(frames, [0.1, 0.2])
    with torch.inference_mode():
        expected = network(perception.crops(frames, [np.zeros((0, 4), np.int64)] * 2))
    np.testing.assert_allclose(np.stack([one.features[0] for one in seen]), expected.numpy(), atol=1e-5)


def test_a_detector_can_be_given_and_its_weights_are_then_not_needed(timm_file: Path):
    options = {"backbone": "test_vit", "backbone_weights": str(timm_file), "frame_resize": "centre"}
    perception = build_backbone_perception("timm", options, detector=Told(), fps=20.0)
    assert perception.fps == 20.0
    assert perception.crops.frame == "centre"
    (seen,) = perception.open().push(pictures(1), [0.1])
    assert seen.features.shape == (20, 64)


def test_an_open_clip_model_gives_its_picture_embedding(clip_file: Path):
    backbone = open_clip_backbone("tiny-crash-clip", str(clip_file))
    assert (backbone.feature_dim, backbone.crops.size) == (24, 32)
    assert backbone.crops.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    whole = open_clip.create_model("tiny-crash-clip", pretrained=str(clip_file)).eval()
    crops = backbone.crops(pictures(1), [np.array([[0, 0, 30, 40]])])
    with torch.inference_mode():
        torch.testing.assert_close(backbone.network(crops), whole.encode_image(crops))


def test_an_open_clip_tower_can_come_in_a_file_of_its_own(clip_file: Path, tmp_path: Path):
    tower = {name.removeprefix("visual."): value for name, value in load_file(clip_file).items() if "visual." in name}
    save_file(tower, tmp_path / "tower.safetensors")
    options = {"backbone": "tiny-crash-clip", "backbone_weights": str(tmp_path / "tower.safetensors")}
    perception = build_backbone_perception("open_clip", {"detector": "none", **options})
    whole = open_clip_backbone("tiny-crash-clip", str(clip_file))
    (seen,) = perception.open().push(pictures(1), [0.0])
    with torch.inference_mode():
        expected = whole.network(whole.crops(pictures(1), [np.zeros((0, 4), np.int64)]))
    np.testing.assert_allclose(seen.features[:1], expected.numpy(), atol=1e-6)


def test_a_backbone_must_be_named():
    with pytest.raises(InputError, match="'timm' needs the name of a backbone"):
        build_backbone_perception("timm", {"detector": "none"})


def test_unknown_names_are_answered_with_similar_ones():
    with pytest.raises(InputError, match="timm has no model 'resnet5'") as caught:
        timm_backbone("resnet5")
    assert "resnet50" in caught.value.hint
    with pytest.raises(InputError, match="open_clip has no model 'ViT-B-33'") as caught:
        open_clip_backbone("ViT-B-33")
    assert "ViT-B-32" in caught.value.hint


def test_weights_out_of_reach_are_named_with_their_address():
    with pytest.raises(WeightsUnavailableError, match="timm/resnet18 are not on this machine") as caught:
        timm_backbone("resnet18")
    assert "https://huggingface.co/timm/resnet18" in caught.value.message
    assert "backbone_weights" in caught.value.hint
    with pytest.raises(WeightsUnavailableError, match=r"ViT-B-32 \(laion2b_s34b_b79k\) are not on this machine"):
        open_clip_backbone("ViT-B-32", "laion2b_s34b_b79k")
    with pytest.raises(WeightsUnavailableError, match="neither a file nor a tag open_clip has for ViT-B-32"):
        open_clip_backbone("ViT-B-32", "mine.pt")


def test_weights_of_another_network_are_refused(timm_file: Path, clip_file: Path):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        timm_backbone("test_resnet", str(timm_file))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        open_clip_backbone("tiny-crash-clip", str(timm_file))


def test_the_fit_of_frame_and_boxes_can_be_chosen(timm_file: Path):
    backbone = timm_backbone("test_vit", str(timm_file), options=CropOptions(box_resize="centre"))
    assert (backbone.crops.frame, backbone.crops.box) == ("squash", "centre")
