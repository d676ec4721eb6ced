"""Triton kernels of gated linear attention, forward: states between chunks, scores inside chunks, outputs.

A chunk has C tokens and is cut into leaves of LEAF tokens. Every decay between two tokens is the exponential of the sum
of the gates between them, never of a difference of running sums: all exponents are at most 0, so nothing overflows, and
a gate of ``-inf`` or -1000 costs its neighbours no precision. Between leaves the sum has three parts, from the key to
the end of its leaf, over the leaves between, and from the start of the query's leaf to the query; queries take the last
and keys the others, so that the scores of two leaves are one matrix product. Inside a leaf the decays from one key to
all queries are kept as a tile, and going to the key before it multiplies the tile by one gate (cf. the secondary
chunking of Yang et al., arXiv 2312.06635, section 4.3).

Letters: B batch, H heads, T tokens, N chunks, K key and V value width; BK and BV are tiles of these, KP is K padded to
a power of two. Shapes: ``q, k, g (B, H, T, K)``, ``v (B, H, T, V)`` in any floating dtype and any strides but the last;
everything else is contiguous, with B and H as one. Arithmetic and states are float32.
"""

# Kernels are a language of their own, compiled by Triton, and take no annotations but `constexpr`.
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False, check_untyped_defs=False

import triton
import triton.language as tl

__all__ = [
    "LEAF", "decay_after", "decay_into", "gate_sum", "load_row", "load_scores", "load_state", "load_tile",
    "outputs_kernel", "scores_kernel", "states_kernel", "store_tile", "tile_of",
]  # fmt: skip

LEAF = tl.constexpr(16)


@triton.jit
def tile_of(H, tiles, parts):
    """Tile, part, batch item, head of the item and head of the batch; tiles of a part are neighbours in the grid."""
    flat = tl.program_id(0) // tiles
    head = (flat // parts).to(tl.int64)
    return tl.program_id(0) % tiles, flat % parts, head // H, head % H, head


@triton.jit
def load_tile(ptr, rows, stride, limit, dims, width):
    """Rows of a matrix as float32 ``(rows, dims)``; zeros from row `limit` on and from column `width` on."""
    inside = (rows < limit)[:, None] & (dims < width)[None, :]
    # A view of (B, T, H, D) has rows H*D apart: offsets of long sequences leave 32 bits.
    return tl.load(ptr + rows.to(tl.int64)[:, None] * stride + dims[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_row(ptr, row, stride, limit, dims, width):
    """One row of a matrix as float32 ``(dims,)``; zeros if it is past `limit`."""
    inside = (dims < width) & (row < limit)
    return tl.load(ptr + tl.cast(row, tl.int64) * stride + dims, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_tile(ptr, rows, value, limit, dims, width):
    """Writes rows of a contiguous ``(T, width)`` matrix in its own dtype."""
    inside = (rows < limit)[:, None] & (dims < width)[None, :]
    tl.store(ptr + rows.to(tl.int64)[:, None] * width + dims[None, :], value.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def load_state(ptr, dims, outs, K: tl.constexpr, V: tl.constexpr):
    """Part ``(dims, outs)`` of a contiguous state ``(K, V)``; zeros outside."""
    inside = (dims < K)[:, None] & (outs < V)[None, :]
    return tl.load(ptr + dims[:, None] * V + outs[None, :], mask=inside, other=0.0)


@triton.jit
def load_scores(ptr, rows, cols, limit, C: tl.constexpr):
    """Scores ``(rows, cols)`` of ``(T, C)``; zeros past `limit`. Rows are tokens, columns places in the chunk."""
    return tl.load(ptr + rows.to(tl.int64)[:, None] * C + cols[None, :], mask=(rows < limit)[:, None], other=0.0)


@triton.jit
def decay_into(g):
    """Decays ``(rows, dims)`` from before the first row to every row."""
    return tl.exp(tl.cumsum(g, 0))


@triton.jit
def gate_sum(g_ptr, first, after, stride, limit, dims, width):
    """Sum of all gates of a tile whose gates without row `first` are `after`, ``(dims,)``."""
    return tl.sum(after, 0) + load_row(g_ptr, first, stride, limit, dims, width)


@triton.jit
def decay_after(g_ptr, rows, stride, stop, dims, width):
    """The gates after each row's own, up to row `stop`, and their running sums from the end: ``(rows, dims)`` both."""
    after = load_tile(g_ptr, rows + 1, stride, stop, dims, width)
    return after, tl.cumsum(after, 0, reverse=True)


@triton.jit
def states_kernel(
    k_ptr, v_ptr, g_ptr, state_ptr, states_ptr, final_ptr,
    k_sb, k_sh, k_st, v_sb, v_sh, v_st, g_sb, g_sh, g_st, H, T, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """States before every chunk ``(B H, N, K, V)`` and after the last; grid ``B * H * ceil(K / BK) * ceil(V / BV)``."""
    v_tile, k_tile, b, h, head = tile_of(H, tl.cdiv(V, BV), tl.cdiv(K, BK))
    k_ptr += b * k_sb + h * k_sh
    v_ptr += b * v_sb + h * v_sh
    g_ptr += b * g_sb + h * g_sh
    dims, outs = k_tile * BK + tl.arange(0, BK), v_tile * BV + tl.arange(0, BV)
    inside = (dims < K)[:, None] & (outs < V)[None, :]
    place = dims[:, None] * V + outs[None, :]
    state = load_state(state_ptr + head * K * V, dims, outs, K, V)
    # The only serial part: one program passes its tile of the state through all chunks.
    for n in range(N):
        tl.store(states_ptr + (head * N + n) * K * V + place, state, mask=inside)
        rows, stop = n * C + tl.arange(0, C), tl.minimum(n * C + C, T)
        after, sums = decay_after(g_ptr, rows, g_st, stop, dims, K)
        k_out = load_tile(k_ptr, rows, k_st, T, dims, K) * tl.exp(sums)
        v = load_tile(v_ptr, rows, v_st, T, outs, V)
        decay = tl.exp(gate_sum(g_ptr, n * C, after, g_st, T, dims, K))
        state = state * decay[:, None] + tl.dot(tl.trans(k_out), v, input_precision=PRECISION)
    tl.store(final_ptr + head * K * V + place, state, mask=inside)


@triton.jit
def scores_kernel(
    q_ptr, k_ptr, g_ptr, scores_ptr, q_sb, q_sh, q_st, k_sb, k_sh, k_st, g_sb, g_sh, g_st, H, T, N,
    K: tl.constexpr, C: tl.constexpr, KP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Decayed products of queries and keys, unscaled, ``(B H, T, C)``; grid ``B * H * N * (C / LEAF)``.

    Each program writes one leaf of queries, up to and including the leaf on the diagonal, and nothing right of it.
    """
    leaf, n, b, h, head = tile_of(H, C // LEAF, N)
    q_ptr += b * q_sb + h * q_sh
    k_ptr += b * k_sb + h * k_sh
    g_ptr += b * g_sb + h * g_sh
    lane, dims = tl.arange(0, LEAF), tl.arange(0, KP)
    first = n * C + leaf * LEAF
    rows = first + lane
    scores_ptr += head * T * C
    q = load_tile(q_ptr, rows, q_st, T, dims, K)
    q_in = q * decay_into(load_tile(g_ptr, rows, g_st, T, dims, K))
    # From the nearest leaf backwards, so that the gates between grow by one leaf at a time.
    between = tl.zeros([KP], tl.float32)
    for back in range(leaf):
        start = first - (back + 1) * LEAF
        after, sums = decay_after(g_ptr, start + lane, g_st, tl.minimum(start + LEAF, T), dims, K)
        k_out = load_tile(k_ptr, start + lane, k_st, T, dims, K) * tl.exp(sums + between[None, :])
        block = tl.dot(q_in, tl.trans(k_out), input_precision=PRECISION)
        store_tile(scores_ptr, rows, block, T, start - n * C + lane, C)
        between += gate_sum(g_ptr, start, after, g_st, T, dims, K)

    block = tl.zeros([LEAF, LEAF], tl.float32)
    decay = tl.zeros([LEAF, KP], tl.float32)
    for back in range(LEAF):
        j = LEAF - 1 - back
        # Rows before the key are still 0: the causal mask comes with the decays.
        decay = tl.where((lane == j)[:, None], 1.0, decay)
        k_row = load_row(k_ptr, first + j, k_st, T, dims, K)
        column = tl.sum(q * decay * k_row[None, :], 1)
        block = tl.where((lane == j)[None, :], column[:, None], block)
        decay *= tl.exp(load_row(g_ptr, first + j, g_st, T, dims, K))[None, :]
    store_tile(scores_ptr, rows, block, T, leaf * LEAF + lane, C)


@triton.jit
def outputs_kernel(
    q_ptr, v_ptr, g_ptr, scores_ptr, states_ptr, out_ptr,
    q_sb, q_sh, q_st, v_sb, v_sh, v_st, g_sb, g_sh, g_st, H, T, N, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs ``(B H, T, V)`` of one chunk, from its tokens and from the state; grid ``B * H * N * ceil(V / BV)``."""
    tile, n, b, h, head = tile_of(H, tl.cdiv(V, BV), N)
    q_ptr += b * q_sb + h * q_sh
    v_ptr += b * v_sb + h * v_sh
    g_ptr += b * g_sb + h * g_sh
    lane, outs = tl.arange(0, C), tile * BV + tl.arange(0, BV)
    rows = n * C + lane
    scores = load_scores(scores_ptr + head * T * C, rows, lane, T, C)
    # Nothing was written right of the leaves on the diagonal.
    scores = tl.where(lane[:, None] >= lane[None, :], scores, 0.0)
    out = tl.dot(scores, load_tile(v_ptr, rows, v_st, T, outs, V), input_precision=PRECISION)
    for k_tile in range(tl.cdiv(K, BK)):
        dims = k_tile * BK + tl.arange(0, BK)
        q_in = load_tile(q_ptr, rows, q_st, T, dims, K) * decay_into(load_tile(g_ptr, rows, g_st, T, dims, K))
        state = load_state(states_ptr + (head * N + n) * K * V, dims, outs, K, V)
        out += tl.dot(q_in, state, input_precision=PRECISION)
    store_tile(out_ptr + head * T * V, rows, out * scale, T, outs, V)
