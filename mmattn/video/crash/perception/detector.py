"""The embedded detector: road users as centre points, with distance, heading, brake lamps and motion.

One small convolutional network reads a picture and the grey picture two frames earlier. At a quarter of the resolution
it gives a heat map per class whose peaks are box centres (arXiv 1904.07850), and at every cell the box, the logarithm
of the distance, the bearing, the heading, the brake lamps and the relative velocity of a road user centred there; for
the whole picture, the speed of the camera. Differs from the source in the second picture and in all that follows the
box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.video.crash.perception.camera import FOCAL, HEIGHT, WIDTH
from mmattn.video.crash.perception.tracking import KIND_NAMES, Detections

__all__ = ["LAG", "STRIDE", "VALUES", "CrashDetector", "DetectorOutput", "decode_boxes", "detector_input"]

STRIDE = 4
LAG = 2
"""The second picture is this many frames older, 0.2 s."""
VALUES = ("dx", "dy", "log_width", "log_height", "log_distance", "shift", "sin", "cos", "lamp", "vx", "vz")
"""What is known at a cell: centre in cells from the cell's corner, size in cells, m, bearing beyond the box's centre
(times 2), heading, logit of lit lamps, relative velocity in 10 m/s."""

_NMS = 0.55


class DetectorOutput(NamedTuple):
    """What the detector says of B pictures on a grid of h x w cells.

    Attributes:
        heat: Logits of a centre by class, (B, 4, h, w).
        values: :data:`VALUES`, (B, 11, h, w).
        speed: Speed of the camera, m/s, (B,).
    """

    heat: Tensor
    values: Tensor
    speed: Tensor


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, C, H, W) of the same shape."""
        return F.relu(x + self.second(self.first(x)))


def convolution(inputs: int, outputs: int, *, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Returns convolution, batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class CrashDetector(nn.Module):
    """Centre-point detector.

    Args:
        widths: Channels at strides 2, 4, 8, 16 and 32.
        neck: Channels of the path back to stride 4.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96, 128), neck: int = 48) -> None:
        super().__init__()
        two, four, eight, sixteen, thirty_two = widths
        self.stem = convolution(4, two, stride=2)
        self.four = nn.Sequential(convolution(two, four, stride=2), Residual(four))
        self.eight = nn.Sequential(convolution(four, eight, stride=2), Residual(eight), Residual(eight))
        self.sixteen = nn.Sequential(convolution(eight, sixteen, stride=2), Residual(sixteen), Residual(sixteen))
        self.thirty_two = nn.Sequential(convolution(sixteen, thirty_two, stride=2), Residual(thirty_two))
        self.sides = nn.ModuleList([nn.Conv2d(width, neck, 1) for width in (four, eight, sixteen, thirty_two)])
        self.smooth = nn.ModuleList([convolution(neck, neck), convolution(neck, neck)])
        self.heat = nn.Sequential(nn.Conv2d(neck, 48, 1), nn.ReLU(inplace=True), nn.Conv2d(48, len(KIND_NAMES), 1))
        self.values = nn.Sequential(nn.Conv2d(neck, 64, 1), nn.ReLU(inplace=True), nn.Conv2d(64, len(VALUES), 1))
        self.speed = nn.Sequential(nn.Linear(2 * (eight + sixteen), 64), nn.ReLU(inplace=True), nn.Linear(64, 1))
        nn.init.constant_(self.heat[-1].bias, -3.5)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> DetectorOutput:
        """Detects in pictures (B, 4, H, W): RGB and the grey of two frames before, all in [-0.5, 0.5]."""
        four = self.four(self.stem(pictures))
        eight = self.eight(four)
        sixteen = self.sixteen(eight)
        levels = [four, eight, sixteen, self.thirty_two(sixteen)]
        up = self.sides[3](levels[3])
        for i in (2, 1, 0):
            up = self.sides[i](levels[i]) + F.interpolate(up, size=levels[i].shape[-2:], mode="nearest")
            if i < 2:
                up = self.smooth[i](up)
        halves = [part.mean((2, 3)) for level in (eight, sixteen) for part in level.chunk(2, 2)]
        speed = self.speed(torch.cat([half.float() for half in halves], 1))[:, 0]
        return DetectorOutput(self.heat(up).float(), self.values(up).float(), 10 * speed)


def detector_input(pictures: Tensor, before: Tensor) -> Tensor:
    """Returns the network's input of pictures and those two frames before, uint8 (B, H, W, 3) each, (B, 4, H, W)."""
    grey = before.float() @ torch.tensor([0.299, 0.587, 0.114])
    both = torch.cat([pictures.float(), grey[..., None]], -1)
    return (both / 255 - 0.5).permute(0, 3, 1, 2)


def decode_boxes(output: DetectorOutput, threshold: float = 0.3, most: int = 40) -> list[Detections]:
    """Reads the road users off the maps: peaks above a threshold, one per place.

    Args:
        output: Of B pictures of WIDTH x HEIGHT.
        threshold: Smallest probability of a centre.
        most: Largest number per picture.

    Returns:
        One set of detections per picture, best first, in pixels of WIDTH x HEIGHT.
    """
    heat = output.heat.sigmoid()
    peak = torch.where(F.max_pool2d(heat, 3, 1, 1) == heat, heat, torch.zeros(()))
    scores, places = peak.flatten(1).topk(most)
    cells = heat.shape[2] * heat.shape[3]
    columns = output.values.flatten(2)
    found = []
    for b in range(len(heat)):
        keep = scores[b] >= threshold
        score, place = scores[b][keep].double().numpy(), places[b][keep]
        cell = place % cells
        values = columns[b][:, cell].double().numpy()
        kind = (place // cells).numpy()
        row, column = (cell // heat.shape[3]).numpy(), (cell % heat.shape[3]).numpy()
        found.append(as_detections(values, score, kind, row, column))
    return found


def as_detections(
    values: np.ndarray, score: np.ndarray, kind: np.ndarray, row: np.ndarray, column: np.ndarray
) -> Detections:
    """Turns the values (11, n) of n cells into detections, dropping what overlaps a better one."""
    middle = np.stack([column + values[0], row + values[1]], 1) * STRIDE
    half = np.exp(np.clip(values[2:4].T, -1.5, 4.6)) * STRIDE / 2
    box = np.clip(np.concatenate([middle - half, middle + half], 1), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    keep = suppress(box)
    box, values, score, kind = box[keep], values[:, keep], score[keep], kind[keep]
    far = np.exp(np.clip(values[4], -0.5, 4.7))
    bearing = (box[:, 0] + box[:, 2] - WIDTH) / 2 / FOCAL + values[5] / 2
    # Left not as long as 1: a picture tells along from across the road, but seldom to which side somebody faces.
    heading = values[6:8].T / np.maximum(np.linalg.norm(values[6:8].T, axis=1, keepdims=True), 1.0)
    clipped = np.stack([box[:, 0] <= 1, box[:, 2] >= WIDTH - 1, box[:, 3] >= HEIGHT - 1], 1)
    lamp = 1 / (1 + np.exp(-values[8]))
    place = np.stack([bearing * far, far], 1)
    return Detections(box, score, kind, place, heading, lamp, values[9:11].T * 10, clipped)


def suppress(box: np.ndarray) -> np.ndarray:
    """Returns the places of boxes (n, 4), best first, that overlap no better one by more than 0.55."""
    kept: list[int] = []
    area = np.maximum(box[:, 2:] - box[:, :2], 1e-3).prod(1)
    for i in range(len(box)):
        low, high = np.maximum(box[kept, :2], box[i, :2]), np.minimum(box[kept, 2:], box[i, 2:])
        common = np.maximum(high - low, 0).prod(1)
        if not len(kept) or (common / (area[kept] + area[i] - common)).max() <= _NMS:
            kept.append(i)
    return np.array(kept, int)
