"""The chunk form of the delta rule, with and without gates (WY form, arXiv 2406.06484, section 3.2).

With D the decays inside a chunk (all 1 without gates), ``d_i`` the decay from its start to token i and S the state
before it, the corrections u of a chunk solve a unit lower triangular system,
``(I + tril(diag(beta) (k k^T) * D, -1)) u = diag(beta) (v - diag(d) k S)``, whose two right-hand sides ``beta v`` and
``beta d k`` are solved for all chunks at once; then ``u = U - W S`` follows chunk by chunk.

Letters: n chunks, h heads, M = n h, C tokens of a chunk, K key width, V value width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmattn.kernels.linear.chunked import RuleByAutograd, chunked
from mmattn.kernels.linear.scalar_chunks import decay_matrix
from mmattn.kernels.linear.token_by_token import delta_recurrence

__all__ = ["delta_chunks"]


def delta_chunks(*tensors: Tensor, state: Tensor, scale: float, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Returns outputs ``(B, H, T, V)`` and final state ``(B, H, K, V)``; the backward pass recomputes the states.

    Args:
        tensors: q, k, v ``(B, H, T, .)``, beta ``(B, H, T)`` and, if gated, g ``(B, H, T)``.
        state: ``(B, H, K, V)``; its dtype is the one of the arithmetic.
        scale: multiplies q.
        chunk_size: C.
    """
    C = max(1, min(chunk_size, tensors[0].shape[2]))
    definition = partial(delta_recurrence, scale=scale)
    return chunked(_DeltaRule(scale), [*tensors], state, chunk_size=C, definition=definition)


@dataclass(frozen=True)
class _DeltaRule(RuleByAutograd):
    """``chunked.Rule`` of the delta rule, gated if there are gates."""

    scale: float

    def forward(self, tokens: list[Tensor], heads: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, beta, *gates = tokens  # (n, h, C, .)
        q, beta = self.scale * q, beta[..., None]
        if gates:
            pairs = decay_matrix(gates[0])
            into = pairs[..., :1] * gates[0][..., :1, None].exp()  # from the chunk's start to its tokens
        else:
            pairs = torch.ones(q.shape[2], q.shape[2], dtype=q.dtype, device=q.device).tril()
            into = torch.ones_like(beta)
        out_of = pairs[..., -1, :, None]  # from its tokens to its end
        system = (k @ k.mT * pairs * beta).tril(-1)
        sides = torch.cat([beta * v, beta * into * k], dim=-1)
        # The unit diagonal is taken for granted and not read, so no identity is added.
        solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
        U, W = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
        scores, q_in, k_out, chunk = q @ k.mT * pairs, q * into, k * out_of, into[..., -1:, :]
        outs = []
        for u, w, score, query, key, decay in zip(
            *(x.unbind() for x in (U, W, scores, q_in, k_out, chunk)), strict=True
        ):
            correction = u - w @ state
            outs.append(query @ state + score @ correction)
            state = decay * state + key.mT @ correction
        return torch.stack(outs), state
