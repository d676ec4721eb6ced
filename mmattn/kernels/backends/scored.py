"""Attention with a bias, ALiBi slopes or a softcap: some query rows at a time against their selected keys.

Plain PyTorch on any device. Scores exist for one piece of the mask at a time and are computed again in the backward
pass, so memory stays bounded beside inputs and outputs. The backward pass is written in differentiable operations: what
autograd records of it when a graph is asked for gives derivatives of any order.

Tensors are five-dimensional in here: ``(B, Hkv, G, T, D)``, G query heads to a head of keys.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.kernels.backends.flash import accumulate_dtype
from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.score_pieces import BlockPlan, DensePlan, Piece, Plan, add_bias, add_keys, take
from mmattn.kernels.score_terms import NO_TERMS, ScoreTerms

__all__ = ["block_sparse_attention", "dense_attention"]

# Bytes that the scores of one piece may take.
_PIECE_BYTES = 32 << 20


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockIndex, *, scale: float, terms: ScoreTerms = NO_TERMS
) -> tuple[Tensor, Tensor]:
    """Returns attention over the selected blocks with terms added to the scores, and its log-sum-exp.

    Both are differentiable, also twice, in q, k, v, bias and slopes. Time O(selected blocks), where heads have lists of
    their own O(longest list of each row of blocks); memory O(T) beside bounded scratch.

    Args:
        q: ``(B, H, Tq, D)``.
        k: ``(B, Hkv, Tk, D)``.
        v: ``(B, Hkv, Tk, Dv)``.
        blocks: the mask.
        scale: multiplies the scores.
        terms: bias, slopes and softcap.

    Returns:
        ``out (B, H, Tq, Dv)`` in the dtype of q and ``lse (B, H, Tq)``; rows that attend nothing give 0 and ``-inf``.

    Example:
        >>> x, blocks = torch.eye(2)[None, None], BlockIndex.causal(2, q_block=1, k_block=1)
        >>> terms = ScoreTerms(slopes=torch.tensor([[2.0]]))
        >>> (100 * block_sparse_attention(x, x, x, blocks, scale=0.0, terms=terms)[0][0, 0, 1]).round().tolist()
        [12.0, 88.0]
    """
    return _run(q, k, v, BlockPlan(blocks), scale, terms)


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, terms: ScoreTerms = NO_TERMS
) -> tuple[Tensor, Tensor]:
    """Returns dense or bottom-right causal attention of q, k, v ``(B, H, T, D)`` and its log-sum-exp ``(B, H, T)``."""
    return _run(q, k, v, DensePlan(q.shape[2], k.shape[2], causal, q.device), scale, terms)


def _run(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, terms: ScoreTerms) -> tuple[Tensor, Tensor]:
    with _no_autocast(q.device.type):
        out, lse = _ScoredAttention.apply(q, k, v, terms.bias, terms.slopes, terms.softcap, scale, plan)
    return out, lse


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    # The dtypes are chosen here; under autocast the products would be in bfloat16 again.
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


class _Call(NamedTuple):
    """The operands of one call, five-dimensional and, the bias excepted, in the dtype of sums."""

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    slopes: Tensor | None
    softcap: float | None
    scale: float
    plan: Plan

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, slopes: Tensor | None, *rest: Any) -> "_Call":
        """Returns the call of ``attention``'s own tensors."""
        dtype, heads = accumulate_dtype(q.dtype), (k.shape[1], q.shape[1] // k.shape[1])
        if bias is not None:
            bias = bias.unflatten(1, heads if bias.shape[1] > 1 else (1, 1))
        if slopes is not None:
            slopes = slopes.to(dtype).unflatten(1, heads)[..., None, None]
        return cls(
            q.to(dtype).unflatten(1, heads), k.to(dtype)[:, :, None], v.to(dtype)[:, :, None], bias, slopes, *rest
        )

    def pieces(self) -> Iterator[Piece]:
        """Yields the mask in pieces whose scores stay small."""
        per_pair = max(1, self.q.shape[:3].numel() * self.q.element_size())
        return self.plan.pieces(_PIECE_BYTES // per_pair, self.k.shape[1])

    def scores(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Returns the scores ``(B, Hkv, G, t, M)`` that the softmax takes, and what they are before bias and mask."""
        product = self.q[..., piece.rows, :] @ take(self.k, piece.keys, -2).transpose(-1, -2) * self.scale
        if self.softcap is not None:
            product = (product / self.softcap).tanh() * self.softcap
        scores = product
        if self.slopes is not None:
            scores = scores - self.slopes * self.distance(piece)
        if self.bias is not None:
            bias = take(take(self.bias, piece.rows, -2), piece.keys, -1).to(scores.dtype)
            # Added alone, -inf would leave a NaN score what it is.
            scores = (scores + bias).masked_fill(bias == -torch.inf, -torch.inf)
        return scores if piece.visible is None else scores.masked_fill(~piece.visible, -torch.inf), product

    def distance(self, piece: Piece) -> Tensor:
        """Returns ``|p_i - j|``, broadcastable to ``(B, Hkv, G, t, M)``."""
        keys = piece.keys
        j = torch.arange(keys.start, keys.stop, device=self.q.device) if isinstance(keys, slice) else keys[..., None, :]
        return (self.plan.positions[piece.rows, None] - j).abs().to(self.q.dtype)


class _ScoredAttention(torch.autograd.Function):
    """Runs a plan; differentiates through ``out`` and ``lse``."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, slopes: Tensor | None,
        softcap: float | None, scale: float, plan: Plan,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Returns ``out`` and ``lse``."""
        call = _Call.of(q, k, v, bias, slopes, softcap, scale, plan)
        out = call.q.new_zeros(*call.q.shape[:-1], v.shape[-1])
        lse = call.q.new_full(call.q.shape[:-1], -torch.inf)
        clean = _finite(v)
        for piece in call.pieces():
            scores, _ = call.scores(piece)
            peak = scores.amax(dim=-1, keepdim=True)
            peak = peak.masked_fill(peak == -torch.inf, 0.0)
            weights = _exp(scores - peak)
            total = weights.sum(dim=-1, keepdim=True)
            lse[..., piece.rows] = (peak + total.log())[..., 0]
            seen = None if clean else scores != -torch.inf
            summed = _product(weights, take(call.v, piece.keys, -2), seen)
            out[..., piece.rows, :] = summed / total.masked_fill(total == 0.0, 1.0)
        return out.flatten(1, 2).to(q.dtype), lse.flatten(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keeps inputs and outputs: everything else is computed again."""
        ctx.save_for_backward(*inputs[:5], *output)
        ctx.rest = inputs[5:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        """Returns the gradients of q, k, v, bias and slopes."""
        if grad_out is None and grad_lse is None:
            return (None,) * 8
        *inputs, out, lse = ctx.saved_tensors
        with _no_autocast(out.device.type):
            return _backward(ctx, inputs, out, lse, grad_out, grad_lse)


def _backward(
    ctx: Any, inputs: list[Any], out: Tensor, lse: Tensor, grad_out: Tensor | None, grad_lse: Tensor | None
) -> tuple[Tensor | None, ...]:
    call = _Call.of(*inputs, *ctx.rest)
    out, lse = (x.to(call.q.dtype).unflatten(1, call.q.shape[1:3]) for x in (out, lse))
    empty = lse == -torch.inf
    delta = torch.zeros_like(lse)
    upstream = torch.zeros_like(out)
    # FlashAttention-2 (arXiv 2307.08691), Algorithm 2, line 4; lse adds its own gradient to every score's.
    if grad_out is not None:
        upstream = grad_out.to(out.dtype).unflatten(1, call.q.shape[1:3]).masked_fill(empty[..., None], 0.0)
        delta = delta + (upstream * out).sum(dim=-1)
    if grad_lse is not None:
        delta = delta - grad_lse.to(out.dtype).unflatten(1, call.q.shape[1:3]).masked_fill(empty, 0.0)
    grads = _gradients(call, upstream, delta, lse.masked_fill(empty, 0.0), ctx.needs_input_grad[3:5])
    shaped = [None if x is None else x.reshape(y.shape).to(y.dtype) for x, y in zip(grads, inputs, strict=True)]
    return *shaped, None, None, None


def _gradients(
    call: _Call, upstream: Tensor, delta: Tensor, lse: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Returns the gradients of the operands, five-dimensional; those of bias and slopes if they are needed."""
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (call.q, call.k, call.v))
    grad_bias, grad_slopes = (
        torch.zeros_like(x, dtype=call.q.dtype) if x is not None and wanted else None
        for x, wanted in zip((call.bias, call.slopes), needed, strict=True)
    )
    clean = _finite(call.q, call.k, call.v, upstream, delta, lse)
    for piece in call.pieces():
        scores, product = call.scores(piece)
        hidden = scores == -torch.inf
        keys, values = take(call.k, piece.keys, -2), take(call.v, piece.keys, -2)
        query, above = call.q[..., piece.rows, :], upstream[..., piece.rows, :]
        weights = _exp(scores - lse[..., piece.rows, None])
        grad = weights * (above @ values.transpose(-1, -2) - delta[..., piece.rows, None])
        # What stands at hidden keys made NaN of 0; a hidden score has no gradient.
        grad, weights = grad.masked_fill(hidden, 0.0), weights if clean else weights.masked_fill(hidden, 0.0)
        if grad_slopes is not None:
            grad_slopes -= (grad * call.distance(piece)).sum(dim=(-1, -2), keepdim=True).sum_to_size(grad_slopes.shape)
        if grad_bias is not None:
            add_bias(grad_bias, piece, grad)
        if call.softcap is not None:
            grad = grad * (1.0 - (product / call.softcap) ** 2).masked_fill(hidden, 0.0)
        grad = grad * call.scale
        seen = None if clean else ~hidden
        grad_q[..., piece.rows, :] = _product(grad, keys, seen)
        seen = None if seen is None else seen.transpose(-1, -2)
        add_keys(grad_k, piece.keys, _product(grad.transpose(-1, -2), query, seen))
        add_keys(grad_v, piece.keys, _product(weights.transpose(-1, -2), above, seen))
    return grad_q, grad_k, grad_v, grad_bias, grad_slopes


def _exp(x: Tensor) -> Tensor:
    """Returns ``exp(x)``, 0 where it is no normal number: those cost several times as much, and slopes make many."""
    return F.threshold(x, math.log(torch.finfo(x.dtype).tiny), -torch.inf).exp()


def _finite(*tensors: Tensor) -> bool:
    """Whether the cheaper products will do; where values can not be looked at, those that are right for any will."""
    if torch.compiler.is_compiling() or tensors[0].is_meta:
        return False
    return all(bool(x.isfinite().all()) for x in tensors)


def _product(weights: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
    """Returns ``weights @ x``; NaN and inf in x reach only the rows that ``seen`` lets see them, and make them NaN."""
    if seen is None:
        return weights @ x
    bad = ~x.isfinite()
    return (weights @ x.masked_fill(bad, 0.0)).masked_fill(seen.to(x.dtype) @ bad.to(x.dtype) > 0, torch.nan)
