"""Foundation models: whose patch similarities steer D-Attn.

A :class:`Foundation` turns CLIP-normalised images into a grid of features. DINOv2 with registers (arXiv 2304.07193,
2309.16588) is the published choice, DINO (arXiv 2104.14294) the older one, both from timm; the embedded model uses its
own convolutional trunk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmattn.core.weights.loading import load_into
from mmattn.core.weights.pretrained import missing_weights
from mmattn.core.weights.torch_file import read_state
from mmattn.errors import InputError, WeightsUnavailableError
from mmattn.vision.crane.config import CraneConfig

__all__ = ["Foundation", "TimmFoundation", "build_foundation", "to_imagenet"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_TIMM_NAMES = {"dinov2": "vit_base_patch14_reg4_dinov2.lvd142m", "dino": "vit_base_patch8_224.dino"}


class Foundation(Protocol):
    """What D-Attn asks of a foundation model."""

    def __call__(self, images: Tensor) -> Tensor:
        """Returns features (B, F, h, w) of CLIP-normalised images (B, 3, H, W)."""


def to_imagenet(images: Tensor) -> Tensor:
    """Returns CLIP-normalised images (B, 3, H, W) with ImageNet's normalisation; colours are clamped to [0, 1] between.

    >>> to_imagenet(torch.zeros(1, 3, 1, 1)).flatten().tolist()[0]  # (0.4815 - 0.485) / 0.229
    -0.0154...
    """
    clip_mean, clip_std, mean, std = (
        torch.tensor(x, dtype=images.dtype, device=images.device)[:, None, None]
        for x in (CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD)
    )
    return ((images * clip_std + clip_mean).clamp(0.0, 1.0) - mean) / std


class TimmFoundation(nn.Module):
    """Patch tokens of the last block of a timm vision transformer, after its final norm, prefix tokens dropped.

    Args:
        vit: The timm model; it must accept the image size it is given.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (B, F, h, w) of CLIP-normalised images (B, 3, H, W)."""
        vit: Any = self.vit
        height, width = vit.patch_embed.patch_size
        images = to_imagenet(images)
        # 518 is no multiple of 8: DINO's strided patch convolution drops the rest, timm's check would refuse it.
        images = images[:, :, : images.shape[2] // height * height, : images.shape[3] // width * width]
        grid = (images.shape[2] // height, images.shape[3] // width)
        tokens: Tensor = vit.forward_features(images)[:, vit.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, grid)


def build_foundation(config: CraneConfig, *, pretrained: bool = False) -> Foundation | None:
    """Returns the foundation model of a config, or None for plain Crane.

    Args:
        config: ``foundation``, ``foundation_pretrained`` and ``image_size`` are read. The trunk of the embedded model
            is not built here, since it shares the weights of the CLIP's patch embedding.
        pretrained: Load the weights, from the given path or the hub; otherwise they are random.

    Raises:
        InputError: If the name is unknown or no foundation of its own.
        WeightsUnavailableError: If the weights are neither a file, nor cached, nor reachable.
        CheckpointError: If the file does not fit.
    """
    if config.foundation == "none":
        return None
    if config.foundation not in _TIMM_NAMES:
        raise InputError(f"foundation is {config.foundation!r}, expected one of none, {', '.join(_TIMM_NAMES)}.")
    import timm

    name = _TIMM_NAMES[config.foundation]
    patch = 14 if config.foundation == "dinov2" else 8
    size = config.image_size // patch * patch
    own_file = config.foundation_pretrained
    try:
        vit = timm.create_model(name, pretrained=pretrained and own_file is None, img_size=size, num_classes=0)
    except OSError as error:
        option = "foundation_pretrained, --foundation-pretrained; --recipe crane needs no foundation model"
        raise missing_weights(f"timm/{name}", f"https://huggingface.co/timm/{name}", option=option) from error
    if pretrained and own_file is not None:
        _load_file(vit, Path(own_file).expanduser())
    return TimmFoundation(vit.eval())


def _load_file(vit: Any, file: Path) -> None:
    """Loads a timm or original DINO file; positions are resampled to the size of the model."""
    if not file.is_file():
        raise WeightsUnavailableError(f"The foundation weights '{file}' do not exist.", "Check the path.")
    import timm

    state = read_state(file, what="foundation weights")
    resampled = timm.models.vision_transformer.checkpoint_filter_fn(state, vit)
    hint = "Choose the foundation that the weights belong to."
    load_into(vit, resampled, what=f"'{file}'", hint=hint, ignored=("head",))
