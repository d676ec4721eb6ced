"""PyTorch's FlexAttention under our block masks: forward only, on request, as a second opinion and a yardstick.

A `BlockIndex` is FlexAttention's ``BlockMask`` already: full and partial blocks are listed, and the predicate becomes
one ``mask_mod`` over the key spans. It is compiled once for all shapes (``dynamic=True``): FlexAttention compiled for
fixed shapes falls back to a dense eager form, without a word, at the ninth one.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from mmattn.kernels.block_index import BlockIndex

__all__ = ["block_sparse_attention"]

_RECOMPILE_LIMIT = 64


def block_sparse_attention(q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float) -> tuple[Tensor, None]:
    """Returns attention over the selected blocks, and None where other backends return the log-sum-exp.

    The first call of a process compiles for tens of seconds.

    Args:
        q: ``(B, H, Tq, D)``, not requiring gradients.
        k: ``(B, Hkv, Tk, D)``.
        v: ``(B, Hkv, Tk, Dv)``.
        blocks: The mask.
        scale: Multiplies the scores.

    Raises:
        ValueError: If gradients are asked for: FlexAttention has none on the CPU.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise ValueError(
            "q, k or v require gradients and backend 'flex' is forward only; "
            "use backend='auto', or call it under torch.no_grad()"
        )
    if q.numel() == 0 or k.numel() == 0:
        return q.new_zeros(*q.shape[:-1], v.shape[-1]), None
    mask = blocks.derived("flex", lambda: _block_mask(blocks))
    with torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT, fail_on_recompile_limit_hit=True):
        out: Tensor = _compiled()(q, k, v, block_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out, None


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _block_mask(blocks: BlockIndex) -> BlockMask:
    partial_count, partial_ids, full_count, full_ids = blocks.split
    # FlexAttention reads the number of key blocks off the width of the lists.
    partial_ids, full_ids = (F.pad(x, (0, blocks.num_k_blocks - x.shape[-1])) for x in (partial_ids, full_ids))
    spans, valid = blocks.row_spans, blocks.k_valid

    def attends(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        allowed = (spans[0, i, 0] <= j) & (j < spans[0, i, 1])
        for s in range(1, spans.shape[0]):
            allowed = allowed | ((spans[s, i, 0] <= j) & (j < spans[s, i, 1]))
        return allowed if valid is None else allowed & valid[b * (valid.shape[0] > 1), j]

    return BlockMask.from_kv_blocks(
        partial_count,
        partial_ids,
        full_count,
        full_ids,
        BLOCK_SIZE=(blocks.q_block, blocks.k_block),
        mask_mod=attends,
        seq_lengths=(blocks.q_len, blocks.k_len),
        compute_q_blocks=False,
    )
