"""The chunk form of recurrences with one decay per head and token, or with none: simple GLA, linear attention.

Inside a chunk ``A = (q k^T) * D`` with ``D_ij = exp(g_{j+1} + ... + g_i)`` for ``j <= i``, else 0. The sums are taken
as they stand, not as differences of running sums, so they are at most 0 and stay exact however large the others are.

Letters: n chunks, h heads, M = n h, C tokens of a chunk, K key width, V value width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmattn.kernels.linear.chunk_states import grad_gates, gradients, outputs
from mmattn.kernels.linear.chunked import chunked
from mmattn.kernels.linear.token_by_token import gated_recurrence

__all__ = ["decay_matrix", "scalar_chunks"]


def scalar_chunks(*tensors: Tensor, state: Tensor, scale: float, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Returns outputs ``(B, H, T, V)`` and final state ``(B, H, K, V)``, with a hand-written backward pass.

    Args:
        tensors: q, k, v ``(B, H, T, .)`` and, if there is a decay, g ``(B, H, T)``.
        state: ``(B, H, K, V)``; its dtype is the one of the arithmetic.
        scale: multiplies q.
        chunk_size: C.
    """
    C = max(1, min(chunk_size, tensors[0].shape[2]))
    definition = partial(gated_recurrence, scale=scale)
    return chunked(_ScalarRule(scale), [*tensors], state, chunk_size=C, definition=definition)


def decay_matrix(g: Tensor) -> Tensor:
    """Returns D ``(..., C, C)`` of log-decays ``(..., C)``.

    Example:
        >>> decay_matrix(torch.tensor([0.5, 0.5, 0.1]).log()).mul(100).round().int().tolist()
        [[100, 0, 0], [50, 100, 0], [5, 10, 100]]
    """
    C = g.shape[-1]
    later = torch.ones(C, C, dtype=torch.bool, device=g.device).tril(-1)
    sums = g[..., :, None].masked_fill(~later, 0.0).cumsum(dim=-2)
    # Above the diagonal nothing was summed, and exp(0) = 1 must go.
    return sums.exp().tril()


@dataclass(frozen=True)
class _ScalarRule:
    """``chunked.Rule`` of simple gated linear attention, and of linear attention if there are no gates."""

    scale: float

    def forward(self, tokens: list[Tensor], heads: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        n, h = tokens[0].shape[:2]
        q, k, v, *gates = (x.flatten(0, 1) for x in tokens)
        decays = _Decays.of(q, gates)
        scores = torch.bmm(q, k.mT).mul_(decays.pairs)
        out, state = outputs(scores, decays.arrive(q), decays.leave(k), v, decays.chunk, state, self.scale)
        return out.unflatten(0, (n, h)), state

    def backward(
        self, tokens: list[Tensor], heads: list[Tensor], state: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        n, h = tokens[0].shape[:2]
        q, k, v, *gates = (x.flatten(0, 1) for x in tokens)
        grad_out = grad_out.flatten(0, 1) * self.scale
        decays = _Decays.of(q, gates)
        scores = torch.bmm(q, k.mT).mul_(decays.pairs)
        q_in, k_out = decays.arrive(q), decays.leave(k)
        grad = gradients(scores, q_in, k_out, v, decays.chunk, state, grad_out, grad_state)
        grad_gates_ = []
        if gates:
            # A token's pair with itself does not decay.
            met = (grad.scores * scores).tril_(-1)
            arriving = met.sum(dim=2) + (q_in * grad.q_in).sum(dim=2)
            leaving = (k_out * grad.k_out).sum(dim=2)
            # A product with one column is slow in batches: chunks become the columns.
            columns = (x.mT[None] for x in (arriving, met.sum(dim=1), leaving))
            grad_g = grad_gates(*columns, exclusive=False)[0].mT
            grad_g = grad_g + grad.decay().sum(dim=(1, 2))[:, None] * decays.chunk
            grad_gates_.append(grad_g)
        grad_products = grad.scores.mul_(decays.pairs)
        grad_q = decays.arrive(grad.q_in).baddbmm_(grad_products, k)
        grad_k = decays.leave(grad.k_out).baddbmm_(grad_products.mT, q)
        grads = [x.unflatten(0, (n, h)) for x in (grad_q, grad_k, grad.v, *grad_gates_)]
        return grads, [], grad.state


@dataclass
class _Decays:
    """Decays inside a chunk; 1 without gates.

    Attributes:
        pairs: D, ``(M, C, C)`` or ``(C, C)``.
        into: ``(M, C, 1)`` from the start of the chunk to its queries; None without gates.
        out_of: ``(M, C, 1)`` from its keys to its end; None without gates.
        chunk: ``(M, 1)`` over the chunk.
    """

    pairs: Tensor
    into: Tensor | None
    out_of: Tensor | None
    chunk: Tensor

    @classmethod
    def of(cls, q: Tensor, gates: list[Tensor]) -> "_Decays":
        """Returns the decays of chunks ``q (M, C, K)`` with log-decays ``(M, C)``, or of no gates."""
        M, C, _ = q.shape
        if not gates:
            return cls(q.new_ones(C, C).tril(), None, None, q.new_ones(M, 1))
        pairs = decay_matrix(gates[0])
        # D lacks the first token's own gate, which the state from before the chunk passes as well.
        into = pairs[:, :, :1] * gates[0][:, :1, None].exp()
        return cls(pairs, into, pairs[:, -1, :, None], into[:, -1])

    def arrive(self, x: Tensor) -> Tensor:
        """Returns ``x (M, C, .)`` decayed from the start of the chunk."""
        return x if self.into is None else x * self.into

    def leave(self, x: Tensor) -> Tensor:
        """Returns ``x (M, C, .)`` decayed to the end of the chunk."""
        return x if self.out_of is None else x * self.out_of
