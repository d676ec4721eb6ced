"""What the fast backends leave to others: values that are not finite, transforms, and derivatives of gradients."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Attend", "all_finite", "differentiable_gradients", "is_traced", "keep_out"]

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Attention of q, k, v ``(B, H|Hkv, T, D)`` under some mask: ``out`` and ``lse``."""


def is_traced(tensors: Sequence[Tensor]) -> bool:
    """Whether operations on these tensors ``(B, H, T, D)`` are recorded or transformed, rather than just run.

    True while a compiler or exporter traces, inside ``torch.func`` transforms, and for meta, fake and other subclasses
    of tensors: they have no values to look at, or need a formula for what an operation does to them.

    >>> is_traced([torch.zeros(1, device="meta")]), is_traced([torch.zeros(1)])
    (True, False)
    """
    if torch.compiler.is_compiling():
        return True
    return any(
        type(x) not in (Tensor, torch.nn.Parameter)
        or x.device.type == "meta"
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        for x in tensors
    )


def all_finite(*tensors: Tensor) -> bool:
    """Whether no value of these tensors (any shapes) is NaN or infinite; a sum that overflows counts as infinite.

    >>> all_finite(torch.ones(2)), all_finite(torch.ones(2), torch.tensor([1.0, torch.nan]))
    (True, False)
    """
    return all(math.isfinite(x.detach().sum(dtype=torch.promote_types(x.dtype, torch.float32)).item()) for x in tensors)


def keep_out(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Returns attention in which a key that is not finite reaches the queries that see it, and no other.

    Kernels multiply what is masked by a weight of 0, and ``0 x NaN`` is NaN. Here such keys are replaced by zeros, and
    the rows that see one become NaN. Which rows those are is attention, too: of queries 0, over whether a key is one.
    Costs a second, narrow call.

    Args:
        attend: the call, with its mask.
        q: ``(B, H, Tq, D)``.
        k: ``(B, Hkv, Tk, D)``.
        v: ``(B, Hkv, Tk, Dv)``.

    Returns:
        ``out (B, H, Tq, Dv)`` and ``lse (B, H, Tq)``.
    """
    dirty = ~(k.isfinite().all(dim=-1, keepdim=True) & v.isfinite().all(dim=-1, keepdim=True))
    out, lse = attend(q, k.masked_fill(dirty, 0.0), v.masked_fill(dirty, 0.0))
    with torch.no_grad():
        seen, _ = attend(torch.zeros_like(q[..., :1]), torch.zeros_like(k[..., :1]), dirty.to(v.dtype))
    spoilt = seen > 0
    return out.masked_fill(spoilt, torch.nan), lse.masked_fill(spoilt[..., 0], torch.nan)


def differentiable_gradients(
    definition: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Returns the gradients of a fused operation's inputs with a graph of their own, through its definition.

    The backward of a fused kernel is a formula that has no derivative; it is replaced where one is asked for. Costs
    what the definition does.

    Args:
        definition: computes the same outputs of the same inputs by differentiable operations.
        inputs: tensors ``(...)`` of any shapes, with the graphs they came with.
        grads: of each output, of its shape; None is zero.
    """
    # Nodes of their own: k may be computed from q, and that path is not of this operation.
    own = [x.view_as(x) for x in inputs]
    wanted = [x for x in own if x.requires_grad]
    given = [(y, grad) for y, grad in zip(definition(*own), grads, strict=True) if grad is not None]
    if not wanted or not given:
        return tuple(None for _ in own)
    outputs, upstream = zip(*given, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, upstream, create_graph=True, allow_unused=True))
    return tuple(next(found) if x.requires_grad else None for x in own)
