"""Memories of patch features: few-shot scoring against normal pictures, mutual scoring inside an unlabelled folder.

Both answer one question for every patch of a picture: how far is the nearest patch elsewhere? "Elsewhere" is a few
pictures known to be flawless (:class:`NormalMemory`, the idea of PatchCore, arXiv 2106.08265, and of WinCLIP's
few-shot branch, arXiv 2303.14814), or all the other pictures of the same folder, of which most are assumed to be
flawless (:class:`MutualMemory`, the idea of MuSc, arXiv 2401.16741). They differ from these papers in what they
leave out: no coreset search beyond random thinning, no neighbourhood aggregation, one feature scale.

Shapes: B pictures, N = h * w patches, C channels. Features are L2-normalised; distances are ``1 - cosine`` halved,
so they lie in [0, 1]. A map holds ``x / (1 + x)`` of ``x = distance / scale``, where the scale is the 99th percentile
of what normal patches show: 0.5 is as far away as normal patches hardly ever are, and nothing is too far to count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.errors import InputError
from mmattn.vision.crane.network.scoring import smooth_maps, upsample_maps

__all__ = ["MutualMemory", "NormalMemory", "PatchMemory", "blend", "nearest_distance"]

_CHUNK = 8192  # bank rows compared at once: bounds the distance matrix to N * 8192 floats


class PatchMemory(Protocol):
    """What the predictor asks of a memory."""

    def distances(self, features: Tensor, *, key: str | None = None) -> Tensor:
        """Returns how unusual each patch is, (h, w) in [0, 1], given features (C, h, w) of the picture ``key``."""


def _as_rows(features: Tensor) -> Tensor:
    """(C, h, w) -> (N, C), L2-normalised float32."""
    return F.normalize(features.float().flatten(1).T, dim=-1)


def nearest_distance(queries: Tensor, bank: Tensor) -> Tensor:
    """Returns the distance of each query to its nearest bank row.

    Args:
        queries: (N, C), L2-normalised.
        bank: (M, C), L2-normalised, M >= 1.

    Returns:
        (N,) in [0, 1]. Time O(N M C), memory O(N) beyond one chunk of 8192 bank rows.

    >>> nearest_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).tolist()
    [0.5]
    """
    best = queries.new_full((len(queries),), -1.0)
    for start in range(0, len(bank), _CHUNK):
        best = torch.maximum(best, (queries @ bank[start : start + _CHUNK].T).amax(dim=1))
    return ((1.0 - best) / 2.0).clamp(0.0, 1.0)


def _unit_scale(reference: Tensor) -> float:
    """The distance that maps to 0.5: the 99th percentile of what normal patches show, at least 5e-4."""
    return max(float(torch.quantile(reference, 0.99)), 5e-4)


def _squash(distances: Tensor, scale: float) -> Tensor:
    return distances / (distances + scale)


def blend(scores: Tensor, maps: Tensor, distances: Tensor, *, weight: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Returns scores (B,) and maps (B, H, W) of a picture's text and of its memory together.

    Args:
        scores: (B,) zero-shot scores.
        maps: (B, H, W) zero-shot maps, smoothed.
        distances: (B, h, w) of a memory, in [0, 1].
        weight: Share of the memory, in [0, 1]. Its score is the largest value of its map.
        sigma: Smoothing of the memory's map, in pixels.
    """
    near = smooth_maps(upsample_maps(distances, (maps.shape[1], maps.shape[2])), sigma)
    peak = near.flatten(1).amax(dim=1)
    return (1.0 - weight) * scores + weight * peak, (1.0 - weight) * maps + weight * near


@dataclass
class NormalMemory:
    """Patches of a few flawless pictures.

    Attributes:
        bank: (M, C) L2-normalised patch features.
        scale: Distance that counts as 0.5 in the map.
    """

    bank: Tensor
    scale: float

    @classmethod
    def fit(cls, features: Iterable[Tensor], *, max_patches: int = 50_000, seed: int = 0) -> NormalMemory:
        """Builds the memory from one feature map (C, h, w) per normal picture.

        The scale is taken from each picture's distance to the others. A single picture is split into its left and
        right half instead, the only second opinion there is.

        Args:
            features: Feature maps, any number from one.
            max_patches: Size limit; more patches are thinned at random.
            seed: Seed of the thinning.

        Raises:
            InputError: If there is no feature map at all.
        """
        rows = [_as_rows(f) for f in features]
        if not rows:
            raise InputError("The memory of normal pictures is empty.", "Give a folder with at least one picture.")
        parts = rows if len(rows) > 1 else list(rows[0].chunk(2))
        leave_one_out = [
            nearest_distance(part, torch.cat([other for j, other in enumerate(parts) if j != i]))
            for i, part in enumerate(parts[:16])
        ]
        bank = torch.cat(rows)
        if len(bank) > max_patches:
            keep = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))[:max_patches]
            bank = bank[keep.sort().values]
        return cls(bank, _unit_scale(torch.cat(leave_one_out)))

    def distances(self, features: Tensor, *, key: str | None = None) -> Tensor:
        """Returns the map (h, w) in [0, 1) of distances to the nearest normal patch."""
        nearest = nearest_distance(_as_rows(features), self.bank.to(features.device))
        return _squash(nearest, self.scale).view(features.shape[1:])


@dataclass
class MutualMemory:
    """Features of the other pictures of the same folder, kept on disk in half precision.

    For each patch: the distance to the nearest patch of every other picture, then the mean of the smallest
    ``fraction`` of these. A defect is unlike nearly all other pictures; a normal patch has company.

    Attributes:
        store: (P, N, C) float16 memory map of the reference pictures.
        keys: Key of each reference picture, so that a picture is never compared with itself.
        fraction: Share of the nearest pictures that is averaged (30 % in MuSc).
        scale: Distance that counts as 0.5 in the map.
    """

    store: np.ndarray
    keys: list[str]
    fraction: float = 0.3
    scale: float = field(default=1.0)

    @classmethod
    def fit(
        cls,
        features: Iterable[tuple[str, Tensor]],
        path: Path,
        *,
        count: int,
        max_references: int = 256,
        fraction: float = 0.3,
        seed: int = 0,
    ) -> MutualMemory:
        """Builds the memory from ``(key, feature map (C, h, w))`` pairs.

        Thousands of pictures are compared with ``max_references`` of them, drawn at random, so that time grows
        linearly and memory stays that of one picture.

        Args:
            features: Pairs, in any order; all maps of one shape.
            path: File of the memory map, rewritten.
            count: How many pairs there are.
            max_references: Reference pictures kept.
            fraction: Share of the nearest pictures that is averaged.
            seed: Seed of the draw.

        Raises:
            InputError: If there are fewer than three pictures.
        """
        if count < 3:
            raise InputError(
                f"Mutual scoring compares pictures with each other and was given {count}.",
                "Give a folder of at least three pictures of the same product, or leave --mutual out.",
            )
        chosen = set(np.random.default_rng(seed).permutation(count)[:max_references].tolist())
        store: np.ndarray | None = None
        keys: list[str] = []
        for position, (key, feature) in enumerate(features):
            if position not in chosen:
                continue
            rows = _as_rows(feature).cpu().numpy().astype(np.float16)
            if store is None:
                store = np.memmap(path, dtype=np.float16, mode="w+", shape=(len(chosen), *rows.shape))
            store[len(keys)] = rows
            keys.append(key)
        if store is None or len(keys) < 3:
            raise InputError(
                f"Only {len(keys)} pictures could be read for mutual scoring.",
                "At least three readable ones are needed.",
            )
        memory = cls(store[: len(keys)], keys, fraction)
        sample = [
            memory._raw(torch.from_numpy(np.array(store[i], dtype=np.float32)), keys[i])
            for i in range(min(len(keys), 8))
        ]
        memory.scale = _unit_scale(torch.cat(sample))
        return memory

    def _raw(self, rows: Tensor, key: str | None) -> Tensor:
        others = [i for i, other in enumerate(self.keys) if other != key]
        per_picture = torch.stack(
            [nearest_distance(rows, torch.from_numpy(np.array(self.store[i], dtype=np.float32))) for i in others]
        )
        nearest = max(1, round(self.fraction * len(others)))
        return per_picture.topk(nearest, dim=0, largest=False).values.mean(dim=0)

    def distances(self, features: Tensor, *, key: str | None = None) -> Tensor:
        """Returns the map (h, w) in [0, 1) of mutual distances; the picture ``key`` is left out."""
        raw = self._raw(_as_rows(features).cpu(), key)
        return _squash(raw, self.scale).view(features.shape[1:]).to(features.device)
