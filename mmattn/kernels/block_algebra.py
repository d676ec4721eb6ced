"""What can be done with masks of blocks: a finer grid, union, intersection, some items of a batch.

Every function reads fields and returns a mask of the class that it was given.
"""

import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmattn.kernels import spans
from mmattn.kernels.block_fields import BlockFields
from mmattn.kernels.block_ids import mask_to_ids

__all__ = ["intersection", "regrid", "same_fields", "take", "union"]

Blocks = TypeVar("Blocks", bound=BlockFields)

_POSITIONAL = ("causal", "window", "sinks", "cu_q", "cu_k", "spans")


def regrid(blocks: Blocks, q_block: int, k_block: int) -> Blocks:
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


def intersection(left: Blocks, right: Blocks) -> Blocks:
    """Returns the index of the pairs that both allow.

    Raises:
        ValueError: the two are of different lengths.
    """
    left, right = _on_one_grid(left, right)
    count, index = mask_to_ids(left.mask() & right.mask())
    if left.k_valid is None or right.k_valid is None:
        valid = left.k_valid if right.k_valid is None else right.k_valid
    else:
        valid = left.k_valid & right.k_valid
    # Equal predicates stay the named fields they are; different ones meet as spans, which can express any.
    if _same_predicate(left, right):
        return replace(left, count=count, index=index, k_valid=valid)
    shared = spans.intersect(left.row_spans, right.row_spans)
    return replace(_without_predicate(left), count=count, index=index, k_valid=valid, spans=shared)


def union(left: Blocks, right: Blocks) -> Blocks:
    """Returns the index of the pairs that either allows.

    Raises:
        ValueError: the predicates differ and an index is not shared by batch and heads, so that the union has no
            block-index form; or the key paddings or the lengths differ.
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


def _on_one_grid(left: Blocks, right: Blocks) -> tuple[Blocks, Blocks]:
    if (left.q_len, left.k_len) != (right.q_len, right.k_len):
        raise ValueError(
            f"indices of {left.q_len} x {left.k_len} and {right.q_len} x {right.k_len} tokens can not be combined"
        )
    # The coarsest grid on which both can be written.
    q_block, k_block = math.gcd(left.q_block, right.q_block), math.gcd(left.k_block, right.k_block)
    return regrid(left, q_block, k_block), regrid(right, q_block, k_block)


def _same_predicate(left: Blocks, right: Blocks) -> bool:
    return same_fields({n: getattr(left, n) for n in _POSITIONAL}, {n: getattr(right, n) for n in _POSITIONAL})


def _without_predicate(blocks: Blocks) -> Blocks:
    return replace(blocks, causal=False, window=None, sinks=0, cu_q=None, cu_k=None, spans=None)


def _spans_with_blocks(blocks: Blocks) -> Tensor:
    """Returns normal spans that also express the (shared) block selection: one span per run of selected blocks."""
    # A border of unselected blocks, so that every run has a start and an end.
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


def take(blocks: Blocks, batch: int | slice, head: int | slice) -> Blocks:
    """Returns the index of some batch items and heads; a dimension that is shared stays shared."""
    # ``or None``: for -1 the stop would be 0, and the slice empty.
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
