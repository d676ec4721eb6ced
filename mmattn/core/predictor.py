"""What every system's predictor and its results look like: the one door for script, app and tests.

A predictor is made from a checkpoint (``CranePredictor.from_pretrained("embedded")``), owns pre- and post-processing,
and returns results that know how to save, print and draw themselves. Both are structural types: a system implements
them by having the methods, not by inheriting.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Predictor", "Result"]

Item = TypeVar("Item", contravariant=True)
Out = TypeVar("Out", bound="Result", covariant=True)


@runtime_checkable
class Result(Protocol):
    """One item's typed outcome: a dataclass of arrays and numbers."""

    def save(self, directory: Path, name: str) -> list[Path]:
        """Writes the outcome's files as ``directory / f"{name}.<kind>"`` and returns their paths.

        Args:
            directory: An existing folder.
            name: The input's full file name (``x.png``), so that ``x.png`` and ``x.jpg`` never share a file.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers of the outcome as plain JSON types, without arrays."""
        ...

    def plot(self) -> NDArray[np.uint8]:
        """Returns one picture of the outcome: uint8 RGB, (H, W, 3)."""
        ...


@runtime_checkable
class Predictor(Protocol[Item, Out]):
    """A loaded model together with its pre- and post-processing.

    Implementations also have the class method ``from_pretrained(source, *, device="auto", **options)`` with
    ``source`` as :func:`mmattn.core.weights.checkpoint.resolve` reads it; it is no part of the protocol because only
    the code that names a system calls it.
    """

    def predict(self, item: Item) -> Out:
        """Returns the outcome of one item, under ``torch.inference_mode()``."""
        ...

    def predict_batch(self, items: Sequence[Item]) -> Sequence[Out]:
        """Returns one outcome per item, in order."""
        ...
