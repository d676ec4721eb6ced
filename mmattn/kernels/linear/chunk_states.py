"""What chunk forms share: states passed from chunk to chunk, their gradients, and those of the gates between.

Letters: n chunks, h heads, M = n h, C tokens of a chunk, K key width, V value width.
"""

import torch
from torch import Tensor

__all__ = ["grad_gates", "grads_between", "states_between"]


def states_between(state: Tensor, decay: Tensor, k_out: Tensor, v: Tensor) -> Tensor:
    """Returns the states before, between and after all chunks, ``(n + 1, h, K, V)``.

    Args:
        state: ``(h, K, V)``.
        decay: ``(M, K)`` or ``(M, 1)`` over a chunk.
        k_out: ``(M, C, K)``, keys decayed to the end of their chunk.
        v: ``(M, C, V)``.
    """
    states = v.new_empty(len(v) // len(state) + 1, *state.shape)
    states[0] = state
    torch.bmm(k_out.mT, v, out=states[1:].flatten(0, 1))
    each, decays = states.unbind(), decay.unflatten(0, (-1, len(state)))[..., None].unbind()
    for i in range(len(decays)):
        each[i + 1].addcmul_(decays[i], each[i])
    return states


def grads_between(grad: Tensor, decay: Tensor, q_in: Tensor, grad_out: Tensor) -> Tensor:
    """Returns the gradients of these states, ``(n + 1, h, K, V)``.

    Args:
        grad: of the last state ``(h, K, V)``.
        decay: ``(M, K)`` or ``(M, 1)`` over a chunk.
        q_in: ``(M, C, K)``, queries decayed from the start of their chunk.
        grad_out: scaled gradients of the outputs ``(M, C, V)``.
    """
    grads = grad_out.new_empty(len(grad_out) // len(grad) + 1, *grad.shape)
    grads[-1] = grad
    torch.bmm(q_in.mT, grad_out, out=grads[:-1].flatten(0, 1))
    each, decays = grads.unbind(), decay.unflatten(0, (-1, len(grad)))[..., None].unbind()
    for i in reversed(range(len(decays))):
        each[i].addcmul_(decays[i], each[i + 1])
    return grads


def _late(x: Tensor, size: int) -> Tensor:
    """Returns a view ``(M, pairs, size, K)`` of the second blocks of all pairs."""
    return x.unflatten(1, (-1, 2, size))[:, :, 1]


def _early(x: Tensor, size: int) -> Tensor:
    """Returns a view ``(M, pairs, size, K)`` of the first blocks of all pairs."""
    return x.unflatten(1, (-1, 2, size))[:, :, 0]


def _blocks(scores: Tensor, size: int) -> Tensor:
    """Returns a view ``(M, C / size, size, size)`` of the blocks on the diagonal of ``(M, C, C)``."""
    return scores.unflatten(2, (-1, size)).unflatten(1, (-1, size)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def grad_gates(arriving: Tensor, met: Tensor, leaving: Tensor, *, exclusive: bool) -> Tensor:
    """Returns the gradients ``(M, C, K)`` of log-decays, but for what passes the whole chunk.

    A gate's gradient is the sum of all that decays by it: queries from there on, less keys from there on that these
    meet in the chunk, and earlier keys that leave the chunk (arXiv 2312.06635, appendix C, restarted at every chunk).

    Args:
        arriving: q times its gradient, own keys apart.
        met: k times its gradient from later queries of the chunk.
        leaving: k times its gradient from the state after the chunk.
        exclusive: a query does not decay by its own gate.
    """
    # Products with triangles of ones are the sums; differences of running sums would lose small gradients.
    C = met.shape[1]
    upper = torch.ones(C, C, dtype=met.dtype, device=met.device).triu()
    if exclusive:
        grad = torch.matmul(upper.triu(1), arriving).sub_(torch.matmul(upper, met))
    else:
        grad = torch.matmul(upper, arriving.sub_(met))
    return grad.add_(torch.matmul(1 - upper, leaving))
