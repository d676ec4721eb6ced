"""The definition of a gated sum of products, token by token: gated linear attention and its kin without a bonus."""

import torch
from torch import Tensor

__all__ = ["gated_recurrence"]


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
