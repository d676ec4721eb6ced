"""The plan for masks that differ between heads or batch items: gathered key blocks, many query blocks per call.

Query blocks with the same number of selected key blocks form one kernel call: their key blocks are gathered side by
side, every query block is a batch item of its own. Full blocks need no mask; partial ones are a second partial with a
mask of their own blocks only, merged. Gathered keys are worked off in chunks that stay in the cache.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.kernels.backends.flash import (
    AdditiveMask,
    accumulate_dtype,
    additive,
    flash_backward,
    flash_forward,
    merge_into,
)
from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.spans import allowed

__all__ = ["GatherPlan"]

# Bytes of gathered keys and values per call: small enough for the cache, large enough to keep the threads busy.
_CHUNK_BYTES = 8 << 20


class _Group(NamedTuple):
    """Query blocks with equally many key blocks.

    ``rows (n,)`` are ids ``(b H + h) nq + r``, ``keys (n, m)`` ids ``(b Hkv + h') nk + c``; ``width`` keys of the
    ``m k_block`` gathered ones exist (the last block may be short). Partial blocks are ``masked``.
    """

    rows: Tensor
    keys: Tensor
    width: int
    masked: bool


class GatherPlan:
    """The groups of an index for given batch and head numbers."""

    def __init__(self, blocks: BlockIndex, batch: int, heads: int, kv_heads: int) -> None:
        """Groups the query blocks of ``blocks`` for q ``(batch, heads, ...)`` and k ``(batch, kv_heads, ...)``."""
        self.blocks = blocks
        self.kv_heads = kv_heads
        part_count, part, full_count, full = blocks.split
        shape = (batch, heads, blocks.num_q_blocks)
        self.groups = [
            *self._group(full_count, full, shape, masked=False),
            *self._group(part_count, part, shape, masked=True),
        ]
        filled = torch.zeros(math.prod(shape), dtype=torch.bool)
        for group in self.groups:
            filled[group.rows] |= not group.masked
        self.unfilled = (~filled).nonzero()[:, 0]
        padded_rows = blocks.num_q_blocks * blocks.q_block - blocks.q_len
        # (S, nq, q_block, 2): rows after the last query see nothing.
        self.spans = F.pad(blocks.row_spans, (0, 0, 0, padded_rows)).unflatten(1, (-1, blocks.q_block))
        self.k_valid: Tensor | None = None
        if blocks.k_valid is not None:
            padding = blocks.num_k_blocks * blocks.k_block - blocks.k_len
            self.k_valid = F.pad(blocks.k_valid, (0, padding)).expand(batch, -1).reshape(-1, blocks.k_block)

    def _group(self, count: Tensor, ids: Tensor, shape: tuple[int, int, int], *, masked: bool) -> list[_Group]:
        """Returns the groups of one list of blocks; the last, short key block makes a group of its own width."""
        batch, heads, _ = shape
        nk, size = self.blocks.num_k_blocks, self.blocks.k_block
        missing = nk * size - self.blocks.k_len
        if ids.shape[-1] == 0:
            return []
        count = count.expand(shape).reshape(-1).long()
        ids = ids.expand(*shape, ids.shape[-1]).long()
        kv_head = torch.arange(heads) // (heads // self.kv_heads)
        base = (torch.arange(batch)[:, None] * self.kv_heads + kv_head) * nk
        keys = (ids + base[..., None, None]).flatten(0, 2)
        last = ids.flatten(0, 2).gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
        short = (last == nk - 1) & (missing > 0)
        groups = []
        for number in count.unique().tolist():
            for is_short in (False, True):
                rows = ((count == number) & (short == is_short)).nonzero()[:, 0]
                if number and len(rows):
                    width = number * size - (missing if is_short else 0)
                    groups.append(_Group(rows, keys[rows, :number].contiguous(), width, masked))
        return groups

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns ``out`` and ``lse`` of q ``(B, H, Tq, D)`` on k, v ``(B, Hkv, Tk, D)``."""
        blocks = self.blocks
        queries = _table(q, blocks.q_block)
        keys, values = _table(k, blocks.k_block), _table(v, blocks.k_block)
        out = torch.empty_like(queries)
        out[self.unfilled] = 0.0
        lse = torch.full(queries.shape[:2], -torch.inf, dtype=accumulate_dtype(q.dtype))
        gather_k, gather_v = _Gather(keys), _Gather(values)
        for group in self._chunks(keys):
            mask = self._mask(group, q.dtype)
            query = queries[group.rows][:, None]
            partial = flash_forward(query, gather_k(group), gather_v(group), scale=scale, mask=mask)
            part_out, part_lse = partial[0][:, 0], partial[1][:, 0]
            if group.masked:
                part_out, part_lse = merge_into(out[group.rows], lse[group.rows], part_out, part_lse)
            out.index_copy_(0, group.rows, part_out)
            lse.index_copy_(0, group.rows, part_lse)
        lse = lse.view(*q.shape[:2], -1)[..., : q.shape[2]]
        return out.view(*q.shape[:2], -1, q.shape[3])[:, :, : q.shape[2]], lse

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of q, k, v, summed in float32 or better."""
        blocks, dtype = self.blocks, accumulate_dtype(q.dtype)
        by_query = [_table(x, blocks.q_block) for x in (grad_out, q, out)]
        lse_table = _table(lse[..., None], blocks.q_block)[..., 0]
        keys, values = _table(k, blocks.k_block), _table(v, blocks.k_block)
        grads = tuple(torch.zeros(x.shape, dtype=dtype) for x in (by_query[1], keys, values))
        gather_k, gather_v = _Gather(keys), _Gather(values)
        for group in self._chunks(keys):
            upstream, query, merged = (x[group.rows][:, None] for x in by_query)
            grad_q, *grad_kv = flash_backward(
                upstream, query, gather_k(group), gather_v(group), merged,
                lse_table[group.rows][:, None], scale=scale, mask=self._mask(group, q.dtype),
            )  # fmt: skip
            grads[0].index_add_(0, group.rows, grad_q[:, 0].to(dtype))
            for total, grad in zip(grads[1:], grad_kv, strict=True):
                padding = group.keys.shape[1] * blocks.k_block - group.width
                grad = F.pad(grad[:, 0].to(dtype), (0, 0, 0, padding))
                total.index_add_(0, group.keys.flatten(), grad.reshape(-1, *total.shape[1:]))
        return tuple(  # type: ignore[return-value]
            grad.view(*x.shape[:2], -1, x.shape[3])[:, :, : x.shape[2]]
            for grad, x in zip(grads, (q, k, v), strict=True)
        )

    def _chunks(self, keys: Tensor) -> Iterator[_Group]:
        """Yields the groups in pieces whose gathered keys and values fit the chunk size."""
        for group in self.groups:
            per_row = 2 * group.keys.shape[1] * keys[0].numel() * keys.element_size()
            step = max(1, _CHUNK_BYTES // per_row)
            for start in range(0, len(group.rows), step):
                piece = slice(start, start + step)
                yield group._replace(rows=group.rows[piece], keys=group.keys[piece])

    def _mask(self, group: _Group, dtype: torch.dtype) -> AdditiveMask | None:
        """Returns the mask ``(n, 1, q_block, width)`` of a piece of partial blocks."""
        if not group.masked:
            return None
        size, nk = self.blocks.k_block, self.blocks.num_k_blocks
        within = torch.arange(size)
        positions = (group.keys % nk)[..., None] * size + within  # (n, m, k_block)
        spans = self.spans[:, group.rows % self.blocks.num_q_blocks]  # (S, n, q_block, 2)
        mask = allowed(spans, positions.flatten(1)[:, None])
        if self.k_valid is not None:
            batch = group.keys // (nk * self.kv_heads)
            valid = self.k_valid[batch * nk + group.keys % nk].flatten(1)
            mask = mask & valid[:, None]
        return additive(mask[:, None, :, : group.width], dtype)


def _table(x: Tensor, block: int) -> Tensor:
    """Returns ``(B, H, T, D)`` as a table of blocks ``(B H nb, block, D)``, zero padded at the end."""
    padding = -x.shape[2] % block
    # Padding by nothing would still copy.
    return (F.pad(x, (0, 0, 0, padding)) if padding else x).reshape(-1, block, x.shape[3])


class _Gather:
    """Gathers key blocks side by side into one scratch buffer: fresh memory for every call would cost page faults."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.scratch = table.new_empty(0)

    def __call__(self, group: _Group) -> Tensor:
        """Returns the keys of a piece, ``(n, 1, width, D)``; valid until the next call."""
        shape = (group.keys.numel(), *self.table.shape[1:])
        if self.scratch.numel() < math.prod(shape):
            self.scratch = self.table.new_empty(math.prod(shape))
        rows = self.scratch[: math.prod(shape)].view(shape)
        torch.index_select(self.table, 0, group.keys.flatten(), out=rows)
        return rows.view(len(group.rows), 1, -1, shape[2])[:, :, : group.width]
