"""The released recipe: crops as the published features were made, one call of the backbone, slots, weights."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from mmattn.core.weights.loading import load_into
from mmattn.errors import CheckpointError, InputError, WeightsUnavailableError
from mmattn.video.crash.perception.backbones import build_backbone_perception, build_detector
from mmattn.video.crash.perception.box_sampling import select_boxes_upstream
from mmattn.video.crash.perception.crop_perception import CropOptions
from mmattn.video.crash.perception.crops import Crops
from mmattn.video.crash.perception.protocol import Perception
from mmattn.video.crash.perception.released import (
    ResNet101Pool,
    Vgg16Fc7,
)
from mmattn.video.crash.perception.road_detectors import NoDetector, TorchvisionDetector, kind_name, kind_number
from tests.video.crash.perception.crop_parts import Told, pictures, small_perception

TIMES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def published(picture: np.ndarray) -> torch.Tensor:
    """The transforms of the published demo."""
    chain = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    return transforms.Compose(chain)(Image.fromarray(picture))


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (41, 53), (256, 256), (700, 311), (3, 200)])
def test_crops_of_a_batch_equal_the_published_transforms_crop_by_crop(height: int, width: int):
    frames = pictures(2, height, width)
    boxes = [np.array([[1, 0, width - 1, height - 1], [width // 2, 1, width // 2 + 2, 3]]), np.array([[0, 0, 3, 2]])]
    crops = Crops()(frames, boxes)
    expected = [published(frames[0]), *(published(frames[0][y1:y2, x1:x2]) for x1, y1, x2, y2 in boxes[0])]
    expected += [published(frames[1]), published(frames[1][0:2, 0:3])]
    assert crops.shape == (5, 3, 224, 224)
    torch.testing.assert_close(crops, torch.stack(expected), atol=1 / 255 + 1e-6, rtol=0)
    assert (crops - torch.stack(expected)).abs().mean() < 1e-4


def test_a_squashed_frame_is_seen_to_its_edges_and_a_centred_one_is_not():
    frame = np.zeros((90, 160, 3), np.uint8)
    frame[:, :10] = 255
    nothing = [np.zeros((0, 4), np.int64)]
    assert Crops(frame="centre")([frame], nothing).max() == 0
    squashed = Crops(frame="squash")([frame], nothing)
    assert squashed[0, 0, :, :13].min() == 1
    assert squashed[0, 0, :, 16:].max() == 0


def test_mean_and_deviation_are_taken_off_each_channel():
    frame = np.full((40, 40, 3), [0, 102, 255], np.uint8)
    crops = Crops(size=8, shorter_side=8, mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))([frame], [np.zeros((0, 4), int)])
    assert crops[0].mean((1, 2)).tolist() == pytest.approx([-1.0, 2.0, 0.5])


def test_the_backbone_is_called_once_for_the_crops_of_a_batch_of_frames():
    perception = small_perception(batch_frames=7)
    perception.open().push(pictures(7), TIMES)
    # Three boxes in six frames, the five best of thirty in one, and the frames; repeated boxes are described once.
    assert perception.backbone.calls == [6 * 4 + 6]
    by_twos = small_perception(batch_frames=2)
    by_twos.open().push(pictures(7), TIMES)
    assert len(by_twos.backbone.calls) == 4


def test_features_equal_those_of_every_crop_on_its_own():
    perception = small_perception()
    frames = pictures(7)
    for frame, seen in zip(frames, perception.open().push(frames, TIMES), strict=True):
        alone = [frame, *(frame[y1:y2, x1:x2] for x1, y1, x2, y2 in seen.boxes.astype(int))]
        crops = torch.cat([perception.crops([region], [np.zeros((0, 4), np.int64)]) for region in alone])
        with torch.inference_mode():
            expected = torch.cat([perception.backbone(crop[None]) for crop in crops])
        np.testing.assert_allclose(seen.features, expected.numpy(), atol=1e-6)
        assert seen.valid.all()
        assert seen.features.shape == (6, 6)
        assert len(seen.scores) == len(seen.classes) == 5


def test_pushing_in_pieces_changes_nothing():
    for options in ({}, {"selection": "upstream"}, {"fill": "empty"}):
        perception = small_perception(**options)
        frames = pictures(7)
        whole = perception.open().push(frames, TIMES)
        session = perception.open()
        pieces = session.push(frames[:3], TIMES[:3]) + session.push(frames[3:4], TIMES[3:4])
        pieces += session.push(frames[4:], TIMES[4:])
        for a, b in zip(whole, pieces, strict=True):
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_allclose(a.features, b.features, atol=1e-6)
            assert a.classes == b.classes


def test_a_frame_without_road_users_stands_in_for_its_boxes():
    (seen,) = small_perception().open().push(pictures(1), [1.0])
    assert seen.boxes.tolist() == [[0, 0, 159, 89]] * 5
    assert seen.classes == ("other",) * 5
    assert seen.valid.all()
    (empty,) = small_perception(fill="empty").open().push(pictures(1), [1.0])
    assert empty.boxes.shape == (0, 4)
    assert empty.valid.tolist() == [True] + [False] * 5
    assert not empty.features[1:].any()


def test_few_boxes_repeat_and_share_their_features():
    (seen,) = small_perception().open().push(pictures(1), [0.1])
    assert seen.scores.tolist() == sorted(seen.scores[:3], reverse=True) + seen.scores[:2].tolist()
    np.testing.assert_array_equal(seen.features[4:], seen.features[1:3])
    (left,) = small_perception(fill="empty").open().push(pictures(1), [0.1])
    np.testing.assert_array_equal(left.boxes, seen.boxes[:3])
    assert left.valid.tolist() == [True] * 4 + [False] * 2


def test_the_upstream_selection_draws_what_the_published_demo_draws():
    (seen,) = small_perception(num_boxes=19, selection="upstream", seed=7).open().push(pictures(1), [0.1])
    found = Told().found(0.1)
    table = np.column_stack([found.boxes, found.scores])
    per_class = [table[found.kinds == kind] for kind in range(4)]
    expected = select_boxes_upstream(per_class, (90, 160), np.random.RandomState(7))
    np.testing.assert_array_equal(seen.boxes, expected[:, :4])
    assert not seen.scores.any()


def test_a_bad_frame_is_refused_and_the_session_goes_on():
    session = small_perception().open()
    session.push(pictures(1), [0.1])
    with pytest.raises(InputError, match="expected uint8 RGB"):
        session.push([np.zeros((4, 4), np.uint8)], [0.2])
    with pytest.raises(InputError, match="ascending times"):
        session.push(pictures(1), [0.1])
    assert len(session.push(pictures(1), [0.2])) == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2160, 3840), (640, 360)])
def test_frames_of_any_shape_are_taken(height: int, width: int):
    (seen,) = small_perception().open().push(pictures(1, height, width), [0.1])
    assert np.isfinite(seen.features).all()


def test_it_keeps_the_protocol_and_says_what_shapes_its_features():
    perception = small_perception(fps=20.0)
    assert isinstance(perception, Perception)
    settings = perception.settings()
    assert settings["crops"]["size"] == 28
    assert settings["num_boxes"] == 5
    assert "batch_frames" not in settings
    assert settings != small_perception(fps=20.0, fill="empty").settings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detektor": "none"}, "perception_options has no detektor"),
        ({"frame_resize": "stretch"}, "frame_resize is 'stretch', expected one of None, centre, squash"),
        ({"selection": "worst"}, "selection is 'worst'"),
        ({"batch_frames": 0}, "batch_frames must be at least 1"),
        ({"selection": "upstream", "fill": "empty"}, "always fills up"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        CropOptions.from_dict(options)


def random_vgg() -> Vgg16Fc7:
    network = Vgg16Fc7().eval()
    torch.manual_seed(0)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=(2 / max(value[0].numel(), 1)) ** 0.5)
    return network


def test_fc7_is_torchvisions_classifier_before_its_second_relu():
    from torchvision.models import vgg16

    ours = random_vgg()
    with torch.device("meta"):
        theirs = vgg16(init_weights=False)
    state = {
        **ours.state_dict(),
        "classifier.6.weight": torch.zeros(1000, 4096),
        "classifier.6.bias": torch.zeros(1000),
    }
    theirs.load_state_dict(state, assign=True)
    theirs.eval()
    crops = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        pooled = theirs.avgpool(theirs.features(crops)).flatten(1)
        expected = theirs.classifier[3](theirs.classifier[2](theirs.classifier[1](theirs.classifier[0](pooled))))
        features = ours(crops)
    assert features.shape == (1, 4096)
    assert (features < 0).any()
    torch.testing.assert_close(features, expected)
    load_into(ours, state, what="the file", ignored=ours.ignored)


def test_resnet_101_gives_what_torchvisions_last_layer_is_given():
    from torchvision.models import resnet101

    theirs = resnet101().eval()
    ours = ResNet101Pool().eval()
    load_into(ours, theirs.state_dict(), what="the file", ignored=ours.ignored)
    theirs.fc = torch.nn.Identity()
    crops = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(crops), theirs(crops))


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest of torchvision's detectors with random weights."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "ssd.pth"
    torch.save(ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict(), file)
    return file


def test_a_detector_is_loaded_from_a_file_and_finds_boxes_in_the_frame(detector_file: Path):
    options = CropOptions(
        detector="ssdlite320_mobilenet_v3_large", detector_weights=str(detector_file), score_threshold=0.0
    )
    detector = build_detector(options, torch.device("cpu"))
    found = detector(pictures(2), [0.0, 0.1])
    assert len(found) == 2
    for one in found:
        assert one.boxes.shape == (len(one.scores), 4)
        assert (one.kinds >= 0).all()
        assert (one.boxes >= 0).all()
        assert (one.boxes <= [160, 90, 160, 90]).all()


def test_only_road_users_above_the_threshold_are_kept():
    class Fixed(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            assert images[0].shape == (3, 90, 160)
            assert images[0].max() <= 1.0
            boxes = torch.arange(24.0).view(6, 4)
            return [{"boxes": boxes, "labels": torch.tensor([3, 1, 10, 6, 4, 3]),
                     "scores": torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.2])}] * len(images)  # fmt: skip

    (found,) = TorchvisionDetector(Fixed(), device=torch.device("cpu"))(pictures(1), [0.0])
    assert [kind_name(kind) for kind in found.kinds] == ["car", "pedestrian", "truck", "two_wheeler"]
    assert found.boxes[:, 0].tolist() == [0, 4, 12, 16]


def test_class_names_of_coco_and_kitti_are_known():
    names = ["Car", "Pedestrian", "Cyclist", "person", "traffic light", "two-wheeler"]
    assert [kind_name(kind_number(name)) for name in names] == [
        "car", "pedestrian", "two_wheeler", "pedestrian", "other", "two_wheeler",
    ]  # fmt: skip


def test_unknown_names_are_answered_with_those_that_exist():
    with pytest.raises(InputError, match="no detector 'yolo'") as caught:
        build_detector(CropOptions(detector="yolo"), torch.device("cpu"))
    assert "fasterrcnn_resnet50_fpn_v2" in caught.value.hint
    with pytest.raises(InputError, match="no backbone 'vgg19', expected one of vgg16, resnet101"):
        build_backbone_perception("released", {"backbone": "vgg19", "detector": "none"})


def test_weights_that_cannot_be_fetched_are_named_with_address_and_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as caught:
        build_backbone_perception("released", {"detector": "none"})
    assert re.search(r"weights vgg16 \(IMAGENET1K_V1\) are not on this machine", caught.value.message)
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in caught.value.message
    assert "backbone_weights" in caught.value.hint
    with pytest.raises(WeightsUnavailableError, match="fasterrcnn_resnet50_fpn_v2"):
        build_backbone_perception("released", {})
    with pytest.raises(WeightsUnavailableError, match="neither a file nor weights torchvision has"):
        build_backbone_perception("released", {"detector": "none", "backbone_weights": "missing.pth"})


def test_cached_weights_are_taken_without_asking_a_server(
    tmp_path: Path, detector_file: Path, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights as Weights

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / Weights.COCO_V1.url.rpartition("/")[2]).write_bytes(detector_file.read_bytes())
    options = CropOptions(detector="ssdlite320_mobilenet_v3_large")
    assert isinstance(build_detector(options, torch.device("cpu")), TorchvisionDetector)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    file = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, file)
    with pytest.raises(CheckpointError, match=r"features.0.weight of shape \(8, 3, 3, 3\), expected \(64, 3, 3, 3\)"):
        build_backbone_perception("released", {"detector": "none", "backbone_weights": str(file)})


def test_other_boxes_can_take_the_place_of_the_detectors():
    perception = small_perception()
    changed = perception.with_detector(NoDetector())
    assert changed.backbone is perception.backbone
    (seen,) = changed.open().push(pictures(1), [0.1])
    assert seen.classes == ("other",) * 5
    assert perception.open().push(pictures(1), [0.1])[0].classes != seen.classes
