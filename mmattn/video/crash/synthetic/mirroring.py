"""Clips as a mirror would show them, to train on twice as many: left and right change places, nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from mmattn.video.crash.perception.features import BOX_FEATURES, FRAME_FEATURES

__all__ = ["WithMirrored", "mirrored"]

_SWAPPED = {"clip_left": "clip_right", "clip_right": "clip_left"}
_TURNED = ("u", "x", "vx", "ax", "sin", "u_rate")
_NAMES = BOX_FEATURES + FRAME_FEATURES
_FROM = np.array([_NAMES.index(_SWAPPED.get(name, name)) for name in _NAMES])
_SIGN = np.array([-1 if name in _TURNED else 1 for name in _NAMES])


def mirrored(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Returns features (..., F) of :mod:`.perception.features` as a mirror would show the scene.

    >>> row = np.zeros(87)
    >>> row[BOX_FEATURES.index("x")] = 0.5
    >>> float(mirrored(row)[BOX_FEATURES.index("x")])
    -0.5
    """
    return features[..., _FROM] * _SIGN.astype(features.dtype)


class WithMirrored(Dataset[dict[str, Any]]):
    """Every item of a dataset, then every item as a mirror would show it.

    Args:
        items: Clips with the features of the embedded perception.
    """

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return 2 * len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns an item; the second half of the indices are the mirrored ones.

        Raises:
            IndexError: If there is no such item.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        item: dict[str, Any] = self.items[index % len(self.items)]
        if index < len(self.items):
            return item
        return {**item, "features": torch.from_numpy(mirrored(item["features"].numpy()))}
