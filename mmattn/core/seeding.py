"""Random numbers that depend on what is worked on, and not on what came before."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import numpy as np

__all__ = ["seed_everything"]


def seed_everything(seed: int, names: Sequence[str]) -> None:
    """Seeds Python, numpy and torch from a run's seed and the names of what comes next.

    Whoever seeds before each piece of work can leave out pieces that are done, and draws the same numbers for the rest.
    """
    import torch

    mixed = zlib.crc32("\0".join(names).encode(errors="surrogateescape"), seed & 0xFFFFFFFF)
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - models may draw from numpy's global generator
    torch.manual_seed(mixed)
