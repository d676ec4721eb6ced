"""From a picture and its mask to the tensors Crane reads: square resize, [0, 1], CLIP's mean and standard deviation.

Source: arXiv 2504.11055 with the transforms of AlirezaSalehy/Crane at commit 39181f9, except that a picture becomes RGB
*before* it is resized (theirs after), which matters for palette and 16-bit files only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmattn.errors import InputError

__all__ = ["CLIP_MEAN", "CLIP_STD", "Preprocess"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """Turns pictures into normalised tensors and masks into binary ones, both S x S; the aspect is not kept.

    Args:
        image_size: Side S of the square, in pixels.

    Raises:
        InputError: If ``image_size`` is not positive.

    >>> Preprocess(28)(np.zeros((40, 60, 3), np.uint8)).shape
    torch.Size([3, 28, 28])
    """

    image_size: int

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise InputError(f"image_size is {self.image_size}, expected a positive number of pixels.")

    def __call__(self, image: npt.NDArray[np.uint8] | Image.Image) -> Tensor:
        """Returns the picture as (3, S, S) float32, resized by Pillow's bicubic filter.

        Args:
            image: (H, W, 3) uint8 RGB, or a Pillow picture of any mode.

        Raises:
            InputError: If an array is not (H, W, 3) uint8 or has no pixels.
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise InputError(
                    f"The picture is an array {image.shape} of {image.dtype}, expected (H, W, 3) of uint8 RGB."
                )
            image = Image.fromarray(image)
        pixels = np.array(image.convert("RGB").resize(self._size, Image.Resampling.BICUBIC))
        return _normalised(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)

    def mask(self, mask: npt.NDArray[np.generic] | Image.Image | None, *, binary: bool = True) -> Tensor:
        """Returns the mask as (1, S, S) float32: any value above 0 is anomalous, resized bilinearly, cut at one half.

        Args:
            mask: (H, W) of any integer or bool type, a Pillow picture, or None for no anomaly.
            binary: Cut at > 0.5; False returns the covered fraction of each pixel in [0, 1].

        Raises:
            InputError: If an array does not have two dimensions or has no pixels.
        """
        if mask is None:
            return torch.zeros(1, *self._size)
        values = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
        if values.ndim != 2 or values.size == 0:
            raise InputError(f"The mask is an array {values.shape}, expected (H, W).")
        picture = Image.fromarray((values > 0).astype(np.uint8) * 255)
        resized = np.array(picture.resize(self._size, Image.Resampling.BILINEAR))
        covered = torch.from_numpy(resized)[None].float() / 255
        return (covered > 0.5).float() if binary else covered

    def tensor(self, images: Tensor) -> Tensor:
        """Returns a batch as (B, 3, S, S) float32 on its own device, within 0.02 of Pillow (0.05 at hard edges).

        Args:
            images: (B, 3, H, W), uint8 or floating in [0, 1].

        Raises:
            InputError: If the shape is another, or floating values are NaN or outside [0, 1].
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"The pictures are a tensor {tuple(images.shape)}, expected (B, 3, H, W).")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        images = images.float()
        if not bool(((images >= 0) & (images <= 1)).all()):
            count = int(images.isnan().sum())
            raise InputError(
                f"The pictures hold {count} NaN and otherwise values from {images.nan_to_num(0).min():g} to "
                f"{images.nan_to_num(0).max():g}, expected [0, 1].",
                "Divide 8-bit values by 255 and replace NaN before the call.",
            )
        resized = F.interpolate(images, self._size, mode="bicubic", align_corners=False, antialias=True)
        # The bicubic filter overshoots at edges; Pillow clips to the 8-bit range.
        return _normalised(resized.clamp(0, 1))

    @property
    def _size(self) -> tuple[int, int]:
        return self.image_size, self.image_size


def _normalised(pixels: Tensor) -> Tensor:
    """Subtracts CLIP's mean and divides by its standard deviation, over the third dimension from the end."""
    mean = pixels.new_tensor(CLIP_MEAN)[:, None, None]
    std = pixels.new_tensor(CLIP_STD)[:, None, None]
    return (pixels - mean) / std
