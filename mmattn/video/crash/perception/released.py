"""The backbones of the released recipe: VGG-16 or ResNet-101 over 19 boxes and the frame.

The features of CCD and A3D are VGG-16's second fully connected layer *before* its ReLU, 4096 wide, of crops that are
not normalised by mean and standard deviation. The published detector (a Cascade R-CNN trained on KITTI, for a version
of mmdetection that no longer installs) is replaced by torchvision's; a head trained on the public features then sees
other boxes than in training. Features of DAD come from a detector of its own and cannot be made again.

Source: the demo of Cogito2012/UString, which the data of DSTA and CRASH were made with.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmattn.core.weights.pretrained import import_torchvision, load_torchvision
from mmattn.errors import InputError
from mmattn.video.crash.perception.crop_perception import Backbone, CropOptions
from mmattn.video.crash.perception.crops import Crops

__all__ = ["ResNet101Pool", "Vgg16Fc7", "released_backbone"]


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
        vgg = _not_initialised("vgg16")
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
        for name, child in _not_initialised("resnet101").named_children():
            if name != "fc":
                self.add_module(name, child)

    def forward(self, crops: Tensor) -> Tensor:
        """Returns features (n, 2048) of crops (n, 3, S, S) in [0, 1]."""
        for stage in self.children():
            crops = stage(crops)
        return crops.flatten(1)


NETWORKS: dict[str, type[Vgg16Fc7 | ResNet101Pool]] = {"vgg16": Vgg16Fc7, "resnet101": ResNet101Pool}


def released_backbone(name: str, weights: str = "", *, options: CropOptions | None = None) -> Backbone:
    """Returns the network that the features were made with: "vgg16", also for an empty name, or "resnet101".

    Raises:
        InputError: If it is neither.
    """
    name, fit = name or "vgg16", options or CropOptions()
    if name not in NETWORKS:
        raise InputError(
            f"The released perception has no backbone {name!r}, expected one of {', '.join(NETWORKS)}.",
            'Other backbones belong to the perceptions "timm" and "open_clip".',
        )
    network = NETWORKS[name]()
    weights = weights or "IMAGENET1K_V1"
    load_torchvision(network, name, weights, option="backbone_weights in perception_options", ignored=network.ignored)
    crops = Crops(frame=fit.frame_resize or "centre", box=fit.box_resize or "centre")
    return Backbone(network, crops, network.feature_dim)


def _not_initialised(name: str) -> Any:
    """Returns a network of torchvision whose tensors hold anything, as they will be loaded."""
    with torch.device("meta"):
        network = getattr(import_torchvision().models, name)()
    return network.to_empty(device="cpu")
