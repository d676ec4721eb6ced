"""Masks of transformers as masks of ``mmattn.kernels.attention``; nothing of transformers is imported.

transformers gives an attention function one of these, depending on the mask function registered beside it: a padding
mask ``(B, n)``, a bool mask ``(B, 1, Tq, Tk)``, an additive one with the smallest number of its dtype at hidden pairs,
or None. A row that sees nothing gives 0 here; there, such rows of padding hold numbers that nobody reads.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.kernels import BlockIndex
from mmattn.kernels.block_ids import mask_to_ids

__all__ = ["BlocksAndBias", "blocks_and_bias", "padding_blocks"]

# The smallest number of the narrowest dtype that masks are made in, float16. Next to any score that is not as low
# itself its exponential is 0 in every dtype, so that the pair may as well be hidden.
_HIDDEN = torch.finfo(torch.float16).min
_BLOCK = 128
# More key spans per query than this are no pattern any more: the mask is then kept as a bias.
_MOST_SPANS = 8


class BlocksAndBias(NamedTuple):
    """``blocks`` and ``bias=`` of ``attention``; the bias ``(B|1, H|1, Tq, Tk)`` is None where blocks say it all."""

    blocks: BlockIndex
    bias: Tensor | None


def padding_blocks(
    attention_mask: Tensor,
    q_len: int,
    k_len: int | None = None,
    *,
    causal: bool = True,
    window: int | None = None,
    q_offset: int | None = None,
) -> BlockIndex:
    """Returns the mask of a padded batch from transformers' ``attention_mask``, padded on either side.

    Args:
        attention_mask: bool or 0 and 1, ``(B, n)``: one entry for every token seen so far, nonzero at real ones.
        q_len: queries of this call: all tokens, or with a cache the new ones.
        k_len: keys, default n. A shorter cache (sliding window) holds the last of the n tokens, a longer one (static)
            has room behind them.
        causal: a query sees no later token.
        window: of ``sliding_window`` models: tokens that a query sees, its own included.
        q_offset: position of the first query among the keys, default such that the queries are the last tokens.

    Raises:
        ValueError: the mask is not two-dimensional or holds other numbers, or a window is asked for without ``causal``.

    Example:
        >>> padded = torch.tensor([[0, 1, 1], [1, 1, 1]])
        >>> padding_blocks(padded, q_len=1).dense()[:, 0].int().tolist()  # a step of decoding
        [[[0, 1, 1]], [[1, 1, 1]]]
    """
    if attention_mask.ndim != 2:
        raise ValueError(
            f"a padding mask is (batch, tokens), got {tuple(attention_mask.shape)}; for (B, H, Tq, Tk) there is "
            "blocks_and_bias"
        )
    valid = attention_mask != 0
    if attention_mask.dtype != torch.bool and not bool((valid == attention_mask).all()):
        raise ValueError(
            f"a padding mask holds 0 and 1, got up to {attention_mask.max().item()}; numbered sequences packed into "
            "one row are BlockIndex.from_cu_seqlens"
        )
    if window is not None and not causal:
        raise ValueError("window counts back from the query: it needs causal=True")
    seen = valid.shape[1]
    k_len = seen if k_len is None else k_len
    valid = F.pad(valid[:, max(0, seen - k_len) :], (0, max(0, k_len - seen)))
    q_offset = min(seen, k_len) - q_len if q_offset is None else q_offset
    k_valid = None if bool(valid.all()) else valid
    options: dict[str, Any] = {"device": valid.device, "k_valid": k_valid}
    if not causal:
        return BlockIndex.all_blocks(q_len, k_len, **options)
    if q_offset + q_len == k_len:
        return BlockIndex.all_blocks(q_len, k_len, causal=True, window=window, **options)
    # Not aligned at the bottom right: the room behind the tokens counts as keys.
    position = torch.arange(q_len, device=valid.device) + q_offset
    start = torch.zeros_like(position) if window is None else (position - window + 1).clamp(min=0)
    spans = torch.stack([start, (position + 1).clamp(max=k_len)], dim=-1)
    return BlockIndex.all_blocks(q_len, k_len, spans=spans[None], **options)


def blocks_and_bias(attention_mask: Tensor) -> BlocksAndBias:
    """Returns a four-dimensional mask as blocks, and as a bias what blocks can not say.

    Causal and other banded masks, with or without padding, become blocks alone. An additive mask with finite numbers
    other than 0 is also the bias. Where heads or batch items differ by more than padding, the bias is 0 or ``-inf``
    inside blocks of 128 x 128. Time and memory O(B H Tq Tk), as the mask itself.

    Args:
        attention_mask: ``(B|1, H|1, Tq, Tk)``; bool with True where a pair is visible, or floating and added to the
            scores, where -65504 (the smallest float16) and less hides a pair.

    Raises:
        ValueError: the mask is not four-dimensional, or neither bool nor floating.

    Example:
        >>> blocks_and_bias(torch.ones(1, 1, 4, 4, dtype=torch.bool).tril())
        BlocksAndBias(blocks=BlockIndex(4 x 4 tokens, blocks of 128 x 128, batch 1, heads 1, density 1.000, causal), \
bias=None)
    """
    mask = attention_mask
    if mask.ndim != 4 or not (mask.dtype == torch.bool or mask.dtype.is_floating_point):
        raise ValueError(
            f"expected a bool or floating mask (B|1, H|1, Tq, Tk), got {mask.dtype} {tuple(mask.shape)}; "
            "a padding mask (B, n) goes to padding_blocks"
        )
    visible = mask if mask.dtype == torch.bool else mask > _HIDDEN
    bias = None if mask.dtype == torch.bool or bool((~visible | (mask == 0)).all()) else mask
    blocks = _pattern(visible)
    if blocks is not None:
        return BlocksAndBias(blocks, bias)
    q_len, k_len = visible.shape[2:]
    padded = F.pad(visible, (0, -k_len % _BLOCK, 0, -q_len % _BLOCK))
    any_visible = padded.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).any(dim=5).any(dim=3)
    zeros = torch.zeros(visible.shape, device=mask.device) if bias is None else bias
    return BlocksAndBias(BlockIndex.from_mask(any_visible, q_len, k_len), zeros.masked_fill(~visible, -torch.inf))


def _pattern(visible: Tensor) -> BlockIndex | None:
    """Returns the index of a bool mask that is one pattern of few spans and padding per batch item, else None."""
    q_len, k_len = visible.shape[2:]
    pattern, valid = visible.any(dim=1).any(dim=0), visible.any(dim=2).any(dim=1)
    options: dict[str, Any] = {"device": visible.device, "k_valid": None if bool(valid.all()) else valid}
    causal = torch.ones_like(pattern).tril(k_len - q_len)
    for known, is_causal in ((causal, True), (torch.ones_like(pattern), False)):
        if torch.equal(visible, (known & valid[:, None, None]).expand_as(visible)):
            return BlockIndex.all_blocks(q_len, k_len, causal=is_causal, **options)
    if not torch.equal(visible, (pattern & valid[:, None, None]).expand_as(visible)):
        return None
    step = F.pad(pattern.to(torch.int8), (1, 1)).diff(dim=-1)
    starts, stops = mask_to_ids(step == 1)[1], mask_to_ids(step == -1)[1]
    if not 1 <= starts.shape[-1] <= _MOST_SPANS:
        return None
    spans = torch.stack([starts, stops], dim=-1).transpose(0, 1)
    return BlockIndex.all_blocks(q_len, k_len, spans=spans, **options)
