"""The mask zoo: constructors of ``BlockIndex``, from plain causal to BlockRank and the scales of VAR.

Patterns follow LongCA-bench (arXiv 2510.17896), FlexPrefill (arXiv 2502.20766, flattened ids), BlockRank
(arXiv 2510.05396) and VAR (arXiv 2404.02905).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from mmattn.kernels.block_fields import BlockFields
from mmattn.kernels.block_ids import block_validity, keep_ids, mask_to_ids
from mmattn.kernels.spans import block_areas, slice_spans, touched_blocks
from mmattn.kernels.windows import windowed

__all__ = ["BlockPatterns"]

Blocks = TypeVar("Blocks", bound=BlockFields)

_BLOCK = 128


class BlockPatterns(BlockFields):
    """Constructors, inherited by ``BlockIndex``. Lengths are tokens; ``k_len`` defaults to ``q_len``."""

    @classmethod
    def from_mask(
        cls,
        mask: Tensor,
        q_len: int | None = None,
        k_len: int | None = None,
        *,
        q_block: int = _BLOCK,
        k_block: int = _BLOCK,
        **predicate: Any,
    ) -> Self:
        """Returns the index of a boolean block mask.

        Args:
            mask: bool ``(nq, nk)``, ``(H, nq, nk)`` or ``(B, H, nq, nk)``, True where the block is selected.
            q_len: number of queries, default ``nq * q_block``.
            k_len: number of keys, default ``nk * k_block``.
            q_block: queries per block.
            k_block: keys per block.
            **predicate: further ``BlockIndex`` fields: causal, window, sinks, cu_q, cu_k, k_valid, spans. A window is
                a number of keys or (left, right), as in ``attention``.

        Raises:
            ValueError: the mask is not boolean, its shape does not fit the lengths, or the window is none.
        """
        if mask.dtype != torch.bool or not 2 <= mask.ndim <= 4:
            raise ValueError(
                f"mask must be bool (nq, nk), (H, nq, nk) or (B, H, nq, nk), got {mask.dtype} {mask.shape}"
            )
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        q_len = mask.shape[-2] * q_block if q_len is None else q_len
        k_len = mask.shape[-1] * k_block if k_len is None else k_len
        if mask.shape[-1] != -(-k_len // k_block):
            raise ValueError(
                f"{k_len} keys in blocks of {k_block} make {-(-k_len // k_block)} blocks, mask has {mask.shape[-1]}"
            )
        count, index = mask_to_ids(mask)
        return cls(count, index, q_block, k_block, q_len, k_len, **windowed(q_len, k_len, predicate, mask.device))

    @classmethod
    def all_blocks(
        cls,
        q_len: int,
        k_len: int | None = None,
        *,
        q_block: int = _BLOCK,
        k_block: int = _BLOCK,
        device: torch.device | str | None = None,
        **predicate: Any,
    ) -> Self:
        """Returns the index of all blocks in which the predicate allows anything; also ``BlockIndex.dense``."""
        k_len = q_len if k_len is None else k_len
        if not predicate:
            shape = (-(-q_len // q_block), -(-k_len // k_block))
            mask = torch.ones(shape, dtype=torch.bool, device=device)
            return cls.from_mask(mask, q_len, k_len, q_block=q_block, k_block=k_block)
        # The predicate is asked first: a mask of all pairs of blocks would be quadratic, and its band is not.
        none = torch.zeros(1, 1, -(-q_len // max(1, q_block)), 0, dtype=torch.int32, device=device)
        fields = windowed(q_len, k_len, predicate, none.device)
        empty = cls(none.sum(dim=-1, dtype=torch.int32), none, q_block, k_block, q_len, k_len, **fields)
        count, index = touched_blocks(empty.row_spans, q_block, k_block)
        return _without_empty_blocks(replace(empty, count=count[None, None], index=index[None, None]))

    # On an instance the field of that name; ``BlockIndex`` tells type checkers so.
    @classmethod
    def causal(cls, q_len: int, k_len: int | None = None, **options: Any) -> Self:  # type: ignore[override]
        """Returns the causal mask, bottom-right aligned; ``options`` are those of ``all_blocks``."""
        return cls.all_blocks(q_len, k_len, causal=True, **options)

    @classmethod
    def sliding_window(
        cls,
        window: int | tuple[int, int],
        q_len: int,
        k_len: int | None = None,
        *,
        sinks: int = 0,
        causal: bool | None = None,
        **options: Any,
    ) -> Self:
        """Returns the mask of the last ``window`` keys (the query's own included) and the first ``sinks`` keys.

        Args:
            window: keys, or (left, right), as in ``attention``.
            q_len: number of queries.
            k_len: number of keys, default ``q_len``.
            sinks: first keys that stay visible.
            causal: False lets a number of keys limit the past only: all later keys stay visible.
            **options: those of ``all_blocks``.
        """
        return cls.all_blocks(q_len, k_len, causal=causal, window=window, sinks=sinks, **options)

    @classmethod
    def documents(cls, cu_q: Tensor, cu_k: Tensor | None = None, *, causal: bool = True, **options: Any) -> Self:
        """Returns the mask of packed documents that do not see each other.

        Args:
            cu_q: ``(n + 1,)`` cumulative lengths ``0 .. q_len``.
            cu_k: the same for the keys, default ``cu_q``.
            causal: causal inside each document, bottom-right aligned there.
            **options: those of ``all_blocks``, for example a window.
        """
        cu_k = cu_q if cu_k is None else cu_k
        options = {"device": cu_q.device, **options}
        return cls.all_blocks(int(cu_q[-1]), int(cu_k[-1]), causal=causal, cu_q=cu_q, cu_k=cu_k, **options)

    @classmethod
    def from_cu_seqlens(
        cls,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor | None = None,
        *,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        **options: Any,
    ) -> Self:
        """Returns the mask of ``flash_attn_varlen_func``, in its words and with its defaults; no ``max_seqlen``.

        Args:
            cu_seqlens_q: ``(n + 1,)`` cumulative lengths ``0 .. total_q``.
            cu_seqlens_k: the same for the keys, default ``cu_seqlens_q``.
            causal: causal inside each sequence, bottom-right aligned there.
            window_size: keys that a query sees to the left and to the right of its own position; -1 is no limit.
            **options: those of ``all_blocks`` except spans, which the window takes.

        Raises:
            ValueError: a side of the window is below -1.

        Example:
            >>> from mmattn.kernels import BlockIndex
            >>> index = BlockIndex.from_cu_seqlens(torch.tensor([0, 2, 5]), window_size=(1, 0))
            >>> index.dense()[0, 0].int().sum(-1).tolist()
            [1, 2, 1, 2, 2]
        """
        left, right = window_size
        if min(left, right) < -1:
            raise ValueError(f"window_size must be (left, right) with -1 for no limit, got {window_size}")
        cu_k, spans = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k, None
        if (left, right) != (-1, -1):
            q_len, k_len = int(cu_seqlens_q[-1]), int(cu_k[-1])
            query = torch.arange(q_len, device=cu_seqlens_q.device)
            sequence = torch.searchsorted(cu_seqlens_q, query, right=True)
            position = query - cu_seqlens_q[sequence] + cu_k[sequence]
            start = torch.zeros_like(query) if left < 0 else (position - left).clamp(min=0)
            stop = torch.full_like(query, k_len) if right < 0 else (position + right + 1).clamp(0, k_len)
            spans = torch.stack([start, stop], dim=-1)[None]
        return cls.documents(cu_seqlens_q, cu_k, causal=causal, spans=spans, **options)

    @classmethod
    def from_flat(
        cls,
        flat: Tensor | Sequence[Tensor | Sequence[int]],
        q_len: int,
        k_len: int | None = None,
        *,
        q_block: int = _BLOCK,
        k_block: int = _BLOCK,
        causal: bool = True,
        **predicate: Any,
    ) -> Self:
        """Returns the index of flattened block ids ``row * nk + column``, one list per head.

        Args:
            flat: ``(H, L)`` or ``(B, H, L)`` ids, padded with negative numbers; or a list of id lists, one per head.
            q_len: number of queries.
            k_len: number of keys, default ``q_len``.
            q_block: queries per block.
            k_block: keys per block.
            causal: in-block predicate.
            **predicate: further fields.

        Raises:
            ValueError: an id is not below ``nq * nk``.
        """
        k_len = q_len if k_len is None else k_len
        num_q, num_k = -(-q_len // q_block), -(-k_len // k_block)
        if not isinstance(flat, Tensor):
            lists = [torch.as_tensor(ids, dtype=torch.int64) for ids in flat]
            flat = torch.nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)
        ids = flat.long().reshape(flat.shape[:-2].numel(), *flat.shape[-2:])
        if ids.numel() and int(ids.max()) >= num_q * num_k:
            raise ValueError(f"flattened ids must be below {num_q} * {num_k} blocks, got {int(ids.max())}")
        mask = torch.zeros(*ids.shape[:2], num_q * num_k + 1, dtype=torch.bool, device=ids.device)
        mask.scatter_(-1, torch.where(ids < 0, num_q * num_k, ids), True)
        mask = mask[..., :-1].unflatten(-1, (num_q, num_k))
        return cls.from_mask(mask, q_len, k_len, q_block=q_block, k_block=k_block, causal=causal, **predicate)

    @classmethod
    def from_slices(
        cls,
        q_ranges: Tensor,
        k_ranges: Tensor,
        types: Tensor,
        q_len: int | None = None,
        k_len: int | None = None,
        **options: Any,
    ) -> Self:
        """Returns the union of typed rectangles.

        Args:
            q_ranges: ``(n, 2)`` half-open query ranges.
            k_ranges: ``(n, 2)`` half-open key ranges.
            types: ``(n,)``; 0 full, 1 causal (bottom-right aligned in its rectangle), 2 inverse causal (top-left
                aligned), 3 both.
            q_len: number of queries, default the largest range end.
            k_len: number of keys, default the largest range end.
            **options: those of ``all_blocks``.

        Raises:
            ValueError: shapes differ, or a type is not known.
        """
        if q_ranges.shape != k_ranges.shape or q_ranges.shape != (len(types), 2):
            raise ValueError(f"ranges must be (n, 2) for n types, got {tuple(q_ranges.shape)}, {tuple(k_ranges.shape)}")
        if not bool(((types >= 0) & (types <= 3)).all()):
            raise ValueError(f"slice types must be 0 (full), 1 (causal), 2 (inverse) or 3 (both), got {types.tolist()}")
        q_len = int(q_ranges.max()) if q_len is None else q_len
        k_len = int(k_ranges.max()) if k_len is None else k_len
        spans = slice_spans(q_ranges, k_ranges, types, q_len)
        return cls.all_blocks(q_len, k_len, spans=spans, **{"device": q_ranges.device, **options})

    @classmethod
    def blockrank(cls, num_blocks: int, block_len: int, valid: Tensor | None = None) -> Self:
        """Returns BlockRank's mask over ``num_blocks`` blocks of ``block_len`` tokens (arXiv 2510.05396, section 3).

        Block 0 holds the instruction, the last one the query, the others documents. Every block is causal in itself;
        documents also see the instruction, the last block sees everything before it.

        Args:
            num_blocks: M, at least 2.
            block_len: tokens per block, padding included.
            valid: bool ``(B, M, block_len)``, False at padding.

        Raises:
            ValueError: there are fewer than 2 blocks.
        """
        if num_blocks < 2:
            raise ValueError(f"BlockRank needs an instruction and a query block, got {num_blocks} block")
        device = None if valid is None else valid.device
        mask = torch.eye(num_blocks, dtype=torch.bool, device=device)
        mask[:, 0] = True
        mask[-1] = True
        k_valid = None if valid is None else valid.flatten(1)
        return cls.from_mask(mask, q_block=block_len, k_block=block_len, causal=True, k_valid=k_valid)

    @classmethod
    def scales(cls, lengths: Sequence[int], *, first: int = 0, **options: Any) -> Self:
        """Returns VAR's mask: a token of a scale sees all tokens of its own and earlier scales (arXiv 2404.02905).

        Args:
            lengths: tokens per scale.
            first: the queries are the tokens of scales ``first ..``, the keys those of all scales: the form for
                generation with a cache.
            **options: those of ``all_blocks``.

        Raises:
            ValueError: a scale has no tokens, or ``first`` is none of them.
        """
        if not 0 <= first < len(lengths) or min(lengths) < 1:
            raise ValueError(f"need scales of at least 1 token and 0 <= first < {len(lengths)}, got {lengths}, {first}")
        sizes = torch.tensor(list(lengths), device=options.get("device"))
        stop = sizes.cumsum(0).repeat_interleave(sizes)[int(sizes[:first].sum()) :]
        spans = torch.stack([torch.zeros_like(stop), stop], dim=-1)[None]
        return cls.all_blocks(len(stop), int(sizes.sum()), spans=spans, **options)


def _without_empty_blocks(blocks: Blocks) -> Blocks:
    """Returns the same mask without the blocks in which nothing is allowed."""
    areas = block_areas(blocks.row_spans, blocks.index, blocks.q_block, blocks.k_block, blocks.k_len)
    keep = (torch.arange(blocks.index.shape[-1], device=blocks.device) < blocks.count[..., None]) & (areas > 0)
    if blocks.k_valid is not None:
        none_valid, _ = block_validity(blocks.k_valid, blocks.num_k_blocks, blocks.k_block)
        # Padding is per batch item, the selection stays shared.
        keep &= ~none_valid.all(dim=0)[blocks.index.long()]
    count, index = keep_ids(blocks.index, keep)
    return replace(blocks, count=count, index=index)
