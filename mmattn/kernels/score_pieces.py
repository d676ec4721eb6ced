"""A mask in pieces: some query rows at a time, with the keys that they may see; what computes scores runs over them.

Letters: B batch, Hkv heads of keys, G query heads to each, t rows and M keys of a piece.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.score_terms import aligned_positions
from mmattn.kernels.spans import allowed

__all__ = ["BlockPlan", "DensePlan", "Piece", "Plan", "add_bias", "add_keys", "take"]

# Rows of a piece where all rows could go at once: a causal mask then skips most of what it hides.
_ROWS = 256


class Piece(NamedTuple):
    """Some query rows and the keys they may see.

    ``keys`` is a run of keys or their ids ``(B|1, Hkv|1, G|1, M)``; ``visible`` is bool and broadcasts to
    ``(B, Hkv, G, t, M)``, None where every pair is visible.
    """

    rows: slice
    keys: slice | Tensor
    visible: Tensor | None


class Plan(Protocol):
    """What a mask is cut by: ``positions`` are int64 ``(q_len,)``, see ``aligned_positions``."""

    positions: Tensor

    def pieces(self, pairs: int, kv_heads: int) -> Iterator[Piece]:
        """Yields pieces of at most ``pairs`` scores per head and batch item, or of one row."""
        ...


class DensePlan:
    """All keys, or those up to each query's position."""

    def __init__(self, q_len: int, k_len: int, causal: bool, device: torch.device) -> None:
        self.positions = aligned_positions(q_len, k_len, device)
        self.q_len, self.k_len, self.causal = q_len, k_len, causal

    def pieces(self, pairs: int, kv_heads: int) -> Iterator[Piece]:
        """Yields pieces of at most ``pairs`` scores per head and batch item, or of one row."""
        step = min(_ROWS, max(1, pairs // max(1, self.k_len)))
        offset = self.k_len - self.q_len
        for start in range(0, self.q_len, step):
            rows = slice(start, min(start + step, self.q_len))
            width = min(self.k_len, max(0, rows.stop + offset)) if self.causal else self.k_len
            visible = None
            if self.causal and start + offset + 1 < width:
                visible = self.positions[rows, None] >= torch.arange(width, device=self.positions.device)
            if width:
                yield Piece(rows, slice(0, width), visible)


class BlockPlan:
    """The selected blocks of an index, one row of blocks after the other."""

    def __init__(self, blocks: BlockIndex) -> None:
        self.blocks = blocks
        self.positions = blocks.derived(
            "aligned positions", lambda: aligned_positions(blocks.q_len, blocks.k_len, blocks.device, blocks)
        )
        self.shared = blocks.index.shape[:2] == (1, 1)

    def pieces(self, pairs: int, kv_heads: int) -> Iterator[Piece]:
        """Yields pieces of at most ``pairs`` scores per head and batch item, or of one row."""
        blocks = self.blocks
        # Read once: on a GPU every look at a tensor waits for it.
        longest: list[int] = blocks.derived("longest lists", lambda: blocks.count.amax(dim=(0, 1)).tolist())
        for row, count in enumerate(longest):
            if not count:
                continue
            keys, used = self._keys(row, count, kv_heads)
            width = keys.stop - keys.start if isinstance(keys, slice) else keys.shape[-1]
            first, last = row * blocks.q_block, min((row + 1) * blocks.q_block, blocks.q_len)
            step = max(1, pairs // width)
            for start in range(first, last, step):
                rows = slice(start, min(start + step, last))
                yield Piece(rows, keys, self._visible(rows, keys, used))

    def _keys(self, row: int, count: int, kv_heads: int) -> tuple[slice | Tensor, Tensor | None]:
        """Returns the keys of a row of blocks, and which of the ids ``(B|1, Hkv|1, G|1, M)`` are meant."""
        blocks, size = self.blocks, self.blocks.k_block
        ids = blocks.index[:, :, row, :count].long()
        if self.shared:
            run = blocks.derived("key ranges", lambda: _ranges(blocks))[row]
            if run is not None:
                return slice(run[0] * size, min(run[1] * size, blocks.k_len)), None
        keys = (ids[..., None] * size + torch.arange(size, device=ids.device)).flatten(2)
        listed = torch.arange(count, device=ids.device) < blocks.count[:, :, row, None]
        used = listed.repeat_interleave(size, dim=-1) & (keys < blocks.k_len)
        heads = (kv_heads, keys.shape[1] // kv_heads) if keys.shape[1] > 1 else (1, 1)
        return keys.clamp(max=blocks.k_len - 1).unflatten(1, heads), used.unflatten(1, heads)

    def _visible(self, rows: slice, keys: slice | Tensor, used: Tensor | None) -> Tensor:
        spans, valid = self.blocks.row_spans[:, rows], self.blocks.k_valid
        if isinstance(keys, slice):
            visible = allowed(spans, torch.arange(keys.start, keys.stop, device=spans.device))
            return visible if valid is None else visible & valid[:, None, None, None, keys]
        shape = (*keys.shape[:3], rows.stop - rows.start)
        visible = allowed(spans[:, None, None, None].expand(-1, *shape, 2), keys[..., None, :])
        visible = visible if used is None else visible & used[..., None, :]
        if valid is None:
            return visible
        return visible & torch.take_along_dim(valid[:, None, None], keys, dim=-1)[..., None, :]


def _ranges(blocks: BlockIndex) -> list[tuple[int, int] | None]:
    """Returns for every row of blocks of a shared index the range of its key blocks, None where there are gaps."""
    count, index = blocks.count[0, 0].tolist(), blocks.index[0, 0].tolist()
    rows = zip(count, index, strict=True)
    return [(ids[0], ids[0] + n) if n and ids[n - 1] - ids[0] == n - 1 else None for n, ids in rows]


def take(x: Tensor, keys: slice | Tensor, dim: int) -> Tensor:
    """Returns the part of x ``(B, Hkv, G, ., .)`` with these keys (or rows) in dimension -1 or -2.

    A dimension of 1 is shared by all keys and stays, except where x holds the keys themselves.
    """
    if x.shape[dim] == 1 and not (isinstance(keys, Tensor) and dim == -2):
        return x
    if isinstance(keys, slice):
        return x.narrow(dim, keys.start, keys.stop - keys.start)
    return torch.take_along_dim(x, keys[..., None] if dim == -2 else keys[..., None, :], dim)


def add_keys(total: Tensor, keys: slice | Tensor, x: Tensor) -> None:
    """Adds x ``(B, Hkv, G, M, D)`` to total ``(B, Hkv, 1, T, D)`` at the keys."""
    if isinstance(keys, slice):
        total[..., keys, :] += x.sum(dim=2, keepdim=True)
        return
    ids = keys[..., None].expand(x.shape).flatten(2, 3)[:, :, None]
    total.scatter_add_(3, ids, x.flatten(2, 3)[:, :, None])


def add_bias(total: Tensor, piece: Piece, grad: Tensor) -> None:
    """Adds the gradient of a piece's scores to that of the bias ``(B|1, Hkv|1, G|1, Tq|1, Tk|1)``."""
    part = take(total, piece.rows, -2)
    if total.shape[-2] == 1:
        grad = grad.sum(dim=-2, keepdim=True)
    if total.shape[-1] == 1:
        part += grad.sum_to_size(part.shape)
    elif isinstance(piece.keys, slice):
        part = part[..., piece.keys]
        part += grad.sum_to_size(part.shape)
    else:
        spread = grad.new_zeros(*grad.shape[:-1], total.shape[-1])
        spread.scatter_add_(-1, piece.keys[..., None, :].expand(grad.shape), grad)
        part += spread.sum_to_size(part.shape)
