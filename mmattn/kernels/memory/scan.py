"""The gated scan ``h_n = a_n h_{n-1} + x_n`` with one gate per step for a whole tensor, without dividing by a gate."""

import torch
from torch import Tensor

__all__ = ["decay_products", "gated_scan"]

# Steps that one matrix product does at once: the work grows with the block, the number of calls falls with it.
_BLOCK = 16


def decay_products(gates: Tensor) -> Tensor:
    """Returns ``P (..., N, N)`` with ``P[i, j] = prod_{j < m <= i} gates[m]`` for ``j <= i``, else 0.

    Multiplied out instead of formed as a ratio of cumulative products: exact when gates are 0 or underflow together.

    Args:
        gates: ``(..., N)``, in [0, 1].

    Example:
        >>> decay_products(torch.tensor([0.5, 0.0, 0.5])).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 1.0]]
    """
    steps = gates.shape[-1]
    below = torch.ones(steps, steps, dtype=torch.bool, device=gates.device).tril(-1)
    return torch.where(below, gates[..., :, None], torch.ones_like(gates[..., :, None])).cumprod(dim=-2).tril()


def gated_scan(gates: Tensor, x: Tensor, initial: Tensor) -> Tensor:
    """Returns all states ``h_1 .. h_N`` of ``h_n = gates_n h_{n-1} + x_n``, ``h_0 = initial``.

    Time ``O(N C S)`` in blocks of C = 16 steps as matrix products, S numbers per state; memory ``O(N S)``.

    Args:
        gates: ``(..., N)``, in [0, 1].
        x: ``(..., N, *rest)``, at least one axis in ``rest``.
        initial: ``(..., *rest)``.

    Example:
        >>> gated_scan(torch.tensor([0.5, 0.5]), torch.tensor([[1.0], [1.0]]), torch.tensor([2.0])).tolist()
        [[2.0], [2.0]]
    """
    lead = gates.ndim - 1
    flat, state = x.flatten(lead + 1), initial.flatten(lead)
    states = []
    for start in range(0, gates.shape[-1], _BLOCK):
        block = gates[..., start : start + _BLOCK]
        carried = block.cumprod(dim=-1)[..., None] * state[..., None, :]
        states.append(carried + decay_products(block) @ flat[..., start : start + _BLOCK, :])
        # From block to block one state is passed on; inside, all steps are one product.
        state = states[-1][..., -1, :]
    if not states:
        return x
    return torch.cat(states, dim=-2).reshape(x.shape)
