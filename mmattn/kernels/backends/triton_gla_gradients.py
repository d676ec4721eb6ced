"""Triton kernels of gated linear attention, backward: gradients of states, values, scores, queries, keys and gates.

Nothing is added atomically, so results are deterministic. The gradient of a gate is the sum of all that decays by it,
restarted at every chunk: what queries from there on read, less what those keys from there on are read in the chunk, the
earlier keys that leave the chunk, and the state that passes all of it (Yang et al., arXiv 2312.06635, appendix C). A
query's own key does not decay and is left out, so that small gradients do not drown.

Letters, shapes and decays are those of [`triton_gla_kernels`][mmattn.kernels.backends.triton_gla_kernels].
"""

# Kernels are a language of their own, compiled by Triton, and take no annotations but `constexpr`.
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False, check_untyped_defs=False

import triton
import triton.language as tl

from mmattn.kernels.backends.triton_gla_kernels import (
    LEAF,
    decay_after,
    decay_into,
    gate_sum,
    load_row,
    load_scores,
    load_state,
    load_tile,
    store_tile,
    tile_of,
)

__all__ = ["grad_pairs_kernel", "grad_scores_kernel", "grad_states_kernel", "grad_tokens_kernel", "grad_values_kernel"]


@triton.jit
def grad_states_kernel(
    q_ptr, g_ptr, grad_out_ptr, grad_final_ptr, grad_states_ptr, grad_state_ptr,
    q_sb, q_sh, q_st, g_sb, g_sh, g_st, H, T, N, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the states after every chunk ``(B H, N, K, V)`` and before the first; grid of ``states_kernel``."""
    v_tile, k_tile, b, h, head = tile_of(H, tl.cdiv(V, BV), tl.cdiv(K, BK))
    q_ptr += b * q_sb + h * q_sh
    g_ptr += b * g_sb + h * g_sh
    grad_out_ptr += head * T * V
    dims, outs = k_tile * BK + tl.arange(0, BK), v_tile * BV + tl.arange(0, BV)
    inside = (dims < K)[:, None] & (outs < V)[None, :]
    place = dims[:, None] * V + outs[None, :]
    grad = load_state(grad_final_ptr + head * K * V, dims, outs, K, V)
    for back in range(N):
        n = N - 1 - back
        tl.store(grad_states_ptr + (head * N + n) * K * V + place, grad, mask=inside)
        rows = n * C + tl.arange(0, C)
        g = load_tile(g_ptr, rows, g_st, T, dims, K)
        q_in = load_tile(q_ptr, rows, q_st, T, dims, K) * decay_into(g) * scale
        grad_out = load_tile(grad_out_ptr, rows, V, T, outs, V)
        grad = grad * tl.exp(tl.sum(g, 0))[:, None] + tl.dot(tl.trans(q_in), grad_out, input_precision=PRECISION)
    tl.store(grad_state_ptr + head * K * V + place, grad, mask=inside)


@triton.jit
def grad_values_kernel(
    k_ptr, g_ptr, scores_ptr, grad_out_ptr, grad_states_ptr, grad_v_ptr,
    k_sb, k_sh, k_st, g_sb, g_sh, g_st, H, T, N, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the values ``(B H, T, V)`` of one chunk; grid ``B * H * N * ceil(V / BV)``."""
    tile, n, b, h, head = tile_of(H, tl.cdiv(V, BV), N)
    k_ptr += b * k_sb + h * k_sh
    g_ptr += b * g_sb + h * g_sh
    lane, outs = tl.arange(0, C), tile * BV + tl.arange(0, BV)
    rows, stop = n * C + lane, tl.minimum(n * C + C, T)
    scores = load_scores(scores_ptr + head * T * C, rows, lane, T, C)
    scores = tl.where(lane[:, None] >= lane[None, :], scores, 0.0) * scale
    grad_out = load_tile(grad_out_ptr + head * T * V, rows, V, T, outs, V)
    grad = tl.dot(tl.trans(scores), grad_out, input_precision=PRECISION)
    for k_tile in range(tl.cdiv(K, BK)):
        dims = k_tile * BK + tl.arange(0, BK)
        _, sums = decay_after(g_ptr, rows, g_st, stop, dims, K)
        k_out = load_tile(k_ptr, rows, k_st, T, dims, K) * tl.exp(sums)
        grad_state = load_state(grad_states_ptr + (head * N + n) * K * V, dims, outs, K, V)
        grad += tl.dot(k_out, grad_state, input_precision=PRECISION)
    store_tile(grad_v_ptr + head * T * V, rows, grad, T, outs, V)


@triton.jit
def grad_scores_kernel(
    v_ptr, grad_out_ptr, grad_scores_ptr, v_sb, v_sh, v_st, H, T, N, scale,
    V: tl.constexpr, C: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the unscaled scores ``(B H, T, C)`` of one chunk, all columns; grid ``B * H * N``."""
    _, n, b, h, head = tile_of(H, 1, N)
    v_ptr += b * v_sb + h * v_sh
    lane = tl.arange(0, C)
    rows = n * C + lane
    grad = tl.zeros([C, C], tl.float32)
    for tile in range(tl.cdiv(V, BV)):
        outs = tile * BV + tl.arange(0, BV)
        grad_out = load_tile(grad_out_ptr + head * T * V, rows, V, T, outs, V)
        v = load_tile(v_ptr, rows, v_st, T, outs, V)
        grad += tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
    store_tile(grad_scores_ptr + head * T * C, rows, grad * scale, T, lane, C)


@triton.jit
def grad_pairs_kernel(
    q_ptr, k_ptr, g_ptr, grad_scores_ptr, grad_q_ptr, grad_k_ptr,
    q_sb, q_sh, q_st, k_sb, k_sh, k_st, g_sb, g_sh, g_st, H, T, N,
    K: tl.constexpr, C: tl.constexpr, KP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of one leaf's queries and keys from pairs of different tokens of the chunk.

    Grid ``B * H * N * (C / LEAF)``; float32 ``(B H, T, K)`` both.
    """
    leaf, n, b, h, head = tile_of(H, C // LEAF, N)
    q_ptr += b * q_sb + h * q_sh
    k_ptr += b * k_sb + h * k_sh
    g_ptr += b * g_sb + h * g_sh
    grad_scores_ptr += head * T * C
    lane, dims = tl.arange(0, LEAF), tl.arange(0, KP)
    first = n * C + leaf * LEAF
    rows = first + lane

    grad_q = tl.zeros([LEAF, KP], tl.float32)
    between = tl.zeros([KP], tl.float32)
    for back in range(leaf):
        start = first - (back + 1) * LEAF
        after, sums = decay_after(g_ptr, start + lane, g_st, tl.minimum(start + LEAF, T), dims, K)
        k_out = load_tile(k_ptr, start + lane, k_st, T, dims, K) * tl.exp(sums + between[None, :])
        grad_block = load_scores(grad_scores_ptr, rows, start - n * C + lane, T, C)
        grad_q += tl.dot(grad_block, k_out, input_precision=PRECISION)
        between += gate_sum(g_ptr, start, after, g_st, T, dims, K)
    grad_q *= decay_into(load_tile(g_ptr, rows, g_st, T, dims, K))

    grad_k = tl.zeros([LEAF, KP], tl.float32)
    between = tl.zeros([KP], tl.float32)
    for later in range(leaf + 1, C // LEAF):
        others = n * C + later * LEAF + lane
        g = load_tile(g_ptr, others, g_st, T, dims, K)
        q_in = load_tile(q_ptr, others, q_st, T, dims, K) * tl.exp(tl.cumsum(g, 0) + between[None, :])
        grad_block = load_scores(grad_scores_ptr, others, leaf * LEAF + lane, T, C)
        grad_k += tl.dot(tl.trans(grad_block), q_in, input_precision=PRECISION)
        between += tl.sum(g, 0)
    _, sums = decay_after(g_ptr, rows, g_st, tl.minimum(first + LEAF, T), dims, K)
    grad_k *= tl.exp(sums)

    q = load_tile(q_ptr, rows, q_st, T, dims, K)
    decay = tl.zeros([LEAF, KP], tl.float32)
    for back in range(LEAF):
        j = LEAF - 1 - back
        column = grad_scores_ptr + rows.to(tl.int64) * C + leaf * LEAF + j
        # Before the key's own row is set to 1: the pair of a token with itself belongs to another kernel.
        weights = tl.load(column, mask=rows < T, other=0.0)[:, None] * decay
        grad_q += weights * load_row(k_ptr, first + j, k_st, T, dims, K)[None, :]
        grad_k += tl.where((lane == j)[:, None], tl.sum(weights * q, 0)[None, :], 0.0)
        decay = tl.where((lane == j)[:, None], 1.0, decay)
        decay *= tl.exp(load_row(g_ptr, first + j, g_st, T, dims, K))[None, :]
    store_tile(grad_q_ptr + head * T * K, rows, grad_q, T, dims, K)
    store_tile(grad_k_ptr + head * T * K, rows, grad_k, T, dims, K)


@triton.jit
def grad_tokens_kernel(
    q_ptr, k_ptr, v_ptr, g_ptr, grad_out_ptr, states_ptr, grad_states_ptr, grad_scores_ptr,
    grad_q_ptr, grad_k_ptr, grad_g_ptr,
    q_sb, q_sh, q_st, k_sb, k_sh, k_st, v_sb, v_sh, v_st, g_sb, g_sh, g_st, H, T, N, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, keys and gates of one chunk, ``(B H, T, K)``; grid ``B * H * N * ceil(K / BK)``.

    Those of queries and keys hold what ``grad_pairs_kernel`` wrote and are added to in place.
    """
    tile, n, b, h, head = tile_of(H, tl.cdiv(K, BK), N)
    q_ptr += b * q_sb + h * q_sh
    k_ptr += b * k_sb + h * k_sh
    v_ptr += b * v_sb + h * v_sh
    g_ptr += b * g_sb + h * g_sh
    grad_q_ptr += head * T * K
    grad_k_ptr += head * T * K
    lane, dims = tl.arange(0, C), tile * BK + tl.arange(0, BK)
    rows, stop = n * C + lane, tl.minimum(n * C + C, T)

    grad_in = tl.zeros([C, BK], tl.float32)
    grad_left = tl.zeros([C, BK], tl.float32)
    grad_gate = tl.zeros([BK], tl.float32)
    for v_tile in range(tl.cdiv(V, BV)):
        outs = v_tile * BV + tl.arange(0, BV)
        state = load_state(states_ptr + (head * N + n) * K * V, dims, outs, K, V)
        grad_state = load_state(grad_states_ptr + (head * N + n) * K * V, dims, outs, K, V)
        grad_out = load_tile(grad_out_ptr + head * T * V, rows, V, T, outs, V)
        grad_in += tl.dot(grad_out, tl.trans(state), input_precision=PRECISION)
        v = load_tile(v_ptr, rows, v_st, T, outs, V)
        grad_left += tl.dot(v, tl.trans(grad_state), input_precision=PRECISION)
        grad_gate += tl.sum(state * grad_state, 1)

    after, sums = decay_after(g_ptr, rows, g_st, stop, dims, K)
    grad_gate *= tl.exp(gate_sum(g_ptr, n * C, after, g_st, T, dims, K))
    grad_left *= tl.exp(sums)
    grad_in *= decay_into(load_tile(g_ptr, rows, g_st, T, dims, K)) * scale
    q, k = load_tile(q_ptr, rows, q_st, T, dims, K), load_tile(k_ptr, rows, k_st, T, dims, K)
    grad_q = load_tile(grad_q_ptr, rows, K, T, dims, K) + grad_in
    grad_k = load_tile(grad_k_ptr, rows, K, T, dims, K)
    # A key that leaves the chunk decays by the gates after its own: sums of the rows before.
    earlier = tl.broadcast_to(tl.maximum(lane - 1, 0)[:, None], (C, BK))
    left_before = tl.where((lane > 0)[:, None], tl.gather(k * grad_left, earlier, 0), 0.0)
    # Own keys are not in grad_q and grad_k yet: they would cancel, and rounding would stay.
    grad_g = tl.cumsum(q * grad_q - k * grad_k, 0, reverse=True) + tl.cumsum(left_before, 0) + grad_gate[None, :]
    store_tile(grad_g_ptr + head * T * K, rows, grad_g, T, dims, K)

    own = tl.load(grad_scores_ptr + head * T * C + rows.to(tl.int64) * C + lane, mask=rows < T, other=0.0)[:, None]
    store_tile(grad_q_ptr, rows, grad_q + own * k, T, dims, K)
    store_tile(grad_k_ptr, rows, grad_k + grad_left + own * q, T, dims, K)
