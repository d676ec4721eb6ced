"""PyTorch's CPU flash kernel with the edges smoothed: the one place where it is called.

The kernel returns ``out`` and ``lse`` of one rectangle of queries and keys. Facts handled here: it needs equal head
dimensions of q, k and v with a dense last dimension, an additive mask in the dtype of q, and at least one key; it
reports ``lse = 0`` for fully masked rows; its causal flag is aligned to the top left.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["AdditiveMask", "accumulate_dtype", "additive", "flash_backward", "flash_forward", "merge_into"]

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of log-sum-exps and gradient sums: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


class AdditiveMask(NamedTuple):
    """A mask as the kernel wants it: 0 or ``-inf`` in the dtype of q, and the rows in which nothing is allowed."""

    bias: Tensor
    empty: Tensor


def additive(mask: Tensor, dtype: torch.dtype) -> AdditiveMask:
    """Returns a bool mask that broadcasts to ``(n, H, tq, tk)`` in the kernel's form."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    return AdditiveMask(bias, ~mask.any(dim=-1))


def flash_forward(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool = False, mask: AdditiveMask | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the partial ``(out, lse)`` of q ``(n, H, tq, D)`` on k, v ``(n, Hkv, tk, D)``.

    Args:
        q: queries.
        k: keys, at least one.
        v: values.
        scale: multiplies the scores.
        causal: query i sees keys 0 .. i.
        mask: fully masked rows give ``out = 0``, ``lse = -inf``.

    Example:
        >>> x = torch.ones(1, 1, 1, 8)
        >>> flash_forward(x, x, x, scale=1.0, mask=additive(torch.zeros(1, 1, 1, 1, dtype=torch.bool), x.dtype))[1]
        tensor([[[-inf]]])
    """
    if mask is None:
        out, lse = _forward(q, k, v, 0.0, causal, scale=scale)
        return out, lse
    out, lse = _forward(q, k, v, 0.0, causal, attn_mask=mask.bias, scale=scale)
    # The kernel reports 0 for rows in which nothing is allowed.
    return out, lse.masked_fill_(mask.empty, -torch.inf)


def flash_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: AdditiveMask | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of q, k, v of one rectangle, given the *merged* ``out`` and finite ``lse`` of its rows.

    Shapes are those of ``flash_forward``; ``lse (n, H, tq)`` is over all keys of a row, not the rectangle's alone.
    """
    bias = None if mask is None else mask.bias
    grads = _backward(grad_out, q, k, v, out, lse, 0.0, causal, attn_mask=bias, scale=scale)
    return grads[0], grads[1], grads[2]


def merge_into(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two partials ``out (..., D)``, ``lse (...)`` of the same rows merged: ``kernels.merge``, forward only."""
    total = torch.logaddexp(lse, other_lse)
    # Where nothing is attended both partials are 0, so any finite reference keeps the weights free of NaN.
    reference = total.masked_fill(total == -torch.inf, 0.0)
    mine, theirs = (lse - reference).exp()[..., None], (other_lse - reference).exp()[..., None]
    return (out * mine + other_out * theirs).to(out.dtype), total
