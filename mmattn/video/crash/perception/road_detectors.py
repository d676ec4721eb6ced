"""Detectors of road users behind one small protocol: torchvision's, boxes from a file, or none.

Torchvision's detectors know the 80 classes of COCO; six of them are road users and become the four kinds that the
whole system speaks of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmattn.core.weights.pretrained import import_torchvision, load_torchvision
from mmattn.errors import InputError
from mmattn.video.crash.perception.tracking import KIND_NAMES

__all__ = ["COCO_KINDS", "FrameBoxes", "NoDetector", "RoadDetector", "TorchvisionDetector", "kind_name", "kind_number"]

Picture = npt.NDArray[np.uint8]

COCO_KINDS = {1: "pedestrian", 2: "two_wheeler", 3: "car", 4: "two_wheeler", 6: "truck", 8: "truck"}
"""Kind of each COCO category that is a road user: person, bicycle, car, motorcycle, bus, truck."""

_OTHER_NAMES = {
    "person": "pedestrian", "bicycle": "two_wheeler", "motorcycle": "two_wheeler", "motorbike": "two_wheeler",
    "cyclist": "two_wheeler", "rider": "two_wheeler", "bus": "truck", "van": "car",
}  # fmt: skip


class FrameBoxes(NamedTuple):
    """What a detector finds in a frame.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the frame, (n, 4).
        scores: In [0, 1], (n,).
        kinds: Index into KIND_NAMES, -1 for anything else, (n,).
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int64]

    @classmethod
    def none(cls) -> FrameBoxes:
        """Returns no boxes."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


class RoadDetector(Protocol):
    """Finds road users; looks at each frame on its own."""

    def __call__(self, frames: Sequence[Picture], times: Sequence[float]) -> list[FrameBoxes]:
        """Returns what is found in each frame.

        Args:
            frames: uint8 RGB (H, W, 3).
            times: Seconds from the start of the video.
        """
        ...


class NoDetector:
    """Finds nothing: the whole frame stands in for the boxes."""

    def __call__(self, frames: Sequence[Picture], times: Sequence[float]) -> list[FrameBoxes]:
        """Returns no boxes for every frame."""
        return [FrameBoxes.none() for _ in frames]


class TorchvisionDetector:
    """A detector of ``torchvision.models.detection`` with COCO's categories.

    Args:
        network: The detector; it takes a list of (3, H, W) in [0, 1] and resizes itself.
        device: Where it runs.
        threshold: Smallest score that is kept.
    """

    def __init__(self, network: nn.Module, *, device: torch.device, threshold: float = 0.3) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self.threshold = threshold

    @classmethod
    def from_name(
        cls, name: str, weights: str, *, device: torch.device, threshold: float = 0.3, size: int | None = None
    ) -> TorchvisionDetector:
        """Builds a detector by torchvision's name.

        Args:
            name: Such as "fasterrcnn_resnet50_fpn_v2" or "retinanet_resnet50_fpn_v2".
            weights: The path of a file, or the name torchvision has for the weights, such as "COCO_V1".
            device: Where it runs.
            threshold: Smallest score that is kept.
            size: Shorter side of the picture inside the detector, pixels; None is the network's own.

        Raises:
            InputError: If there is no such detector.
            WeightsUnavailableError: If the weights are neither a file, nor cached, nor reachable.
            CheckpointError: If the file does not fit.
        """
        models = import_torchvision().models
        known = [n for n in models.list_models(module=models.detection) if not n.startswith(("keypoint", "mask"))]
        if name not in known:
            raise InputError(f"There is no detector {name!r}.", f"Choose one of: none, {', '.join(known)}.")
        sizes: dict[str, Any] = {} if size is None else {"min_size": size}
        network = models.get_model(name, weights=None, weights_backbone=None, **sizes)
        load_torchvision(network, name, weights, option="detector_weights in perception_options")
        return cls(network, device=device, threshold=threshold)

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Picture], times: Sequence[float]) -> list[FrameBoxes]:
        """Returns the road users of each frame, best first; one call of the network for all."""
        pictures = [torch.from_numpy(np.ascontiguousarray(f)).to(self.device).permute(2, 0, 1) / 255 for f in frames]
        return [self._road_users(found) for found in self.network(pictures)]

    def _road_users(self, found: dict[str, torch.Tensor]) -> FrameBoxes:
        labels = found["labels"].cpu().numpy()
        scores = found["scores"].double().cpu().numpy()
        kinds = np.array([kind_number(COCO_KINDS.get(int(label), "")) for label in labels], np.int64)
        kept = (kinds >= 0) & (scores >= self.threshold)
        return FrameBoxes(found["boxes"].double().cpu().numpy()[kept], scores[kept], kinds[kept])


def kind_number(name: str) -> int:
    """Returns the index into KIND_NAMES of a class name, those of COCO and KITTI included; -1 for any other.

    >>> kind_number("Car"), kind_number("bus"), kind_number("traffic light")
    (0, 1, -1)
    """
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    plain = _OTHER_NAMES.get(plain, plain)
    return KIND_NAMES.index(plain) if plain in KIND_NAMES else -1


def kind_name(number: int) -> str:
    """Returns the name of a kind, "other" for -1.

    >>> kind_name(3), kind_name(-1)
    ('pedestrian', 'other')
    """
    return KIND_NAMES[number] if 0 <= number < len(KIND_NAMES) else "other"
