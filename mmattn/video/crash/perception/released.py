"""The perception of the released recipe: a detector of torchvision, and VGG-16 or ResNet-101 over 19 boxes and frame.

The features of CCD and A3D are VGG-16's second fully connected layer *before* its ReLU, 4096 wide, of crops that are
not normalised by mean and standard deviation. The published detector (a Cascade R-CNN trained on KITTI, for a version
of mmdetection that no longer installs) is replaced by torchvision's; a head trained on the public features then sees
other boxes than in training. Features of DAD come from a detector of its own and cannot be made again.

Source: the demo of Cogito2012/UString, which the data of DSTA and CRASH were made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.core.weights.pretrained import import_torchvision, load_torchvision
from mmattn.errors import InputError
from mmattn.video.crash.perception.crop_perception import CropOptions, CropPerception
from mmattn.video.crash.perception.crops import Crops
from mmattn.video.crash.perception.road_detectors import NoDetector, RoadDetector, TorchvisionDetector

__all__ = ["ResNet101Pool", "Vgg16Fc7", "build_detector", "build_released_perception"]


class Vgg16Fc7(nn.Module):
    """VGG-16 (arXiv 1409.1556) up to fc7 before its ReLU; parameters are named as torchvision's.

    Attributes:
        feature_dim: 4096.
        ignored: The last layer, which is not built.
    """

    feature_dim = 4096
    ignored = ("classifier.6.",)

    def __init__(self) -> None:
        super().__init__()
        # The layer of 1000 classes is of no use here, and the others are loaded: nothing is initialised.
        with torch.device("meta"):
            vgg = import_torchvision().models.vgg16(init_weights=False)
        vgg.to_empty(device="cpu")
        self.features = vgg.features
        self.classifier = vgg.classifier[:4]

    def forward(self, crops: Tensor) -> Tensor:
        """Returns features (n, 4096) of crops (n, 3, 224, 224) in [0, 1]."""
        features: Tensor = self.classifier(self.features(crops).flatten(1))
        return features


class ResNet101Pool(nn.Module):
    """ResNet-101 (arXiv 1512.03385) up to its average pooling; parameters are named as torchvision's.

    Attributes:
        feature_dim: 2048.
        ignored: The last layer, which is not built.
    """

    feature_dim = 2048
    ignored = ("fc.",)

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            resnet = import_torchvision().models.resnet101()
        resnet.to_empty(device="cpu")
        for name, child in resnet.named_children():
            if name != "fc":
                self.add_module(name, child)

    def forward(self, crops: Tensor) -> Tensor:
        """Returns features (n, 2048) of crops (n, 3, S, S) in [0, 1]."""
        for stage in self.children():
            crops = stage(crops)
        return crops.flatten(1)


BACKBONES: dict[str, type[Vgg16Fc7 | ResNet101Pool]] = {"vgg16": Vgg16Fc7, "resnet101": ResNet101Pool}


def build_released_perception(
    options: Mapping[str, Any],
    *,
    num_boxes: int = 19,
    fps: float = 10.0,
    device: torch.device | None = None,
    detector: RoadDetector | None = None,
) -> CropPerception:
    """Builds the perception and loads its weights.

    Args:
        options: Fields of :class:`CropOptions`; ``backbone`` is "vgg16" (default) or "resnet101".
        num_boxes: Box slots N.
        fps: Frames per second of the risk model.
        device: Where both networks run; None is the CPU.
        detector: Used in the place of the named one, whose weights are then not needed.

    Raises:
        InputError: If an option is unknown.
        WeightsUnavailableError: If weights are neither a file, nor cached, nor reachable.
        CheckpointError: If a file does not fit.
        MissingExtraError: If torchvision is not installed.
    """
    chosen = CropOptions.from_dict(options)
    name = chosen.backbone or "vgg16"
    if name not in BACKBONES:
        raise InputError(
            f"The released perception has no backbone {name!r}, expected one of {', '.join(BACKBONES)}.",
            'Other backbones belong to the perceptions "timm" and "open_clip".',
        )
    device = device or torch.device("cpu")
    found = detector or build_detector(chosen, device)
    backbone = BACKBONES[name]()
    weights = chosen.backbone_weights or "IMAGENET1K_V1"
    load_torchvision(backbone, name, weights, option="backbone_weights", ignored=backbone.ignored)
    crops = Crops(frame=chosen.frame_resize or "centre", box=chosen.box_resize or "centre")
    return CropPerception(
        found,
        backbone,
        crops,
        feature_dim=backbone.feature_dim,
        num_boxes=num_boxes,
        fps=fps,
        device=device,
        options=chosen,
    )


def build_detector(options: CropOptions, device: torch.device) -> RoadDetector:
    """Returns the detector of the options.

    Raises:
        InputError: If there is no such detector.
        WeightsUnavailableError: If its weights are neither a file, nor cached, nor reachable.
    """
    if options.detector == "none":
        return NoDetector()
    return TorchvisionDetector.from_name(
        options.detector,
        options.detector_weights,
        device=device,
        threshold=options.score_threshold,
        size=options.detector_size,
    )
