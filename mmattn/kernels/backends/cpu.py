"""Block-sparse attention on the CPU: few large calls of the native flash kernel, merged; no compile step.

A ``BlockIndex`` becomes a plan (``cpu_runs`` if all heads share the mask, ``cpu_gather`` otherwise), kept with the
index. The backward pass calls the kernel's backward once per partial with the *merged* ``out`` and ``lse``, which gives
exact gradients. The gradient of ``lse`` rides along in one extra channel: q and k hold 0 there, v holds 1, ``grad_out``
holds ``grad_lse`` and ``out`` holds 0, so that ``dP`` gains ``grad_lse`` and nothing else changes. Where a graph of the
gradients is asked for, they come from the definition.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.kernels.backends import reference
from mmattn.kernels.backends.cpu_gather import GatherPlan
from mmattn.kernels.backends.cpu_run_plan import dense_plan, run_plan
from mmattn.kernels.backends.fallbacks import Attend, differentiable_gradients
from mmattn.kernels.block_index import BlockIndex

__all__ = ["block_sparse_attention", "dense_attention"]

# Channels are padded to a multiple of this for the gradient of lse: whole vector registers.
_VECTOR = 16


class _Plan(Protocol):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]: ...

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]: ...


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns attention over the selected blocks and its log-sum-exp, both differentiable.

    Time O(selected blocks), memory O(T) beside a bounded scratch; nothing is ``(Tq, Tk)``.

    Args:
        q: ``(B, H, Tq, D)``.
        k: ``(B, Hkv, Tk, D)``.
        v: ``(B, Hkv, Tk, Dv)``.
        blocks: the mask.
        scale: multiplies the scores.

    Returns:
        ``out (B, H, Tq, Dv)`` and ``lse (B, H, Tq)``; rows that attend nothing give 0 and ``-inf``.

    Example:
        >>> x, blocks = torch.eye(2)[None, None], BlockIndex.causal(2, q_block=1, k_block=1)
        >>> block_sparse_attention(x, x, x, blocks, scale=0.0)[1].exp().round().tolist()
        [[[1.0, 2.0]]]
    """
    plan: _Plan
    if blocks.index.shape[:2] == (1, 1):
        plan = blocks.derived("cpu_runs", lambda: run_plan(blocks))
    else:
        sizes = (q.shape[0], q.shape[1], k.shape[1])
        plan = blocks.derived(("cpu_gather", *sizes), lambda: GatherPlan(blocks, *sizes))
    return _run(
        q, k, v, plan, scale, lambda q, k, v: reference.block_sparse_attention(q, k, v, blocks, scale=_kept(scale))
    )


def dense_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Returns dense or bottom-right causal attention of q, k, v ``(B, H, T, D)`` and its log-sum-exp ``(B, H, T)``."""
    plan = dense_plan(q.shape[2], k.shape[2], causal)
    return _run(
        q, k, v, plan, scale, lambda q, k, v: reference.dense_attention(q, k, v, causal=causal, scale=_kept(scale))
    )


def _run(q: Tensor, k: Tensor, v: Tensor, plan: _Plan, scale: float, definition: Attend) -> tuple[Tensor, Tensor]:
    out, lse = _PlannedAttention.apply(q if scale > 0.0 else q * scale, k, v, plan, _kept(scale), definition)
    return out, lse


def _kept(scale: float) -> float:
    """Returns what is left to the kernel to multiply: it puts -inf above the diagonal first, so no 0 and no sign."""
    return scale if scale > 0.0 else 1.0


class _PlannedAttention(torch.autograd.Function):
    """Runs a plan; differentiates through ``out`` and ``lse``."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: _Plan, scale: float, definition: Attend
    ) -> tuple[Tensor, Tensor]:
        """Returns ``out`` and ``lse``."""
        channels, out_channels = max(q.shape[-1], v.shape[-1]), v.shape[-1]
        out, lse = plan.forward(_widen(q, channels), _widen(k, channels), _widen(v, channels), scale)
        # A view would keep the caller from changing it in place.
        out = out if channels == out_channels else out[..., :out_channels].clone()
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scale, ctx.definition = plan, scale, definition
        # None instead of zeros: most callers differentiate out alone and need no channel for lse.
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        """Returns the gradients of q, k and v."""
        q, k, v, out, lse = ctx.saved_tensors
        if grad_out is None and grad_lse is None:
            return None, None, None, None, None, None
        if torch.is_grad_enabled():
            return *differentiable_gradients(ctx.definition, (q, k, v), (grad_out, grad_lse)), None, None, None
        empty = lse == -torch.inf
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out.masked_fill(empty[..., None], 0.0)
        channels = max(q.shape[-1], v.shape[-1])
        values = v
        if grad_lse is not None:
            channels = -(-(max(q.shape[-1], v.shape[-1] + 1)) // _VECTOR) * _VECTOR
            grad_lse = grad_lse.masked_fill(empty, 0.0).to(grad_out.dtype)
            grad_out = torch.cat([grad_out, grad_lse[..., None]], dim=-1)
            values = F.pad(v, (0, 1), value=1.0)
        operands = (_widen(x, channels) for x in (grad_out, q, k, values, out))
        grads = ctx.plan.backward(*operands, lse.masked_fill(empty, 0.0), ctx.scale)
        return (
            *(grad[..., : x.shape[-1]].to(x.dtype) for grad, x in zip(grads, (q, k, v), strict=True)),
            None,
            None,
            None,
        )


def _widen(x: Tensor, channels: int) -> Tensor:
    """Returns x with zero channels appended and a dense last dimension."""
    if x.shape[-1] < channels:
        return F.pad(x, (0, channels - x.shape[-1]))
    return x if x.stride(-1) == 1 else x.contiguous()
