"""Decoding: what one more token does to a state ``(B, H, K, V)``, in as few passes over the state as can be.

At one token the time is that of reading and writing the state and of calling operations at all, so there are two
passes to update it, one to read from it, and no operation besides.
"""

import torch
from torch import Tensor

from mmattn.kernels.states import trainable

__all__ = ["cast", "gated_step", "read", "update"]


def cast(dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """Returns tensors ``(...)`` in a dtype; asking first is quicker than a conversion that has nothing to do."""
    return [x if x.dtype == dtype else x.to(dtype) for x in tensors]


def gated_step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Returns ``scale q S`` ``(B, H, V)`` in the dtype of v, and ``S = exp(g) state + k^T v``; differentiable.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        g: ``(B, H, K)`` or ``(B, H, 1)``.
        state: ``(B, H, K, V)``, not changed; its dtype is the one of the arithmetic.
        scale: default ``1 / sqrt(K)``.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = v.dtype
    q, k, v, g = cast(state.dtype, q, k, v, g)
    state = update(trainable(state), g.exp(), k, v)
    return read(q, state, scale, v).to(dtype), state


def update(state: Tensor, decay: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """Returns ``diag(decay) S + k^T v``; differentiable.

    Args:
        state: S ``(B, H, K, V)``, not changed.
        decay: ``(B, H, K)`` or ``(B, H, 1)``, None for 1.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> update(torch.full((1, 1, 1, 1), 4.0), 0.5 * one, one, one).item()
        3.0
    """
    if decay is None:
        return torch.addcmul(state, k.unsqueeze(-1), v.unsqueeze(-2))
    return (state * decay.unsqueeze(-1)).addcmul_(k.unsqueeze(-1), v.unsqueeze(-2))


def read(q: Tensor, state: Tensor, scale: float, like: Tensor) -> Tensor:
    """Returns ``scale q S``, ``(B, H, V)``; differentiable.

    Args:
        q: ``(B, H, K)``.
        state: S ``(B, H, K, V)``.
        scale: a factor that costs no operation.
        like: any tensor ``(B, H, V)`` of the same dtype.

    Example:
        >>> read(torch.ones(1, 1, 1), torch.full((1, 1, 1, 1), 4.0), 0.5, torch.zeros(1, 1, 1)).item()
        2.0
    """
    B, H, K, V = state.shape
    heads = B * H
    # With beta = 0 the first argument is a shape and nothing else.
    out = torch.baddbmm(
        like.reshape(heads, 1, V), q.reshape(heads, 1, K), state.reshape(heads, K, V), beta=0, alpha=scale
    )
    return out.view(B, H, V)
