"""What can be done with block indices: normal form, full and partial blocks, transposition, union, intersection."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.kernels import spans

if TYPE_CHECKING:
    from mmattn.kernels.block_index import BlockIndex

__all__ = [
    "check_fields",
    "ids_to_mask",
    "intersection",
    "mask_to_ids",
    "normalise_ids",
    "regrid",
    "same_fields",
    "split_blocks",
    "take",
    "transpose_blocks",
    "union",
]

_POSITIONAL = ("causal", "window", "sinks", "cu_q", "cu_k", "spans")


def check_fields(blocks: "BlockIndex") -> None:
    """Checks shapes, dtypes and ranges of all fields.

    Raises:
        ValueError: a field does not fit the others.
    """
    for name in ("q_block", "k_block"):
        if getattr(blocks, name) < 1:
            raise ValueError(f"{name} must be a positive number of tokens, got {getattr(blocks, name)}")
    for name in ("q_len", "k_len", "sinks"):
        if getattr(blocks, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(blocks, name)}")
    if blocks.window is not None and blocks.window < 1:
        raise ValueError(f"window must be at least 1 token (the query's own position) or None, got {blocks.window}")
    if blocks.count.ndim != 3 or blocks.index.ndim != 4 or blocks.index.shape[:3] != blocks.count.shape:
        raise ValueError(
            f"count must be (B|1, H|1, nq) and index (B|1, H|1, nq, kmax), got {tuple(blocks.count.shape)} "
            f"and {tuple(blocks.index.shape)}"
        )
    if blocks.count.shape[2] != blocks.num_q_blocks:
        raise ValueError(
            f"q_len {blocks.q_len} in blocks of {blocks.q_block} makes {blocks.num_q_blocks} query blocks, "
            f"count has {blocks.count.shape[2]}"
        )
    if (blocks.cu_q is None) != (blocks.cu_k is None):
        raise ValueError("documents need both cu_q and cu_k")
    if blocks.cu_q is not None and blocks.cu_k is not None:
        _check_documents(blocks.cu_q, blocks.cu_k, blocks.q_len, blocks.k_len)
    valid = blocks.k_valid
    if valid is not None and (valid.dtype != torch.bool or valid.ndim != 2 or valid.shape[1] != blocks.k_len):
        raise ValueError(f"k_valid must be bool (B, {blocks.k_len}), got {valid.dtype} {tuple(valid.shape)}")
    if valid is not None and len({1, blocks.index.shape[0], valid.shape[0]}) > 2:
        raise ValueError(f"k_valid has batch {valid.shape[0]}, index has batch {blocks.index.shape[0]}")
    shape = None if blocks.spans is None else tuple(blocks.spans.shape)
    if shape is not None and (len(shape) != 3 or shape[0] < 1 or shape[1:] != (blocks.q_len, 2)):
        raise ValueError(f"spans must be (S, {blocks.q_len}, 2), got {shape}")


def _check_documents(cu_q: Tensor, cu_k: Tensor, q_len: int, k_len: int) -> None:
    for name, cu, length in (("cu_q", cu_q, q_len), ("cu_k", cu_k, k_len)):
        values = cu.tolist()
        if cu.ndim != 1 or len(values) < 2 or values[0] != 0 or values[-1] != length or values != sorted(values):
            raise ValueError(f"{name} must rise from 0 to {length}, got {values}")
    if len(cu_q) != len(cu_k):
        raise ValueError(f"cu_q names {len(cu_q) - 1} documents, cu_k {len(cu_k) - 1}")


def normalise_ids(count: Tensor, index: Tensor, num_blocks: int) -> tuple[Tensor, Tensor]:
    """Returns count and ids with every row ascending, without duplicates, with a tail of zeros (int32, contiguous).

    Raises:
        ValueError: a count or an id is out of range.
    """
    width = index.shape[-1]
    if count.numel() and not 0 <= int(count.min()) <= int(count.max()) <= width:
        raise ValueError(f"count must be between 0 and kmax {width}, got {int(count.min())} .. {int(count.max())}")
    tail = torch.arange(width, device=index.device) >= count[..., None]
    ids = index.long().masked_fill(tail, num_blocks)
    inside = ids.masked_select(~tail)
    if inside.numel() and not 0 <= int(inside.min()) <= int(inside.max()) < num_blocks:
        raise ValueError(
            f"key-block ids must be in 0 .. {num_blocks - 1}, got {int(inside.min())} .. {int(inside.max())}"
        )
    ids = ids.sort(dim=-1).values
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[..., 1:] = ids[..., 1:] == ids[..., :-1]
    ids = ids.masked_fill(repeated, num_blocks).sort(dim=-1).values
    used = ids < num_blocks
    count = used.sum(dim=-1)
    widest = int(count.max()) if count.numel() else 0
    ids = ids.masked_fill(~used, 0)[..., :widest]
    return count.to(torch.int32), ids.to(torch.int32).contiguous()


def ids_to_mask(count: Tensor, index: Tensor, num_blocks: int) -> Tensor:
    """Returns bool ``(..., num_blocks)``, True at the first ``count`` ids of each row."""
    used = torch.arange(index.shape[-1], device=index.device) < count[..., None]
    # One spare column takes the ignored tail.
    ids = index.long().masked_fill(~used, num_blocks)
    mask = torch.zeros(*index.shape[:-1], num_blocks + 1, dtype=torch.bool, device=index.device)
    return mask.scatter_(-1, ids, True)[..., :num_blocks]


def mask_to_ids(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns count ``(...)`` and ascending ids ``(..., m)`` of the True entries of a bool ``(..., n)``."""
    count = mask.sum(dim=-1)
    widest = int(count.max()) if count.numel() else 0
    ids = (~mask).to(torch.int8).argsort(dim=-1, stable=True)[..., :widest]
    ids = ids.masked_fill(torch.arange(widest, device=mask.device) >= count[..., None], 0)
    return count.to(torch.int32), ids.to(torch.int32)


def split_blocks(blocks: "BlockIndex") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns (count, ids) of the partial and (count, ids) of the full blocks.

    A block is full if every pair of its true tokens is allowed; a block in which nothing is allowed is dropped.
    """
    areas = spans.block_areas(blocks.row_spans, blocks.index, blocks.q_block, blocks.k_block, blocks.k_len)
    rows = torch.arange(blocks.num_q_blocks, device=blocks.device) * blocks.q_block
    height = (blocks.q_len - rows).clamp(max=blocks.q_block)
    width = (blocks.k_len - blocks.index.long() * blocks.k_block).clamp(max=blocks.k_block)
    used = torch.arange(blocks.index.shape[-1], device=blocks.device) < blocks.count[..., None]
    some, full = used & (areas > 0), used & (areas == height[:, None] * width)
    index = blocks.index
    if blocks.k_valid is not None:
        none_valid, all_valid = _block_validity(blocks.k_valid, blocks.num_k_blocks, blocks.k_block)
        batch = blocks.batch_size
        index = index.expand(batch, *index.shape[1:])
        per_row = index.long().flatten(1)
        none_valid, all_valid = none_valid.expand(batch, -1), all_valid.expand(batch, -1)
        some = some & ~none_valid.gather(1, per_row).view(index.shape)
        full = full & all_valid.gather(1, per_row).view(index.shape)
    return *_compress(index, some & ~full), *_compress(index, full)


def _block_validity(k_valid: Tensor, num_blocks: int, k_block: int) -> tuple[Tensor, Tensor]:
    """Returns bool ``(B, nk)`` twice: no key of the block is valid, all of them are."""
    batch, length = k_valid.shape
    padded = torch.zeros(2, batch, num_blocks * k_block, dtype=torch.bool, device=k_valid.device)
    padded[0, :, :length], padded[1, :, :length] = k_valid, ~k_valid
    some_valid, some_padding = padded.view(2, batch, num_blocks, k_block).any(dim=-1)
    return ~some_valid, ~some_padding


def _compress(index: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Returns count and the kept ids moved to the front, order preserved."""
    count = keep.sum(dim=-1)
    widest = int(count.max()) if count.numel() else 0
    order = (~keep).to(torch.int8).argsort(dim=-1, stable=True)[..., :widest]
    ids = index.gather(-1, order)
    ids = ids.masked_fill(torch.arange(widest, device=index.device) >= count[..., None], 0)
    return count.to(torch.int32), ids.to(torch.int32).contiguous()


def transpose_blocks(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns count and ids of the query blocks of every key block, from a bool ``(..., nq, nk)``."""
    return mask_to_ids(mask.transpose(-1, -2))


def regrid(blocks: "BlockIndex", q_block: int, k_block: int) -> "BlockIndex":
    """Returns the same mask on a finer grid.

    Raises:
        ValueError: the new block sizes do not divide the old ones.
    """
    if blocks.q_block % q_block or blocks.k_block % k_block:
        raise ValueError(
            f"blocks of {blocks.q_block} x {blocks.k_block} can not be cut into blocks of {q_block} x {k_block}"
        )
    if (q_block, k_block) == (blocks.q_block, blocks.k_block):
        return blocks
    num_q, num_k = -(-blocks.q_len // q_block), -(-blocks.k_len // k_block)
    mask = blocks.mask().repeat_interleave(blocks.q_block // q_block, dim=-2)[..., :num_q, :]
    mask = mask.repeat_interleave(blocks.k_block // k_block, dim=-1)[..., :num_k]
    count, index = mask_to_ids(mask)
    return replace(blocks, count=count, index=index, q_block=q_block, k_block=k_block)


def intersection(left: "BlockIndex", right: "BlockIndex") -> "BlockIndex":
    """Returns the index of the pairs that both allow."""
    left, right = _on_one_grid(left, right)
    count, index = mask_to_ids(left.mask() & right.mask())
    if left.k_valid is None or right.k_valid is None:
        valid = left.k_valid if right.k_valid is None else right.k_valid
    else:
        valid = left.k_valid & right.k_valid
    if _same_predicate(left, right):
        return replace(left, count=count, index=index, k_valid=valid)
    shared = spans.intersect(left.row_spans, right.row_spans)
    return replace(_without_predicate(left), count=count, index=index, k_valid=valid, spans=shared)


def union(left: "BlockIndex", right: "BlockIndex") -> "BlockIndex":
    """Returns the index of the pairs that either allows.

    Raises:
        ValueError: the predicates differ and an index is not shared by batch and heads, so that the union has no
            block-index form; or the key paddings differ.
    """
    left, right = _on_one_grid(left, right)
    if not same_fields({"k_valid": left.k_valid}, {"k_valid": right.k_valid}):
        raise ValueError("a union needs the same k_valid on both sides; apply the padding after the union")
    count, index = mask_to_ids(left.mask() | right.mask())
    if _same_predicate(left, right):
        return replace(left, count=count, index=index)
    if left.index.shape[:2] != (1, 1) or right.index.shape[:2] != (1, 1):
        raise ValueError(
            "a union of two different predicates (causal, window, sinks, documents, spans) needs indices that are "
            f"shared by batch and heads, got {tuple(left.index.shape[:2])} and {tuple(right.index.shape[:2])}"
        )
    either = spans.normalise(torch.cat([_spans_with_blocks(left), _spans_with_blocks(right)]))
    return replace(_without_predicate(left), count=count, index=index, spans=either)


def _on_one_grid(left: "BlockIndex", right: "BlockIndex") -> tuple["BlockIndex", "BlockIndex"]:
    if (left.q_len, left.k_len) != (right.q_len, right.k_len):
        raise ValueError(
            f"indices of {left.q_len} x {left.k_len} and {right.q_len} x {right.k_len} tokens can not be combined"
        )
    q_block, k_block = math.gcd(left.q_block, right.q_block), math.gcd(left.k_block, right.k_block)
    return regrid(left, q_block, k_block), regrid(right, q_block, k_block)


def _same_predicate(left: "BlockIndex", right: "BlockIndex") -> bool:
    return same_fields({n: getattr(left, n) for n in _POSITIONAL}, {n: getattr(right, n) for n in _POSITIONAL})


def _without_predicate(blocks: "BlockIndex") -> "BlockIndex":
    return replace(blocks, causal=False, window=None, sinks=0, cu_q=None, cu_k=None, spans=None)


def _spans_with_blocks(blocks: "BlockIndex") -> Tensor:
    """Returns normal spans that also express the (shared) block selection: one span per run of selected blocks."""
    mask = torch.nn.functional.pad(blocks.mask()[0, 0].to(torch.int8), (1, 1))
    step = mask.diff(dim=-1)  # (nq, nk + 1): +1 where a run starts, -1 where it has ended
    starts, ids = mask_to_ids(step == 1)[1], mask_to_ids(step == 1)[0]
    stops = mask_to_ids(step == -1)[1]
    runs = torch.stack([starts, stops], dim=-1).long() * blocks.k_block  # (nq, runs, 2)
    used = torch.arange(runs.shape[1], device=runs.device) < ids[:, None]
    runs = runs.clamp(max=blocks.k_len).masked_fill(~used[..., None], 0).transpose(0, 1)
    if runs.shape[0] == 0:
        runs = runs.new_zeros(1, blocks.num_q_blocks, 2)
    by_token = runs.repeat_interleave(blocks.q_block, dim=1)[:, : blocks.q_len]
    return spans.intersect(blocks.row_spans, by_token)


def take(blocks: "BlockIndex", batch: int | slice, head: int | slice) -> "BlockIndex":
    """Returns the index of some batch items and heads; a dimension that is shared stays shared."""
    rows = slice(batch, batch + 1 or None) if isinstance(batch, int) else batch
    cols = slice(head, head + 1 or None) if isinstance(head, int) else head
    count, index, valid = blocks.count, blocks.index, blocks.k_valid
    if index.shape[0] > 1:
        count, index = count[rows], index[rows]
    if index.shape[1] > 1:
        count, index = count[:, cols], index[:, cols]
    if valid is not None and valid.shape[0] > 1:
        valid = valid[rows]
    return replace(blocks, count=count, index=index, k_valid=valid)


def same_fields(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether two dictionaries hold the same keys with equal tensors and numbers."""
    if left.keys() != right.keys():
        return False
    for name, value in left.items():
        other = right[name]
        if isinstance(value, Tensor) and isinstance(other, Tensor):
            if value.shape != other.shape or not bool((value == other).all()):
                return False
        elif isinstance(value, Tensor) or isinstance(other, Tensor) or value != other:
            return False
    return True
