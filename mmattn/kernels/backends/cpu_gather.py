"""The plan for masks that differ between heads or batch items: gathered key blocks, many query blocks per call.

Query blocks with the same number of selected key blocks form one kernel call: their key blocks are gathered side by
side, every query block is a batch item of its own. Full blocks need no mask; partial ones are a second partial with a
mask of their own blocks only, merged. Gathered keys are worked off in chunks of bounded size.
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
_CHUNK_BYTES = 16 << 20


class _Group(NamedTuple):
    """Query blocks ``start .. stop`` of a list, with equally many key blocks.

    ``keys (n, m)`` are ids ``(b Hkv + h') nk + c``; ``width`` keys of the ``m k_block`` gathered ones exist (the last
    block may be short).
    """

    start: int
    stop: int
    keys: Tensor
    width: int


class _List(NamedTuple):
    """Either the full or the partial (masked) blocks: query blocks ``rows``, ids ``(b H + h) nq + r``, in groups."""

    rows: Tensor
    groups: list[_Group]
    masked: bool


class GatherPlan:
    """The groups of an index for given batch and head numbers."""

    def __init__(self, blocks: BlockIndex, batch: int, heads: int, kv_heads: int) -> None:
        """Groups the query blocks of ``blocks`` for q ``(batch, heads, ...)`` and k ``(batch, kv_heads, ...)``."""
        self.blocks = blocks
        self.kv_heads = kv_heads
        part_count, part, full_count, full = blocks.split
        shape = (batch, heads, blocks.num_q_blocks)
        lists = (
            self._list(full_count, full, shape, masked=False),
            self._list(part_count, part, shape, masked=True),
        )
        self.lists = [entry for entry in lists if entry.groups]
        padded_rows = blocks.num_q_blocks * blocks.q_block - blocks.q_len
        # (S, nq, q_block, 2): rows after the last query see nothing.
        self.spans = F.pad(blocks.row_spans, (0, 0, 0, padded_rows)).unflatten(1, (-1, blocks.q_block))
        self.k_valid: Tensor | None = None
        if blocks.k_valid is not None:
            padding = blocks.num_k_blocks * blocks.k_block - blocks.k_len
            self.k_valid = F.pad(blocks.k_valid, (0, padding)).expand(batch, -1).reshape(-1, blocks.k_block)

    def _list(self, count: Tensor, ids: Tensor, shape: tuple[int, int, int], *, masked: bool) -> _List:
        """Returns one list of blocks; rows whose last key block is the short one make groups of their own width."""
        batch, heads, _ = shape
        nk, size = self.blocks.num_k_blocks, self.blocks.k_block
        missing = nk * size - self.blocks.k_len
        if ids.shape[-1] == 0:
            return _List(torch.empty(0, dtype=torch.int64), [], masked)
        count = count.expand(shape).reshape(-1).long()
        ids = ids.expand(*shape, ids.shape[-1]).long()
        kv_head = torch.arange(heads) // (heads // self.kv_heads)
        base = (torch.arange(batch)[:, None] * self.kv_heads + kv_head) * nk
        keys = (ids + base[..., None, None]).flatten(0, 2)
        last = ids.flatten(0, 2).gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
        kind = count * 2 + ((last == nk - 1) & (missing > 0))
        rows = kind.argsort(stable=True)[int((count == 0).sum()) :]
        groups, start = [], 0
        for number in kind[rows].unique(sorted=True).tolist():
            stop = start + int((kind[rows] == number).sum())
            blocks, is_short = divmod(number, 2)
            width = blocks * size - missing * is_short
            groups.append(_Group(start, stop, keys[rows[start:stop], :blocks].contiguous(), width))
            start = stop
        return _List(rows, groups, masked)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns ``out`` and ``lse`` of q ``(B, H, Tq, D)`` on k, v ``(B, Hkv, Tk, D)``."""
        queries = _table(q, self.blocks.q_block)
        keys, values = _table(k, self.blocks.k_block), _table(v, self.blocks.k_block)
        out = torch.zeros_like(queries)
        lse = torch.full(queries.shape[:2], -torch.inf, dtype=accumulate_dtype(q.dtype))
        gather_k, gather_v = _Gather(keys), _Gather(values)
        for number, blocks in enumerate(self.lists):
            query = queries[blocks.rows][:, None]
            partials = [
                flash_forward(
                    query[group.start : group.stop], gather_k(group), gather_v(group),
                    scale=scale, mask=self._mask(blocks, group, q.dtype),
                )
                for group in _chunks(blocks, keys)
            ]  # fmt: skip
            part_out, part_lse = (torch.cat(parts)[:, 0] for parts in zip(*partials, strict=True))
            if number:
                part_out, part_lse = merge_into(out[blocks.rows], lse[blocks.rows], part_out, part_lse)
            out.index_copy_(0, blocks.rows, part_out)
            lse.index_copy_(0, blocks.rows, part_lse)
        lse = lse.view(*q.shape[:2], -1)[..., : q.shape[2]]
        return out.view(*q.shape[:2], -1, q.shape[3])[:, :, : q.shape[2]], lse

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of q, k, v, summed in float32 or better."""
        size, dtype = self.blocks.k_block, accumulate_dtype(q.dtype)
        tables = [_table(x, self.blocks.q_block) for x in (grad_out, q, out, lse[..., None])]
        keys, values = _table(k, size), _table(v, size)
        sums = [torch.zeros(x.shape, dtype=dtype) for x in (tables[1], keys, values)]
        gather_k, gather_v = _Gather(keys), _Gather(values)
        for blocks in self.lists:
            upstream, query, merged, row_lse = (table[blocks.rows][:, None] for table in tables)
            grads_q = []
            for group in _chunks(blocks, keys):
                part = slice(group.start, group.stop)
                grad_q, *grad_kv = flash_backward(
                    upstream[part], query[part], gather_k(group), gather_v(group), merged[part],
                    row_lse[part][..., 0], scale=scale, mask=self._mask(blocks, group, q.dtype),
                )  # fmt: skip
                grads_q.append(grad_q[:, 0])
                for total, grad in zip(sums[1:], grad_kv, strict=True):
                    padding = group.keys.shape[1] * size - group.width
                    grad = F.pad(grad[:, 0], (0, 0, 0, padding)) if padding else grad[:, 0]
                    total.index_add_(0, group.keys.flatten(), grad.to(dtype).reshape(-1, *total.shape[1:]))
            sums[0].index_add_(0, blocks.rows, torch.cat(grads_q).to(dtype))
        grads = (x.view(*y.shape[:2], -1, y.shape[3])[:, :, : y.shape[2]] for x, y in zip(sums, (q, k, v), strict=True))
        grad_q, grad_k, grad_v = grads
        return grad_q, grad_k, grad_v

    def _mask(self, blocks: _List, group: _Group, dtype: torch.dtype) -> AdditiveMask | None:
        """Returns the mask ``(n, 1, q_block, width)`` of a piece of partial blocks."""
        if not blocks.masked:
            return None
        size, nk = self.blocks.k_block, self.blocks.num_k_blocks
        positions = (group.keys % nk)[..., None] * size + torch.arange(size)  # (n, m, k_block)
        rows = blocks.rows[group.start : group.stop] % self.blocks.num_q_blocks
        mask = allowed(self.spans[:, rows], positions.flatten(1)[:, None])  # (n, q_block, m k_block)
        if self.k_valid is not None:
            batch = group.keys // (nk * self.kv_heads)
            valid = self.k_valid[batch * nk + group.keys % nk].flatten(1)
            mask = mask & valid[:, None]
        return additive(mask[:, None, :, : group.width], dtype)


def _chunks(blocks: _List, table: Tensor) -> Iterator[_Group]:
    """Yields the groups in pieces whose gathered keys and values fit the chunk size."""
    for group in blocks.groups:
        per_row = 2 * group.keys.shape[1] * table[0].numel() * table.element_size()
        step = max(1, _CHUNK_BYTES // per_row)
        for start in range(group.start, group.stop, step):
            stop = min(start + step, group.stop)
            yield _Group(start, stop, group.keys[start - group.start : stop - group.start], group.width)


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
        return rows.view(len(group.keys), 1, -1, shape[2])[:, :, : group.width]
