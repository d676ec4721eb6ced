"""Gated linear attention as its definition reads: one token after the other (arXiv 2312.06635, Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gla_recurrence", "gla_recurrence_step"]


def gla_recurrence(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the outputs and the final state; ``O(T K V)`` time, and as much memory under autograd.

    Args:
        q: ``(B, H, T, K)``.
        k: ``(B, H, T, K)``.
        v: ``(B, H, T, V)``.
        g: log-decays ``(B, H, T, K)``.
        state: ``(B, H, K, V)``, zeros if None.
    """
    if state is None:
        state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
    outs = []
    for t in range(q.shape[2]):
        out, state = gla_recurrence_step(q[:, :, t], k[:, :, t], v[:, :, t], g[:, :, t], state)
        outs.append(out)
    return torch.stack(outs, dim=2), state


def gla_recurrence_step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the output ``(B, H, V)`` for one token ``(B, H, .)`` and the new state."""
    state = state * g.exp()[..., None] + k[..., None] * v[..., None, :]
    return (q[..., None] * state).sum(-2) * q.shape[-1] ** -0.5, state
