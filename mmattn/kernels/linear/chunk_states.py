"""What chunk forms share, given the scores inside chunks and the decays: outputs, states, and the gradients of all.

Letters: n chunks, h heads, M = n h, C tokens of a chunk, K key width, V value width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ChunkGradients", "grad_gates", "gradients", "outputs"]


def outputs(
    scores: Tensor, q_in: Tensor, k_out: Tensor, v: Tensor, decay: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns the outputs ``(M, C, V)`` and the state ``(h, K, V)`` after all chunks.

    Args:
        scores: ``(M, C, C)``, of pairs of tokens in a chunk.
        q_in: ``(M, C, K)``, queries decayed from the start of their chunk.
        k_out: ``(M, C, K)``, keys decayed to the end of their chunk.
        v: ``(M, C, V)``.
        decay: ``(M, K)`` or ``(M, 1)`` over a chunk.
        state: ``(h, K, V)`` before all chunks.
        scale: multiplies the outputs.
    """
    states = _states_between(state, decay, k_out, v)
    # With beta = 0 the first argument is a shape and nothing else.
    out = torch.baddbmm(v, scores, v, beta=0, alpha=scale)
    out.baddbmm_(q_in, states[:-1].flatten(0, 1), alpha=scale)
    return out, states[-1]


class ChunkGradients(NamedTuple):
    """Gradients of what ``outputs`` takes, and the states around every chunk.

    Attributes:
        scores: ``(M, C, C)``.
        q_in: ``(M, C, K)``.
        k_out: ``(M, C, K)``.
        v: ``(M, C, V)``.
        state: ``(h, K, V)``.
        before: the states before the chunks, ``(M, K, V)``.
        after: the gradients of the states after the chunks, ``(M, K, V)``.
    """

    scores: Tensor
    q_in: Tensor
    k_out: Tensor
    v: Tensor
    state: Tensor
    before: Tensor
    after: Tensor

    def decay(self) -> Tensor:
        """Returns the gradients of what every entry of a state decays by over a chunk, ``(M, K, V)``."""
        return self.before * self.after


def gradients(
    scores: Tensor,
    q_in: Tensor,
    k_out: Tensor,
    v: Tensor,
    decay: Tensor,
    state: Tensor,
    grad_out: Tensor,
    grad_state: Tensor,
) -> ChunkGradients:
    """Returns the gradients of what ``outputs`` takes.

    Args:
        scores: as in ``outputs``, as are the next five.
        grad_out: scaled gradients of the outputs ``(M, C, V)``.
        grad_state: gradient of the last state ``(h, K, V)``.
    """
    before = _states_between(state, decay, k_out, v)[:-1].flatten(0, 1)
    grad_states = _grads_between(grad_state, decay, q_in, grad_out)
    after = grad_states[1:].flatten(0, 1)
    return ChunkGradients(
        v=torch.bmm(scores.mT, grad_out).baddbmm_(k_out, after),
        scores=torch.bmm(grad_out, v.mT),
        q_in=torch.bmm(grad_out, before.mT),
        k_out=torch.bmm(v, after.mT),
        state=grad_states[0],
        before=before,
        after=after,
    )


def _states_between(state: Tensor, decay: Tensor, k_out: Tensor, v: Tensor) -> Tensor:
    """Returns the states before, between and after all chunks, ``(n + 1, h, K, V)``; arguments as in ``outputs``."""
    states = v.new_empty(len(v) // len(state) + 1, *state.shape)
    states[0] = state
    torch.bmm(k_out.mT, v, out=states[1:].flatten(0, 1))
    each, decays = states.unbind(), decay.unflatten(0, (-1, len(state)))[..., None].unbind()
    # The serial part: one multiply-add per chunk. What is added was computed for all chunks at once.
    for i in range(len(decays)):
        each[i + 1].addcmul_(decays[i], each[i])
    return states


def _grads_between(grad: Tensor, decay: Tensor, q_in: Tensor, grad_out: Tensor) -> Tensor:
    """Returns the gradients of these states, given that of the last and those of the scaled outputs ``(M, C, V)``."""
    grads = grad_out.new_empty(len(grad_out) // len(grad) + 1, *grad.shape)
    grads[-1] = grad
    torch.bmm(q_in.mT, grad_out, out=grads[:-1].flatten(0, 1))
    each, decays = grads.unbind(), decay.unflatten(0, (-1, len(grad)))[..., None].unbind()
    for i in reversed(range(len(decays))):
        each[i].addcmul_(decays[i], each[i + 1])
    return grads


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
