"""``BlockFields``: the fields of a block mask, checked and in normal form, and what follows from them alone."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from mmattn.kernels import block_ids, spans

__all__ = ["BlockFields", "SplitBlocks", "TransposedBlocks"]

T = TypeVar("T")
# Kept at a time of what was derived from an index.
_MOST_DERIVED = 8


class SplitBlocks(NamedTuple):
    """Selected blocks in FlexAttention's layout: those that need the predicate, and those that do not.

    ``*_num_blocks`` are int32 ``(B|1, H|1, nq)``, ``*_indices`` int32 ``(B|1, H|1, nq, m)``, ascending with a tail of
    zeros. Blocks in which nothing is allowed are in neither list.
    """

    kv_num_blocks: Tensor
    kv_indices: Tensor
    full_kv_num_blocks: Tensor
    full_kv_indices: Tensor


class TransposedBlocks(NamedTuple):
    """The query blocks that select each key block: int32 ``(B|1, H|1, nk)`` and ``(B|1, H|1, nk, m)``, ascending."""

    q_num_blocks: Tensor
    q_indices: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class BlockFields:
    """The fields of a ``BlockIndex``, which says what they mean.

    Raises:
        ValueError: shapes, dtypes or ids do not fit; the message names the field.
    """

    count: Tensor
    index: Tensor
    q_block: int
    k_block: int
    q_len: int
    k_len: int
    causal: bool = False
    window: int | None = None
    sinks: int = 0
    cu_q: Tensor | None = None
    cu_k: Tensor | None = None
    k_valid: Tensor | None = None
    spans: Tensor | None = None

    def __post_init__(self) -> None:
        """Checks the fields and brings the ids into normal form."""
        _check_fields(self)
        count, index = block_ids.normalise_ids(self.count, self.index, self.num_k_blocks)
        # A frozen dataclass is set this way once, before anybody has seen it.
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "index", index)
        for name in ("cu_q", "cu_k"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, getattr(self, name).to(self.device, torch.int32))
        if self.spans is not None:
            object.__setattr__(self, "spans", spans.normalise(self.spans.to(self.device)))

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.index.device

    @property
    def num_q_blocks(self) -> int:
        """Number of query blocks, the last one possibly short."""
        return -(-self.q_len // self.q_block)

    @property
    def num_k_blocks(self) -> int:
        """Number of key blocks, the last one possibly short."""
        return -(-self.k_len // self.k_block)

    @property
    def batch_size(self) -> int:
        """Batch size of the mask: 1 if it is shared by the batch."""
        return max(self.index.shape[0], 1 if self.k_valid is None else self.k_valid.shape[0])

    @cached_property
    def row_spans(self) -> Tensor:
        """Normal key spans of every query, int64 ``(S, q_len, 2)``: the predicate without blocks and padding."""
        positional = spans.positional_spans(
            self.q_len, self.k_len, causal=self.causal, window=self.window, sinks=self.sinks,
            cu_q=self.cu_q, cu_k=self.cu_k, device=self.device,
        )  # fmt: skip
        return positional if self.spans is None else spans.intersect(positional, self.spans)

    @cached_property
    def _derived(self) -> dict[Hashable, Any]:
        return {}

    def derived(self, key: Hashable, build: Callable[[], T]) -> T:
        """Returns ``build()``, kept with the index for the last few keys: for what backends derive from it."""
        if key not in self._derived:
            # Plans depend on batch and heads, which vary: the oldest one goes.
            while len(self._derived) >= _MOST_DERIVED:
                del self._derived[next(iter(self._derived))]
            self._derived[key] = build()
        return cast("T", self._derived[key])

    @cached_property
    def split(self) -> SplitBlocks:
        """Selected blocks split into partial and full ones (derived once, then cached)."""
        return SplitBlocks(*_split_blocks(self))

    @cached_property
    def transposed(self) -> TransposedBlocks:
        """Query blocks of every key block (derived once, then cached)."""
        return TransposedBlocks(*block_ids.transpose_blocks(self.mask()))

    def mask(self) -> Tensor:
        """Returns the selected blocks as bool ``(B|1, H|1, nq, nk)``."""
        return block_ids.ids_to_mask(self.count, self.index, self.num_k_blocks)


def _check_fields(blocks: BlockFields) -> None:
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


def _split_blocks(blocks: BlockFields) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns (count, ids) of the partial and (count, ids) of the full blocks.

    A block is full if every pair of its true tokens is allowed; a block in which nothing is allowed is dropped.
    """
    areas = spans.block_areas(blocks.row_spans, blocks.index, blocks.q_block, blocks.k_block, blocks.k_len)
    rows = torch.arange(blocks.num_q_blocks, device=blocks.device) * blocks.q_block
    # The last row and column of blocks may be short: full means all *true* pairs.
    height = (blocks.q_len - rows).clamp(max=blocks.q_block)
    width = (blocks.k_len - blocks.index.long() * blocks.k_block).clamp(max=blocks.k_block)
    used = torch.arange(blocks.index.shape[-1], device=blocks.device) < blocks.count[..., None]
    some, full = used & (areas > 0), used & (areas == height[:, None] * width)
    index = blocks.index
    if blocks.k_valid is not None:
        none_valid, all_valid = block_ids.block_validity(blocks.k_valid, blocks.num_k_blocks, blocks.k_block)
        batch = blocks.batch_size
        # Padding differs between batch items: a shared list becomes one for each.
        index = index.expand(batch, *index.shape[1:])
        per_row = index.long().flatten(1)
        none_valid, all_valid = none_valid.expand(batch, -1), all_valid.expand(batch, -1)
        some = some & ~none_valid.gather(1, per_row).view(index.shape)
        full = full & all_valid.gather(1, per_row).view(index.shape)
    return *block_ids.keep_ids(index, some & ~full), *block_ids.keep_ids(index, full)
