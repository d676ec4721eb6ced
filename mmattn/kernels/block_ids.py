"""Lists of block ids and boolean block masks, as tensors: from one to the other, normal form, transposition.

Letters: B batch, H heads, nq query blocks, nk key blocks, m entries of the longest list.
"""

import torch
from torch import Tensor

__all__ = ["block_validity", "ids_to_mask", "keep_ids", "mask_to_ids", "normalise_ids", "transpose_blocks"]


def normalise_ids(count: Tensor, index: Tensor, num_blocks: int) -> tuple[Tensor, Tensor]:
    """Returns count ``(...)`` and ids ``(..., m)`` with every row ascending, without duplicates, then zeros; int32.

    Raises:
        ValueError: a count or an id is out of range.
    """
    width = index.shape[-1]
    if count.numel() and not 0 <= int(count.min()) <= int(count.max()) <= width:
        raise ValueError(f"count must be between 0 and kmax {width}, got {int(count.min())} .. {int(count.max())}")
    tail = torch.arange(width, device=index.device) >= count[..., None]
    # The id after the last one sorts behind all blocks; ignored entries and, below, repeated ones become it.
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
    """Returns bool ``(..., num_blocks)``, True at the first ``count (...)`` of the ids ``index (..., m)`` of each row.

    Example:
        >>> ids_to_mask(torch.tensor([1]), torch.tensor([[2, 0]]), 3).tolist()
        [[False, False, True]]
    """
    used = torch.arange(index.shape[-1], device=index.device) < count[..., None]
    # One spare column takes the ignored tail.
    ids = index.long().masked_fill(~used, num_blocks)
    mask = torch.zeros(*index.shape[:-1], num_blocks + 1, dtype=torch.bool, device=index.device)
    return mask.scatter_(-1, ids, True)[..., :num_blocks]


def mask_to_ids(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns count ``(...)`` and ascending ids ``(..., m)`` of the True entries of a bool ``(..., n)``.

    Example:
        >>> mask_to_ids(torch.tensor([[True, False, True], [False, True, False]]))[1].tolist()
        [[0, 2], [1, 0]]
    """
    count = mask.sum(dim=-1)
    widest = int(count.max()) if count.numel() else 0
    # A stable sort of zeros and ones brings the chosen ids to the front and leaves them ascending.
    ids = (~mask).to(torch.int8).argsort(dim=-1, stable=True)[..., :widest]
    ids = ids.masked_fill(torch.arange(widest, device=mask.device) >= count[..., None], 0)
    return count.to(torch.int32), ids.to(torch.int32)


def transpose_blocks(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns count and ids of the query blocks of every key block, from a bool ``(..., nq, nk)``."""
    return mask_to_ids(mask.transpose(-1, -2))


def block_validity(k_valid: Tensor, num_blocks: int, k_block: int) -> tuple[Tensor, Tensor]:
    """Returns bool ``(B, nk)`` twice: no key of the block is valid, all of them are."""
    batch, length = k_valid.shape
    padded = torch.zeros(2, batch, num_blocks * k_block, dtype=torch.bool, device=k_valid.device)
    padded[0, :, :length], padded[1, :, :length] = k_valid, ~k_valid
    some_valid, some_padding = padded.view(2, batch, num_blocks, k_block).any(dim=-1)
    return ~some_valid, ~some_padding


def keep_ids(index: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Returns count ``(...)`` and the kept ids of ``index (..., m)`` moved to the front, order preserved."""
    count = keep.sum(dim=-1)
    widest = int(count.max()) if count.numel() else 0
    order = (~keep).to(torch.int8).argsort(dim=-1, stable=True)[..., :widest]
    ids = index.gather(-1, order)
    ids = ids.masked_fill(torch.arange(widest, device=index.device) >= count[..., None], 0)
    return count.to(torch.int32), ids.to(torch.int32).contiguous()
