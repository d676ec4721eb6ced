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
_CHUNK_BYTES = 8 << 20
# Larger calls take a multiple of this many query blocks, so that threads get even shares.
_SHARE = 8


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
        filled = torch.zeros(math.prod(shape), dtype=torch.bool, device="cpu")
        for group in self.groups:
            filled[group.rows] |= not group.masked
        # Query blocks that no unmasked call writes.
        self.unfilled = (~filled).nonzero()[:, 0]
        padded_rows = blocks.num_q_blocks * blocks.q_block - blocks.q_len
        # (S, nq, q_block, 2): rows after the last query see nothing.
        self.spans = F.pad(blocks.row_spans, (0, 0, 0, padded_rows)).unflatten(1, (-1, blocks.q_block))
        self.k_valid: Tensor | None = None
        if blocks.k_valid is not None:
            padding = blocks.num_k_blocks * blocks.k_block - blocks.k_len
            self.k_valid = F.pad(blocks.k_valid, (0, padding)).expand(batch, -1).reshape(-1, blocks.k_block)

    def _group(self, count: Tensor, ids: Tensor, shape: tuple[int, int, int], *, masked: bool) -> list[_Group]:
        """Returns the groups of one list of blocks; rows that end in the short key block have their own width."""
        batch, heads, _ = shape
        nk, size = self.blocks.num_k_blocks, self.blocks.k_block
        missing = nk * size - self.blocks.k_len
        if ids.shape[-1] == 0:
            return []
        count = count.expand(shape).reshape(-1).long()
        ids = ids.expand(*shape, ids.shape[-1]).long()
        kv_head = torch.arange(heads, device="cpu") // (heads // self.kv_heads)
        base = (torch.arange(batch, device="cpu")[:, None] * self.kv_heads + kv_head) * nk
        keys = (ids + base[..., None, None]).flatten(0, 2)
        last = ids.flatten(0, 2).gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
        # Number of blocks and whether the short one is last: rows of one kind gather equally many keys.
        kind = count * 2 + ((last == nk - 1) & (missing > 0))
        groups = []
        for number in kind[count > 0].unique().tolist():
            rows = (kind == number).nonzero()[:, 0]
            width = (number // 2) * size - missing * (number % 2)
            groups.append(_Group(rows, keys[rows, : number // 2].contiguous(), width, masked))
        return groups

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns ``out`` and ``lse`` of q ``(B, H, Tq, D)`` on k, v ``(B, Hkv, Tk, D)``."""
        size = self.blocks.q_block
        queries = _table(q, size)
        keys, values = _table(k, self.blocks.k_block), _table(v, self.blocks.k_block)
        padded = (*q.shape[:2], self.blocks.num_q_blocks * size)
        # What is returned is no view: the caller may change it in place.
        result = q.new_empty(*padded, q.shape[3])
        result_lse = torch.full(padded, -torch.inf, dtype=accumulate_dtype(q.dtype), device="cpu")
        out, lse = result.view(queries.shape), result_lse.view(queries.shape[:2])
        # Unmasked groups write their rows first; where there is none, masked ones are merged with (0, -inf).
        out[self.unfilled] = 0.0
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
        if padded[2] == q.shape[2]:
            return result, result_lse
        return result[:, :, : q.shape[2]].clone(), result_lse[..., : q.shape[2]].clone()

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients ``(B, H, T, D)`` of q, k, v, summed in float32 or better."""
        size, dtype = self.blocks.k_block, accumulate_dtype(q.dtype)
        tables = [_table(x, self.blocks.q_block) for x in (grad_out, q, out, lse[..., None])]
        keys, values = _table(k, size), _table(v, size)
        sums = [torch.zeros(x.shape, dtype=dtype, device="cpu") for x in (tables[1], keys, values)]
        gather_k, gather_v = _Gather(keys), _Gather(values)
        for group in self._chunks(keys):
            upstream, query, merged, row_lse = (table[group.rows][:, None] for table in tables)
            grad_q, *grad_kv = flash_backward(
                upstream, query, gather_k(group), gather_v(group), merged, row_lse[..., 0],
                scale=scale, mask=self._mask(group, q.dtype),
            )  # fmt: skip
            sums[0].index_add_(0, group.rows, grad_q[:, 0].to(dtype))
            for total, grad in zip(sums[1:], grad_kv, strict=True):
                padding = group.keys.shape[1] * size - group.width
                grad = F.pad(grad[:, 0], (0, 0, 0, padding)) if padding else grad[:, 0]
                total.index_add_(0, group.keys.flatten(), grad.to(dtype).reshape(-1, *total.shape[1:]))
        grads = (
            total.view(*x.shape[:2], -(-x.shape[2] // block) * block, x.shape[3])[:, :, : x.shape[2]]
            for total, x, block in zip(sums, (q, k, v), (self.blocks.q_block, size, size), strict=True)
        )
        grad_q, grad_k, grad_v = grads
        return grad_q, grad_k, grad_v

    def _chunks(self, table: Tensor) -> Iterator[_Group]:
        """Yields the groups in pieces whose gathered keys and values fit the chunk size."""
        for group in self.groups:
            per_row = 2 * group.keys.shape[1] * table[0].numel() * table.element_size()
            step = max(1, _CHUNK_BYTES // per_row)
            step -= step % _SHARE if step > _SHARE else 0
            for start in range(0, len(group.rows), step):
                piece = slice(start, start + step)
                yield group._replace(rows=group.rows[piece], keys=group.keys[piece])

    def _mask(self, group: _Group, dtype: torch.dtype) -> AdditiveMask | None:
        """Returns the mask ``(n, 1, q_block, width)`` of a piece of partial blocks."""
        if not group.masked:
            return None
        size, nk = self.blocks.k_block, self.blocks.num_k_blocks
        positions = (group.keys % nk)[..., None] * size + torch.arange(size, device="cpu")  # (n, m, k_block)
        spans = self.spans[:, group.rows % self.blocks.num_q_blocks]
        mask = allowed(spans, positions.flatten(1)[:, None])  # (n, q_block, m k_block)
        if self.k_valid is not None:
            batch = group.keys // (nk * self.kv_heads)
            valid = self.k_valid[batch * nk + group.keys % nk].flatten(1)
            mask = mask & valid[:, None]
        return additive(mask[:, None, :, : group.width], dtype)


def _table(x: Tensor, block: int) -> Tensor:
    """Returns ``(B, H, T, D)`` as a table of blocks ``(B H nb, block, D)``, zero padded at the end."""
    padding = -x.shape[2] % block
    # Padding by nothing would still copy.
    padded = F.pad(x, (0, 0, 0, padding)) if padding else x
    return padded.reshape(math.prod(padded.shape[:3]) // block, block, x.shape[3])


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
