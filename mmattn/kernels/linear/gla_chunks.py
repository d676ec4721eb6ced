"""The chunk form of recurrences whose decay differs by channel: gated linear attention and RWKV-6.

Inside a chunk, ``A_ij = sum_k q_ik k_jk exp(b_ik - b_jk)`` for ``j < i`` with ``b`` the sum of log-decays so far.
Splitting the exponential between q and k makes A a product of matrices, but ``exp(-b)`` alone overflows. Here a chunk
is cut into leaves in which decays are moderate: there both factors are taken about the middle of the leaf's decay,
where they are at most ``exp(20)``. Leaves are then joined in pairs, and pairs of pairs, up to the chunk: the later
half's queries decay from the border between the two, the earlier half's keys decay up to it, so all factors are at
most 1, and going up one level is one multiplication. With mild decays the chunk is a single leaf; with any decays
leaves of one token are possible, so nothing overflows.

Letters: h heads, n chunks, M = n h, C tokens of a chunk, K key and V value width, L tokens of a leaf.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmattn.kernels.linear.chunk_states import grad_gates, gradients, outputs
from mmattn.kernels.linear.chunked import Definition, chunked, power_of_two

__all__ = ["gla_chunks"]

# Total log-decay of a leaf: its factors stay within exp(+-20), products within exp(40), far from overflow.
_LEAF_DECAY = 40.0


def gla_chunks(
    *tensors: Tensor,
    state: Tensor,
    bonus: Tensor | None,
    scale: float,
    chunk_size: int,
    subchunk_size: int,
    definition: Definition,
) -> tuple[Tensor, Tensor]:
    """Returns outputs ``(B, H, T, V)`` and final state ``(B, H, K, V)``, with a hand-written backward pass.

    Args:
        tensors: q, k, v, g ``(B, H, T, .)``.
        state: ``(B, H, K, V)``; its dtype is the one of the arithmetic.
        bonus: None for gated linear attention; ``(H, K)`` weights of the current token for RWKV-6, whose queries see
            the state before the decay of their own token.
        scale: multiplies q.
        chunk_size: C, rounded up to a power of two.
        subchunk_size: the smallest leaf that is tried before leaves of one token.
        definition: the same token by token, of tensors and bonus, with ``state`` and ``scale``.
    """
    C = power_of_two(chunk_size, at_most=tensors[0].shape[2])
    rule = _GlaRule(scale, min(C, power_of_two(subchunk_size, at_most=C)))
    heads = [] if bonus is None else [bonus]
    definition = partial(definition, scale=scale)
    return chunked(rule, [*tensors], state, chunk_size=C, definition=definition, heads=heads)


@dataclass(frozen=True)
class _GlaRule:
    """``chunked.Rule`` of gated linear attention, and of RWKV-6 if heads have a bonus."""

    scale: float
    smallest_leaf: int

    def forward(self, tokens: list[Tensor], heads: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        n, h = tokens[0].shape[:2]
        q, k, v, g = (x.flatten(0, 1) for x in tokens)
        decays = _Decays.of(g, exclusive=bool(heads), smallest_leaf=self.smallest_leaf)
        scores, q_in, k_out = _scores(q, k, decays, _bonus_of_chunks(heads, n))
        out, state = outputs(scores, q_in, k_out, v, decays.chunk, state, self.scale)
        return out.unflatten(0, (n, h)), state

    def backward(
        self, tokens: list[Tensor], heads: list[Tensor], state: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        n, h = tokens[0].shape[:2]
        q, k, v, g = (x.flatten(0, 1) for x in tokens)
        grad_out = grad_out.flatten(0, 1) * self.scale
        bonus = _bonus_of_chunks(heads, n)
        decays = _Decays.of(g, exclusive=bool(heads), smallest_leaf=self.smallest_leaf)
        scores, q_in, k_out = _scores(q, k, decays, bonus)
        grad = gradients(scores, q_in, k_out, v, decays.chunk, state, grad_out, grad_state)
        grad_chunk = grad.decay().sum(dim=-1).mul_(decays.chunk)  # of the log-decay of the whole chunk
        into, out_of = decays.into(), decays.out_of()
        grad_q, grad_k = _grad_pairs(q, k, decays, grad.scores, into, out_of)
        grad_q.addcmul_(into, grad.q_in)
        grad_g = grad_gates(q * grad_q, k * grad_k, k_out * grad.k_out, exclusive=decays.exclusive)
        grad_g += grad_chunk[:, None]
        grad_k.addcmul_(out_of, grad.k_out)

        own = grad.scores.diagonal(dim1=1, dim2=2)[..., None]
        grad_q.addcmul_(own, k if bonus is None else k * bonus)
        grad_k.addcmul_(own, q if bonus is None else q * bonus)
        grad_heads = [] if bonus is None else [(own * q * k).unflatten(0, (n, h)).sum(dim=(0, 2))]
        grads = [x.unflatten(0, (n, h)) for x in (grad_q, grad_k, grad.v, grad_g)]
        return grads, grad_heads, grad.state


def _bonus_of_chunks(heads: list[Tensor], n: int) -> Tensor | None:
    """Returns the bonus ``(h, K)`` of every chunk, ``(M, 1, K)``."""
    return heads[0].repeat(n, 1)[:, None] if heads else None


@dataclass
class _Decays:
    """Decays between the tokens of a leaf and its ends, and their products on the way up to the chunk.

    Attributes:
        leaf: L.
        exclusive: whether queries see the state before the decay of their own token.
        query: ``(M, C / L, L, K)`` from the middle of a leaf to its queries; may exceed 1. With L = 1 from its start.
        key: ``(M, C / L, L, K)`` from the keys of a leaf to its middle; may exceed 1. With L = 1 to its end.
        half: ``(M, C / L, 1, K)`` over half of a leaf's decay.
        block: ``(M, C / L, K)`` over a leaf.
        chunk: ``(M, K)`` over the chunk.
    """

    leaf: int
    exclusive: bool
    query: Tensor
    key: Tensor
    half: Tensor
    block: Tensor
    chunk: Tensor

    @classmethod
    def of(cls, g: Tensor, *, exclusive: bool, smallest_leaf: int) -> "_Decays":
        """Returns the decays within leaves, as large as they may be, for log-decays ``(M, C, K)``."""
        C = g.shape[1]
        so_far = g.cumsum(dim=1)
        total = so_far[:, -1]
        # Gates are mild as a rule: then one look at the sums decides for the chunk, and no leaf is searched for.
        leaf = C if C > 1 and _is_moderate(total) else _leaf_size(g, smallest_leaf)
        g = g.unflatten(1, (-1, leaf))
        if leaf == 1:
            one = torch.ones_like(g)
            decay = g.exp()
            return cls(1, exclusive, one if exclusive else decay, one, one[:, :, :1], decay[:, :, 0], total.exp())
        so_far = so_far[:, None] if leaf == C else g.cumsum(dim=2)
        middle = so_far[:, :, -1:] / 2
        half, block, total = middle.exp(), so_far[:, :, -1].exp(), total.exp()
        # About the middle both factors stay within exp(20); about an end one of them would be exp(40).
        so_far -= middle
        if exclusive:
            key = so_far.neg().exp_()
            query = so_far.sub_(g).exp_()
        else:
            query = so_far.exp_()
            # The same exponent with the other sign, cheaper than a second exponential.
            key = query.reciprocal()
        return cls(leaf, exclusive, query, key, half, block, total)

    def into(self) -> Tensor:
        """Returns the decays ``(M, C, K)`` from the start of a leaf to its queries."""
        return (self.query * self.half).flatten(1, 2)

    def out_of(self) -> Tensor:
        """Returns the decays ``(M, C, K)`` from the keys of a leaf to its end."""
        return (self.key * self.half).flatten(1, 2)

    def ascend(self, arriving: list[Tensor], leaving: list[Tensor]) -> Iterator[int]:
        """Yields the sizes of the blocks that are joined in pairs, and after each takes the decays up to the pairs.

        Args:
            arriving: ``(M, C, K)``, what decays from the start of its block, changed in place.
            leaving: ``(M, C, K)``, what decays to the end of its block, changed in place.
        """
        size, block = self.leaf, self.block
        while size < arriving[0].shape[1]:
            yield size
            pairs = block.unflatten(1, (-1, 2))  # (M, pairs, 2, K)
            for x in arriving:
                x.unflatten(1, (-1, 2, size))[:, :, 1].mul_(pairs[:, :, :1])
            for x in leaving:
                x.unflatten(1, (-1, 2, size))[:, :, 0].mul_(pairs[:, :, 1:])
            size, block = 2 * size, pairs.prod(dim=2)


def _is_moderate(decay: Tensor) -> bool:
    return bool(decay.amin() >= -_LEAF_DECAY)


def _leaf_size(g: Tensor, smallest: int) -> int:
    """Returns the largest power of two whose blocks of tokens all decay moderately, at least `smallest`, or 1."""
    size, sums = 1, g
    while size < g.shape[1]:
        sums = sums.unflatten(1, (-1, 2)).sum(dim=2)
        if not _is_moderate(sums):
            break
        size *= 2
    return size if size >= smallest else 1


def _scores(q: Tensor, k: Tensor, decays: _Decays, bonus: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns A ``(M, C, C)``, the queries decayed from the chunk's start and the keys decayed to its end."""
    M, C, _ = q.shape
    leaf_q, leaf_k = q.unflatten(1, (-1, decays.leaf)) * decays.query, k.unflatten(1, (-1, decays.leaf)) * decays.key
    if decays.leaf == C > 1:
        scores = torch.bmm(leaf_q[:, 0], leaf_k[:, 0].mT)
    else:
        scores = torch.zeros(M, C, C, dtype=q.dtype, device=q.device)
        if decays.leaf > 1:
            _blocks(scores, decays.leaf).copy_(leaf_q @ leaf_k.mT)
    q_in, k_out = leaf_q.mul_(decays.half).flatten(1, 2), leaf_k.mul_(decays.half).flatten(1, 2)
    for size in decays.ascend([q_in], [k_out]):
        _blocks(scores, 2 * size)[..., size:, :size] = _late(q_in, size) @ _early(k_out, size).mT
    if decays.leaf > 1 and bonus is None:
        # What stands above the diagonal is finite, since both factors are, and means nothing.
        scores.tril_()
    else:
        own = (q * k).sum(dim=-1) if bonus is None else (q * k * bonus).sum(dim=-1)
        scores.tril_(-1).diagonal(dim1=1, dim2=2).copy_(own)
    return scores, q_in, k_out


def _grad_pairs(
    q: Tensor, k: Tensor, decays: _Decays, grad_scores: Tensor, into: Tensor, out_of: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of q and k from the scores of different tokens; takes the decays up to the chunk."""
    C, leaf = q.shape[1], decays.leaf
    below = grad_scores.tril(-1)
    if leaf == 1:
        grad_q, grad_k = torch.zeros_like(q), torch.zeros_like(k)
    else:
        inside = below[:, None] if leaf == C else _blocks(below, leaf)
        grad_q = (inside @ (k.unflatten(1, (-1, leaf)) * decays.key)).mul_(decays.query).flatten(1, 2)
        grad_k = (inside.mT @ (q.unflatten(1, (-1, leaf)) * decays.query)).mul_(decays.key).flatten(1, 2)
    if leaf < C:
        q_in, k_out = q * into, k * out_of
        for size in decays.ascend([q_in, into], [k_out, out_of]):
            block = _blocks(below, 2 * size)[..., size:, :size]
            _late(grad_q, size).addcmul_(_late(into, size), block @ _early(k_out, size))
            _early(grad_k, size).addcmul_(_early(out_of, size), block.mT @ _late(q_in, size))
    return grad_q, grad_k


def _late(x: Tensor, size: int) -> Tensor:
    """Returns a view ``(M, pairs, size, K)`` of the second blocks of all pairs."""
    return x.unflatten(1, (-1, 2, size))[:, :, 1]


def _early(x: Tensor, size: int) -> Tensor:
    """Returns a view ``(M, pairs, size, K)`` of the first blocks of all pairs."""
    return x.unflatten(1, (-1, 2, size))[:, :, 0]


def _blocks(scores: Tensor, size: int) -> Tensor:
    """Returns a view ``(M, C / size, size, size)`` of the blocks on the diagonal of ``(M, C, C)``."""
    return scores.unflatten(2, (-1, size)).unflatten(1, (-1, size)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
