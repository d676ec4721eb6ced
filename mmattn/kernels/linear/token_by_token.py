"""Recurrences as they are defined, token by token: sums of products with gates, and the delta rule."""

import torch
from torch import Tensor

__all__ = ["delta_recurrence", "gated_recurrence"]


def gated_recurrence(*tensors: Tensor, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Returns ``o_t = scale q_t S_t`` ``(B, H, T, V)`` with ``S_t = exp(g_t) S_{t-1} + k_t^T v_t``, and ``S_T``.

    Args:
        tensors: q, k, v ``(B, H, T, .)`` and log-decays per channel ``(B, H, T, K)``, per head ``(B, H, T)``, or none.
        state: ``(B, H, K, V)``; its dtype is the one of the arithmetic.
        scale: multiplies q.
    """
    q, k, v, *gates = (x.to(state.dtype) for x in tensors)
    gates = [g if g.ndim == 4 else g[..., None] for g in gates]
    outs = []
    for t in range(q.shape[2]):
        for g in gates:
            state = state * g[:, :, t, :, None].exp()
        state = state + k[:, :, t, :, None] * v[:, :, t, None, :]
        outs.append(scale * (q[:, :, t, :, None] * state).sum(dim=2))
    return (torch.stack(outs, dim=2) if outs else v), state


def delta_recurrence(*tensors: Tensor, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Returns the outputs ``(B, H, T, V)`` of the delta rule and ``S_T``; ``gated_delta_rule`` has the formula.

    Args:
        tensors: q, k, v ``(B, H, T, .)``, beta ``(B, H, T)`` and, if gated, log-decays ``(B, H, T)``.
        state: ``(B, H, K, V)``; its dtype is the one of the arithmetic.
        scale: multiplies q.
    """
    q, k, v, beta, *gates = (x.to(state.dtype) for x in tensors)
    outs = []
    for t in range(q.shape[2]):
        for g in gates:
            state = state * g[:, :, t, None, None].exp()
        answer = (k[:, :, t, :, None] * state).sum(dim=2)
        correction = beta[:, :, t, None] * (v[:, :, t] - answer)
        state = state + k[:, :, t, :, None] * correction[:, :, None, :]
        outs.append(scale * (q[:, :, t, :, None] * state).sum(dim=2))
    return (torch.stack(outs, dim=2) if outs else v), state
