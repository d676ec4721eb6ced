"""From the gradients of a few chunks to the memories after each: clamp, momentum, orthogonalisation, forgetting."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mmattn.kernels.memory import Memory, gated_scan

__all__ = ["memory_updates", "newton_schulz", "soft_clamp_norm"]

# Quintic iteration of Muon; five rounds bring singular values near 1.
_NEWTON_SCHULZ, _ROUNDS = (3.4445, -4.7750, 2.0315), 5


def memory_updates(
    gradients: Memory,
    last_update: Memory,
    last_momentum: Sequence[Memory],
    keep: Tensor,
    etas: Sequence[Tensor],
    *,
    orthogonalise: bool = False,
) -> tuple[Memory, tuple[Memory, ...]]:
    """Returns the memory after every chunk and the last momentum of every order (Titans, equations 10 and 13).

    Args:
        gradients: tensors ``(B, H, N, ...)`` for N chunks.
        last_update: the memory before them, ``(B, H, ...)``.
        last_momentum: per order ``(B, H, ...)``; empty without momentum.
        keep: ``1 - alpha``, ``(B, H, N)``.
        etas: momentum gates per order, each ``(B, H, N)``.
        orthogonalise: replace what is added to a matrix by its nearest orthogonal one.
    """
    update, momenta = gradients.map(torch.neg), []
    for eta, last in zip(etas, last_momentum, strict=True):
        update = update.map(partial(gated_scan, eta), last)
        momenta.append(update.map(lambda t: t[:, :, -1]))
    if orthogonalise:
        update = Memory(tuple(newton_schulz(weight) for weight in update.weights), update.gamma)
    return update.map(partial(gated_scan, keep), last_update), tuple(momenta)


def soft_clamp_norm(gradient: Tensor, limit: float, *, lead: int) -> Tensor:
    """Returns gradients ``(...)`` whose norm ``n`` over all but ``lead`` axes is now ``limit/2 (tanh(2n/limit) + 1)``.

    Small gradients are therefore *raised* to half the limit; one that is exactly 0 has no direction and stays 0.

    Example:
        >>> soft_clamp_norm(torch.tensor([[100.0], [1e-6], [0.0]]), 2.0, lead=1).flatten().round(decimals=3).tolist()
        [2.0, 1.0, 0.0]
    """
    flat = gradient.flatten(lead)
    square = flat.square().sum(dim=-1, keepdim=True)
    zero = square == 0
    norm = torch.where(zero, torch.ones_like(square), square).sqrt()
    target = limit / 2 * ((norm / (limit / 2)).tanh() + 1)
    return (flat * torch.where(zero, torch.zeros_like(norm), target / norm)).reshape(gradient.shape)


def newton_schulz(matrices: Tensor) -> Tensor:
    """Returns ``(..., U, W)`` with singular values near 1 and the same singular vectors.

    Example:
        >>> [round(x, 1) for x in newton_schulz(torch.diag(torch.tensor([3.0, 4.0]))).diagonal().tolist()]
        [0.7, 1.1]
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.transpose(-1, -2) if tall else matrices
    square = x.square().sum(dim=(-1, -2), keepdim=True)
    # The square root's slope at 0 is infinite: a zero matrix must not reach it.
    x = x / torch.where(square > 0, square, torch.ones_like(square)).sqrt().clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-1, -2) if tall else x
