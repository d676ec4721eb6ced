"""``neural_memory``: the Titans recurrence over tokens, one by one or in chunks of matrix products.

Letters: B batch, H heads, T tokens, C tokens per chunk, D width of keys, queries and values.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mmattn.kernels.linear.sequences import Layout, Mode, check_mask, check_options
from mmattn.kernels.memory.network import Memory, Reduction, aligned, backward, memory_gradients, norm_residual, recall
from mmattn.kernels.memory.scan import decay_products
from mmattn.kernels.states import trainable

__all__ = ["MemoryState", "neural_memory", "neural_memory_step"]


class MemoryState(NamedTuple):
    """Where a stream of tokens stands; leading axes ``(B, H)``.

    Attributes:
        memory: ``M_t``, what ``recall`` reads.
        momentum: ``S_t``, the surprise with momentum.
        base: the memory at the start of the running chunk, at which gradients are taken.
        offset: tokens already in the running chunk, below ``chunk_size``.
    """

    memory: Memory
    momentum: Memory
    base: Memory
    offset: int = 0

    @classmethod
    def start(cls, memory: Memory) -> "MemoryState":
        """Returns the state of a stream that begins with ``memory`` and no momentum."""
        return cls(memory, memory.map(torch.zeros_like), memory)


class _Tokens(NamedTuple):
    """What the recurrence reads of each token: ``q, k, v (B, H, T, D)`` and gates ``(B, H, T)``."""

    q: Tensor
    k: Tensor
    v: Tensor
    theta: Tensor
    alpha: Tensor
    eta: Tensor
    write: Tensor

    def part(self, start: int, stop: int) -> "_Tokens":
        return _Tokens(*(t[:, :, start:stop] for t in self))


def neural_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    alpha: Tensor,
    eta: Tensor | None = None,
    *,
    initial_state: MemoryState | Memory | None = None,
    chunk_size: int = 64,
    mode: Mode = "auto",
    layout: Layout = "bhtd",
    mask: Tensor | None = None,
    reduction: Reduction = "sum",
) -> tuple[Tensor, MemoryState]:
    """Returns what a memory that learns at test time answers to every query, and its state after the last token.

    ``S_t = eta_t S_{t-1} - theta_t grad ||M(k_t) - v_t||^2``, ``M_t = (1 - alpha_t) M_{t-1} + S_t``,
    ``o_t = M_t(q_t)`` (Titans, arXiv 2501.00663, equations 8 to 15; loss of equation 12). The gradient is taken at the
    memory as it was when the running chunk began. ``chunk_size`` is therefore part of the *definition*: 1 is the exact
    recurrence, larger chunks are what the paper trains with. Chunks are counted from the start of the stream, so the
    result does not depend on how a stream is cut into calls.

    Mode ``chunk`` writes the sum over a chunk's rank-one gradients as masked matrix products, layer by layer, and
    never forms a gradient: time ``O(T (C + D) D)`` and memory ``O(T (C + D))`` per matrix of a memory of width D.
    ``naive`` is the definition, token by token: time and, with gradients, memory ``O(T D^2)``.

    Args:
        q: queries ``(B, H, T, D)``.
        k: keys ``(B, H, T, D)``.
        v: values ``(B, H, T, D)``; the linear memory allows another width than that of the keys.
        theta: learning rates ``(B, H, T)``, at least 0.
        alpha: forget gates ``(B, H, T)`` in [0, 1]; 1 forgets everything.
        eta: momentum gates ``(B, H, T)`` in [0, 1], None for no momentum.
        initial_state: the state to go on from, or the memory to begin with (leading axes ``(B, H)``); None begins
            with a linear memory of zeros.
        chunk_size: C, tokens between two refreshes of the memory at which gradients are taken.
        mode: ``auto`` takes ``naive`` where chunks hold one token or the call does, else ``chunk``.
        layout: ``bthd`` for q, k, v ``(B, T, H, D)`` and gates ``(B, T, H)``.
        mask: bool ``(B, T)``, False at padding, whose output is 0: such a token changes neither memory nor momentum,
            though it counts in its chunk.
        reduction: over the features of the squared error; ``mean`` divides every gradient by D.

    Returns:
        ``o`` of the shape and dtype of v, and the state. Arithmetic and state are float32 or wider.

    Raises:
        ValueError: shapes or options do not fit; the message says what was given and expected.

    Example:
        One write with learning rate 0.5 moves the answer to k from 0 to v.

        >>> one, gate = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1)
        >>> out, state = neural_memory(one, one, 3 * one, 0.5 * gate, 0 * gate)
        >>> out.item(), state.memory.weights[0].item(), state.offset
        (3.0, 3.0, 1)
    """
    check_options(mode, layout, chunk_size=chunk_size)
    _check(q, k, v, {"theta": theta, "alpha": alpha, "eta": eta}, layout)
    if layout == "bthd":
        q, k, v, theta, alpha = (t.transpose(1, 2) for t in (q, k, v, theta, alpha))
        eta = None if eta is None else eta.transpose(1, 2)
    tokens = _prepare(q, k, v, theta, alpha, eta, mask)
    state = _begin(initial_state, tokens, chunk_size)
    if mode == "auto":
        mode = "naive" if chunk_size == 1 or tokens.k.shape[2] == 1 else "chunk"
    # Autocast would lower the precision of the state.
    with torch.autocast(v.device.type, enabled=False):
        out, state = _run(tokens, state, mode, chunk_size, reduction)
    out = out.to(v.dtype)
    if mask is not None:
        out = out.masked_fill(~mask[:, None, :, None], 0.0)
    return (out.transpose(1, 2) if layout == "bthd" else out), state


def neural_memory_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    alpha: Tensor,
    eta: Tensor | None,
    state: MemoryState,
    *,
    chunk_size: int = 64,
    reduction: Reduction = "sum",
) -> tuple[Tensor, MemoryState]:
    """Returns the answer to one more token and the state after it; ``neural_memory`` for a stream.

    Time and memory are those of one training step of the memory network, however long the stream is.

    Args:
        q: ``(B, H, D)``.
        k: ``(B, H, D)``.
        v: ``(B, H, D)``.
        theta: ``(B, H)``.
        alpha: ``(B, H)``.
        eta: ``(B, H)`` or None.
        state: not changed; the returned one is new.
        chunk_size: as in ``neural_memory``, the same in all calls of a stream.
        reduction: as in ``neural_memory``.

    Raises:
        ValueError: as in ``neural_memory``.

    Example:
        >>> one, gate = torch.ones(1, 1, 1), torch.ones(1, 1)
        >>> state = MemoryState.start(Memory((torch.ones(1, 1, 1, 1),)))
        >>> neural_memory_step(one, one, 3 * one, 0.5 * gate, 0 * gate, None, state)[0].item()
        3.0
    """
    q, k, v, theta, alpha = (t[:, :, None] for t in (q, k, v, theta, alpha))
    eta = None if eta is None else eta[:, :, None]
    out, state = neural_memory(
        q, k, v, theta, alpha, eta, initial_state=state, chunk_size=chunk_size, mode="naive", reduction=reduction
    )
    return out[:, :, 0], state


def _run(
    tokens: _Tokens, state: MemoryState, mode: Mode, chunk_size: int, reduction: Reduction
) -> tuple[Tensor, MemoryState]:
    advance, length = (_one if mode == "naive" else _chunk), tokens.k.shape[2]
    outs, start = [], 0
    while start < length:
        stop = start + 1 if mode == "naive" else min(length, start + chunk_size - state.offset)
        out, state = advance(tokens.part(start, stop), state, chunk_size, reduction)
        outs.append(out)
        start = stop
    return (torch.cat(outs, dim=2) if outs else tokens.v), state


def _one(tokens: _Tokens, state: MemoryState, chunk_size: int, reduction: Reduction) -> tuple[Tensor, MemoryState]:
    """The definition, for one token."""
    # A new chunk begins: gradients are taken at the memory as it is now.
    base = state.memory if state.offset == 0 else state.base
    gradient = memory_gradients(base, tokens.k, tokens.v, tokens.theta, reduction=reduction)

    write, eta, keep = tokens.write[:, :, 0], tokens.eta[:, :, 0], 1 - tokens.alpha[:, :, 0]

    def unless_masked(new: Tensor, old: Tensor) -> Tensor:
        # Not a product with 0 or 1: a masked token must leave every bit as it is.
        return torch.where(aligned(write, old) > 0, new, old)

    momentum = state.momentum.map(lambda s, g: unless_masked(aligned(eta, s) * s - g, s), gradient)
    memory = state.memory.map(lambda m, s: unless_masked(aligned(keep, m) * m + s, m), momentum)
    out = recall(memory, tokens.q)
    return out, MemoryState(memory, momentum, base, (state.offset + 1) % chunk_size)


def _chunk(tokens: _Tokens, state: MemoryState, chunk_size: int, reduction: Reduction) -> tuple[Tensor, MemoryState]:
    """A chunk at once. Unrolled, ``M_i = beta_i M_0 + f_i S_0 - sum_{j<=i} G_ij grad_j`` for every token ``i``."""
    base = state.memory if state.offset == 0 else state.base
    parts = backward(base, tokens.k, tokens.v, reduction)
    # Momentum: S_l = carried_l S_0 - sum_j spread_lj grad_j. A masked token keeps S and leaves M alone.
    eta = torch.where(tokens.write > 0, tokens.eta, torch.ones_like(tokens.eta))
    spread = decay_products(eta) * (tokens.theta * tokens.write)[..., None, :]
    carried = eta.cumprod(dim=-1)
    keep = 1 - tokens.alpha * tokens.write
    forgetting = decay_products(keep) * tokens.write[..., None, :]
    beta, f, g = keep.cumprod(dim=-1), (forgetting @ carried[..., None])[..., 0], forgetting @ spread

    x = tokens.q
    for layer, (w, s) in enumerate(zip(state.memory.weights, state.momentum.weights, strict=True)):
        x = functional.gelu(x) if layer else x
        # q (a^T delta), summed over the tokens of a chunk, is linear attention from q to the stored inputs a.
        scores = (x @ parts.inputs[layer].transpose(-1, -2)) * g
        x = beta[..., None] * (x @ w) + f[..., None] * (x @ s) - scores @ parts.deltas[layer]
    if parts.gamma is not None and state.memory.gamma is not None and state.momentum.gamma is not None:
        gamma, surprise = state.memory.gamma[..., None, :], state.momentum.gamma[..., None, :]
        x = norm_residual(x, beta[..., None] * gamma + f[..., None] * surprise - g @ parts.gamma, tokens.q)

    written, pushed = parts.weighted_sum(g[..., -1, :]), parts.weighted_sum(spread[..., -1, :])
    memory = state.memory.map(
        lambda m, s, w: aligned(beta[..., -1], m) * m + aligned(f[..., -1], s) * s - w, state.momentum, written
    )
    momentum = state.momentum.map(lambda s, w: aligned(carried[..., -1], s) * s - w, pushed)
    return x, MemoryState(memory, momentum, base, (state.offset + tokens.k.shape[2]) % chunk_size)


def _prepare(
    q: Tensor, k: Tensor, v: Tensor, theta: Tensor, alpha: Tensor, eta: Tensor | None, mask: Tensor | None
) -> _Tokens:
    dtype = torch.promote_types(v.dtype, torch.float32)
    q, k, v, theta, alpha = (t.to(dtype) for t in (q, k, v, theta, alpha))
    eta = torch.zeros_like(theta) if eta is None else eta.to(dtype)
    if mask is None:
        return _Tokens(q, k, v, theta, alpha, eta, torch.ones_like(theta))
    check_mask(mask, k.shape[0], k.shape[2])
    # A factor of 0 would not do: what stands at padding may be no number.
    padding = ~mask[:, None]
    q, k, v = (t.masked_fill(padding[..., None], 0.0) for t in (q, k, v))
    theta, alpha, eta = (t.masked_fill(padding, 0.0) for t in (theta, alpha, eta))
    return _Tokens(q, k, v, theta, alpha, eta, mask[:, None].to(dtype).expand_as(theta))


def _begin(initial: MemoryState | Memory | None, tokens: _Tokens, chunk_size: int) -> MemoryState:
    if initial is None:
        shape = (*tokens.k.shape[:2], tokens.k.shape[3], tokens.v.shape[3])
        initial = Memory((tokens.k.new_zeros(shape),))
    initial = trainable(initial)
    state = initial if isinstance(initial, MemoryState) else MemoryState.start(initial)
    memory, momentum, base = (m.map(lambda t: t.to(tokens.v.dtype)) for m in state[:3])
    _check_memory(memory, tokens.k, tokens.v)
    if not 0 <= state.offset < chunk_size:
        raise ValueError(f"the state stands at token {state.offset} of its chunk, chunk_size is {chunk_size}")
    return MemoryState(memory, momentum, base, state.offset)


def _check(q: Tensor, k: Tensor, v: Tensor, gates: dict[str, Tensor | None], layout: Layout) -> None:
    letters = "B, H, T" if layout == "bhtd" else "B, T, H"
    vectors = {"q": q, "k": k, "v": v}
    if not q.ndim == k.ndim == v.ndim == 4 or q.shape != k.shape or k.shape[:3] != v.shape[:3]:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in vectors.items())
        raise ValueError(f"q, k, v must be ({letters}, D) and share B, H and T (q and k also D), got {shapes}")
    for name, gate in gates.items():
        if gate is not None and gate.shape != k.shape[:3]:
            raise ValueError(f"{name} must be ({letters}) = {tuple(k.shape[:3])}, got {tuple(gate.shape)}")
    for name, t in (vectors | gates).items():
        if t is not None and not t.dtype.is_floating_point:
            raise ValueError(f"{name} must be floating point, got {t.dtype}")


def _check_memory(memory: Memory, k: Tensor, v: Tensor) -> None:
    widths = [weight.shape[-2:] for weight in memory.weights]
    joins = all(left[1] == right[0] for left, right in pairwise(widths))
    ends = (widths[0][0], widths[-1][1]) == (k.shape[3], v.shape[3]) if widths else False
    if not joins or not ends or any(t.shape[:2] != k.shape[:2] for t in memory.tensors()):
        shapes = [tuple(t.shape) for t in memory.weights]
        raise ValueError(
            f"the memory's matrices must be (B, H, U, W) with B, H = {tuple(k.shape[:2])}, lead from width "
            f"{k.shape[3]} to width {v.shape[3]} and fit each other, got {shapes}"
        )
    if memory.gamma is not None and not memory.gamma.shape[-1] == k.shape[3] == v.shape[3]:
        raise ValueError(
            f"a memory with gamma adds its input to its output: gamma {tuple(memory.gamma.shape)}, keys of width "
            f"{k.shape[3]} and values of width {v.shape[3]} must agree"
        )
