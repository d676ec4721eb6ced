"""Block-sparse attention on our Triton kernels: CUDA, or any CPU under ``TRITON_INTERPRET=1`` (slow, for tests).

The host side of [`triton_kernels`][mmattn.kernels.backends.triton_kernels]: it checks what the kernels cannot take,
picks tile sizes, gives the kernels the full and partial blocks of a `BlockIndex`, transposed for the gradients of keys
and values, and differentiates through both the output and the log-sum-exp.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from mmattn.kernels import block_ids
from mmattn.kernels.backends import reference
from mmattn.kernels.backends import triton_kernels as kernels
from mmattn.kernels.backends.fallbacks import differentiable_gradients
from mmattn.kernels.block_index import BlockIndex

__all__ = ["block_sparse_attention", "tile_size"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_SMALLEST_TILE = 16  # of tl.dot


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns attention under a block mask and its log-sum-exp, both differentiable.

    Time O(selected pairs), memory O(T) beside inputs and index: nothing is ``(Tq, Tk)``.

    Args:
        q: ``(B, H, Tq, D)`` float32, float16 or bfloat16.
        k: ``(B, H/G, Tk, D)``; query head ``h`` reads head ``h // G``.
        v: ``(B, H/G, Tk, DV)``.
        blocks: The mask, in blocks of multiples of 16.
        scale: Multiplies the scores.

    Returns:
        ``(B, H, Tq, DV)`` in the dtype of `q` and natural-log float32 ``(B, H, Tq)``; rows that attend nothing give 0
        and ``-inf``, and zero gradients.

    Raises:
        ValueError: If block sizes, dtype or device are beyond the kernels; the message says what to use instead.
    """
    _check(q, blocks)
    out, lse = _BlockSparse.apply(q, k, v, blocks, scale)
    return out, lse


def _check(q: Tensor, blocks: BlockIndex) -> None:
    if blocks.q_block % _SMALLEST_TILE or blocks.k_block % _SMALLEST_TILE:
        raise ValueError(
            f"got blocks of {blocks.q_block} queries x {blocks.k_block} keys; the Triton backend needs multiples of "
            f"{_SMALLEST_TILE}. Build the index with such blocks, or use backend='reference'."
        )
    if q.dtype not in _DTYPES:
        raise ValueError(
            f"got {q.dtype}; the Triton backend takes float32, float16 and bfloat16. "
            "Cast q, k and v, or use backend='reference'."
        )
    interpreted = not isinstance(kernels.forward_kernel, triton.runtime.JITFunction)
    if interpreted and q.dtype == torch.bfloat16:
        raise ValueError(
            "got bfloat16 under TRITON_INTERPRET=1, whose interpreter computes bfloat16 wrongly. "
            "Use float32 or float16, or run on a GPU without that variable."
        )
    if not interpreted and not q.is_cuda:
        raise ValueError(
            f"got tensors on {q.device}; the Triton backend runs on CUDA. "
            "Use backend='auto', or set TRITON_INTERPRET=1 before Python starts to interpret the kernels."
        )


def tile_size(block: int, width: int, itemsize: int, *, backward: bool = False) -> int:
    """Returns how many rows of a block a program holds: the power of two that divides the block and fits the chip.

    Args:
        block: Rows of a block, a multiple of 16.
        width: The wider of the padded head sizes.
        itemsize: Bytes of an element.
        backward: Gradients hold two accumulators, so less is left for the tile.

    >>> tile_size(128, 64, 2), tile_size(128, 128, 4), tile_size(48, 64, 2)
    (64, 32, 16)
    """
    row = width * itemsize
    roomy = 128 if backward or itemsize > 2 else 256
    most = 64 if row <= roomy else 32 if row <= 512 else _SMALLEST_TILE
    return min(most, block & -block)


class _Lists(NamedTuple):
    """Selected blocks of every block row: int32 ``(B|1, H|1, rows)`` counts and ``(B|1, H|1, rows, most)`` ids."""

    full_count: Tensor
    full_index: Tensor
    part_count: Tensor
    part_index: Tensor

    @property
    def strides(self) -> tuple[int, int]:
        """Steps, in lists of rows, from one batch item and one head to the next; 0 where one list serves all."""
        batch, heads = self.full_count.shape[:2]
        return (heads if batch > 1 else 0), (1 if heads > 1 else 0)

    def transposed(self, key_blocks: int) -> "_Lists":
        """Returns the lists of query blocks of every key block."""
        both = ((self.full_count, self.full_index), (self.part_count, self.part_index))
        lists = [block_ids.transpose_blocks(block_ids.ids_to_mask(*x, key_blocks)) for x in both]
        return _Lists(*lists[0], *lists[1])

    def arguments(self) -> tuple[Tensor, ...]:
        """Returns the four tensors as the kernels read them."""
        # A list of no blocks at all has no address; its counts are 0, so that nothing of the stand-in is read.
        return tuple(x.to(torch.int32).contiguous() if x.numel() else x.new_zeros(1, dtype=torch.int32) for x in self)


class _Call(NamedTuple):
    """One attention call: what every kernel needs beside the tensors it differs in."""

    q: Tensor
    k: Tensor
    v: Tensor
    blocks: BlockIndex
    scale: float

    def launch(self, kernel: Any, *tensors: Tensor, lists: _Lists, by_key: bool = False, backward: bool = True) -> None:
        """Runs a kernel with one program per query tile and head, or per key tile and key head."""
        q, k, v, blocks, scale = self
        (B, H, q_len, D), (_, kv_heads, k_len, DV) = q.shape, v.shape
        DP, DVP = (max(_SMALLEST_TILE, triton.next_power_of_2(width)) for width in (D, DV))
        tiles = [
            tile_size(block, max(DP, DVP), q.element_size(), backward=backward)
            for block in (blocks.q_block, blocks.k_block)
        ]
        length, block, heads = (k_len, blocks.k_block, kv_heads) if by_key else (q_len, blocks.q_block, H)
        spans = blocks.derived("triton spans", lambda: blocks.row_spans.to(torch.int32).contiguous())
        # Without padding any byte pointer will do: it is never read.
        valid = spans.view(torch.uint8) if blocks.k_valid is None else blocks.k_valid.view(torch.uint8).contiguous()
        grid = (B * heads * triton.cdiv(length, tiles[by_key]),)
        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device_of(q):
            kernel[grid](
                q, k, v, *tensors, *lists.arguments(), spans, valid,
                *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], k_len if valid.shape[0] > 1 else 0,
                H, H // kv_heads, q_len, k_len, triton.cdiv(length, block),
                lists.full_index.shape[-1], lists.part_index.shape[-1], *lists.strides, scale,
                S=spans.shape[0], HAS_VALID=blocks.k_valid is not None, Q_BLOCK=blocks.q_block, K_BLOCK=blocks.k_block,
                BM=tiles[0], BN=tiles[1], D=D, DP=DP, DV=DV, DVP=DVP, num_warps=4, num_stages=2,
            )  # fmt: skip


class _BlockSparse(torch.autograd.Function):
    """The kernels as one differentiable operation ``(q, k, v) -> (out, lse)``."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, scale: float) -> tuple[Tensor, Tensor]:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out = q.new_zeros(*q.shape[:-1], v.shape[-1])
        lse = torch.full(q.shape[:-1], -torch.inf, dtype=torch.float32, device=q.device)
        ctx.blocks, ctx.scale = blocks, scale
        if out.numel() and k.numel():
            lists = blocks.derived("triton", lambda: _lists(blocks))
            _Call(q, k, v, blocks, scale).launch(kernels.forward_kernel, out, lse, lists=lists, backward=False)
        ctx.save_for_backward(q, k, v, out, lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        if torch.is_grad_enabled():

            def definition(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
                return reference.block_sparse_attention(q, k, v, ctx.blocks, scale=ctx.scale)

            return *differentiable_gradients(definition, (q, k, v), (grad_out, grad_lse)), None, None
        grad_q, grad_k, grad_v = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        if out.numel() and k.numel():
            # FlashAttention-2 (arXiv 2307.08691), Algorithm 2, line 4; lse adds its own gradient to every score's.
            delta = (grad_out.float() * out.float()).sum(dim=-1) - grad_lse
            delta = delta.masked_fill(lse == -torch.inf, 0.0)
            given = (grad_out.contiguous(), lse, delta)
            blocks: BlockIndex = ctx.blocks
            call = _Call(q, k, v, blocks, ctx.scale)
            lists = blocks.derived("triton", lambda: _lists(blocks))
            call.launch(kernels.backward_q_kernel, *given, grad_q, lists=lists)
            by_key = blocks.derived("triton by key", lambda: lists.transposed(blocks.num_k_blocks))
            call.launch(kernels.backward_kv_kernel, *given, grad_k, grad_v, lists=by_key, by_key=True)
        return grad_q, grad_k, grad_v, None, None


def _lists(blocks: BlockIndex) -> _Lists:
    partial_count, partial_index, full_count, full_index = blocks.split
    return _Lists(full_count, full_index, partial_count, partial_index)
