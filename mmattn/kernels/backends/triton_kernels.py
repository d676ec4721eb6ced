"""Triton kernels of block-sparse attention: forward, gradient of the queries, gradient of keys and values.

Each program owns one tile and walks the selected blocks of that tile's row: the index for outputs and query gradients,
the transposed index for key and value gradients, so nothing is added atomically and results are deterministic. Blocks
come in two lists: in *full* ones every pair of tokens attends; in *partial* ones query ``i`` attends the valid keys of
its S half-open spans, ``spans[s, i, 0] <= j < spans[s, i, 1]``. What is not finite at a key that a query does not
attend stays out of that query's results.

The softmax is the online one (Milakov and Gimelshein, arXiv 1805.02867) tiled as in FlashAttention-2 (Dao, arXiv
2307.08691, Algorithms 1 and 2), in base 2. Shapes: ``q (B, H, Tq, D)``, ``k (B, H/G, Tk, D)``, ``v (B, H/G, Tk, DV)``;
``lse`` and ``delta`` are float32 ``(B, H, Tq)``. Widths D and DV are padded to powers of two DP and DVP with zeros.
"""

# Kernels are a language of their own, compiled by Triton, and take no annotations but `constexpr`.
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False, check_untyped_defs=False

import triton
import triton.language as tl

__all__ = ["backward_kv_kernel", "backward_q_kernel", "forward_kernel"]

# The chip computes powers of 2; with scores in base 2 no exponential needs a product before it.
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _program(length, TILE: tl.constexpr, heads):
    """Tile, batch item and head of this program; tiles of a head are neighbours and share its keys in the cache."""
    tiles = tl.cdiv(length, TILE)
    flat = tl.program_id(0) // tiles
    return tl.program_id(0) % tiles, (flat // heads).to(tl.int64), (flat % heads).to(tl.int64)


@triton.jit
def _load_rows(ptr, rows, stride, limit, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows of a matrix, ``(rows, PADDED)``; zeros past `limit` and past WIDTH."""
    dims = tl.arange(0, PADDED)
    inside = (rows < limit)[:, None] & (dims < WIDTH)[None, :]
    # A view of (B, T, H, D) has rows H*D apart: offsets of long sequences leave 32 bits.
    return tl.load(ptr + rows.to(tl.int64)[:, None] * stride + dims[None, :], mask=inside, other=0.0)


@triton.jit
def _store_rows(ptr, rows, value, limit, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Writes rows of a contiguous ``(T, WIDTH)`` matrix in its own dtype."""
    dims = tl.arange(0, PADDED)
    inside = (rows < limit)[:, None] & (dims < WIDTH)[None, :]
    pointers = ptr + rows.to(tl.int64)[:, None] * WIDTH + dims[None, :]
    tl.store(pointers, value.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def _index_row(b, h, block, blocks, index_b, index_h):
    """Row of ``(B|1, H|1, blocks)`` lists that belongs to a batch item, head and block."""
    return (b * index_b + h * index_h) * blocks + block


@triton.jit
def _attended(rows, cols, spans_ptr, valid_ptr, q_len, k_len, S: tl.constexpr, HAS_VALID: tl.constexpr):
    """Which queries `rows` attend which keys `cols`; shaped like ``rows + cols``."""
    attended = (rows < 0) & (cols < 0)
    for s in tl.static_range(S):
        pointers = spans_ptr + (s * q_len + rows) * 2
        start = tl.load(pointers, mask=rows < q_len, other=0)
        stop = tl.load(pointers + 1, mask=rows < q_len, other=0)
        attended = attended | ((cols >= start) & (cols < stop))
    if HAS_VALID:
        attended = attended & (tl.load(valid_ptr + cols, mask=cols < k_len, other=0) != 0)
    return attended


@triton.jit
def _scores(q, k, scale_log2):
    # "ieee": float32 factors would otherwise be cut to TF32, 11 significant bits.
    return tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2


@triton.jit
def _finite(x):
    """``x`` with zeros in the place of NaN and infinities: a weight of 0 times one of them is NaN."""
    return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.jit
def _sees_nonfinite(attended, x):
    """Which queries attend a key whose row of ``x (keys, width)`` is not finite."""
    dirty = tl.max(tl.where(tl.abs(x) < float("inf"), 0, 1), 1) > 0
    return tl.max(tl.where(attended & dirty[None, :], 1, 0), 1) > 0


@triton.jit
def _forward_blocks(
    acc, peak, total, q, rows, k_ptr, v_ptr, spans_ptr, valid_ptr, k_stride, v_stride, q_len, k_len, scale_log2,
    count, index_ptr,
    MASKED: tl.constexpr, S: tl.constexpr, HAS_VALID: tl.constexpr, K_BLOCK: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
):  # fmt: skip
    """Adds one list of key blocks to the running softmax (acc, peak, total) of a query tile."""
    for step in range(count * (K_BLOCK // BN)):
        block = tl.load(index_ptr + step // (K_BLOCK // BN))
        cols = block * K_BLOCK + (step % (K_BLOCK // BN)) * BN + tl.arange(0, BN)
        k = _load_rows(k_ptr, cols, k_stride, k_len, D, DP)
        scores = _scores(q, k, scale_log2)
        if MASKED:
            attended = _attended(rows[:, None], cols[None, :], spans_ptr, valid_ptr, q_len, k_len, S, HAS_VALID)
            scores = tl.where(attended, scores, -float("inf"))
        else:
            scores = tl.where(cols[None, :] < k_len, scores, -float("inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        # A row that has attended nothing yet has peak -inf, and -inf - -inf is NaN.
        base = tl.where(new_peak == -float("inf"), 0.0, new_peak)
        p = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(peak - base)
        v = _load_rows(v_ptr, cols, v_stride, k_len, DV, DVP)
        if MASKED:
            acc = tl.where(_sees_nonfinite(attended, v)[:, None], float("nan"), acc)
            v = _finite(v)
        # Factors of a product share a dtype, so p is rounded here; its sum below is not, and both add up in float32.
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        total = total * shrink + tl.sum(p, 1)
        peak = new_peak
    return acc, peak, total


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr,
    full_count_ptr, full_index_ptr, part_count_ptr, part_index_ptr, spans_ptr, valid_ptr,
    q_sb, q_sh, q_st, k_sb, k_sh, k_st, v_sb, v_sh, v_st, valid_sb,
    H, G, q_len, k_len, q_blocks, full_max, part_max, index_b, index_h, scale,
    S: tl.constexpr, HAS_VALID: tl.constexpr, Q_BLOCK: tl.constexpr, K_BLOCK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of one query tile; grid ``B * H * ceil(Tq / BM)``."""
    tile, b, h = _program(q_len, BM, H)
    rows = tile * BM + tl.arange(0, BM)
    q = _load_rows(q_ptr + b * q_sb + h * q_sh, rows, q_st, q_len, D, DP)
    k_ptr += b * k_sb + (h // G) * k_sh
    v_ptr += b * v_sb + (h // G) * v_sh
    valid_ptr += b * valid_sb
    row = _index_row(b, h, tile // (Q_BLOCK // BM), q_blocks, index_b, index_h)

    acc = tl.zeros([BM, DVP], tl.float32)
    peak = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc, peak, total = _forward_blocks(
        acc, peak, total, q, rows, k_ptr, v_ptr, spans_ptr, valid_ptr, k_st, v_st, q_len, k_len, scale * LOG2E,
        tl.load(full_count_ptr + row), full_index_ptr + row * full_max,
        False, S, HAS_VALID, K_BLOCK, BN, D, DP, DV, DVP,
    )  # fmt: skip
    acc, peak, total = _forward_blocks(
        acc, peak, total, q, rows, k_ptr, v_ptr, spans_ptr, valid_ptr, k_st, v_st, q_len, k_len, scale * LOG2E,
        tl.load(part_count_ptr + row), part_index_ptr + row * part_max,
        True, S, HAS_VALID, K_BLOCK, BN, D, DP, DV, DVP,
    )  # fmt: skip

    # A row without keys: 0 / 1 for the output, -inf for the log-sum-exp, and no NaN on the way.
    empty = total == 0.0
    out = acc / tl.where(empty, 1.0, total)[:, None]
    lse = tl.where(empty, -float("inf"), (peak + tl.log2(tl.where(empty, 1.0, total))) * LN2)
    _store_rows(out_ptr + (b * H + h) * q_len * DV, rows, out, q_len, DV, DVP)
    tl.store(lse_ptr + (b * H + h) * q_len + rows, lse, mask=rows < q_len)


@triton.jit
def _load_lse2(ptr, rows, q_len):
    """Log-sum-exp in base 2; +inf for empty and absent rows, which makes their probabilities 0."""
    lse = tl.load(ptr + rows, mask=rows < q_len, other=-float("inf"))
    return tl.where(lse == -float("inf"), float("inf"), lse * LOG2E)


@triton.jit
def _backward_q_blocks(
    grad_q, q, grad_out, lse2, delta, rows, k_ptr, v_ptr, spans_ptr, valid_ptr, k_stride, v_stride, q_len, k_len,
    scale_log2, count, index_ptr,
    MASKED: tl.constexpr, S: tl.constexpr, HAS_VALID: tl.constexpr, K_BLOCK: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
):  # fmt: skip
    """Adds one list of key blocks to the gradient of a query tile."""
    for step in range(count * (K_BLOCK // BN)):
        block = tl.load(index_ptr + step // (K_BLOCK // BN))
        cols = block * K_BLOCK + (step % (K_BLOCK // BN)) * BN + tl.arange(0, BN)
        k = _load_rows(k_ptr, cols, k_stride, k_len, D, DP)
        scores = _scores(q, k, scale_log2)
        if MASKED:
            attended = _attended(rows[:, None], cols[None, :], spans_ptr, valid_ptr, q_len, k_len, S, HAS_VALID)
            scores = tl.where(attended, scores, -float("inf"))
        else:
            scores = tl.where(cols[None, :] < k_len, scores, -float("inf"))
        # Probabilities as they were normalised forward: the saved log-sum-exp replaces a second pass over the row.
        p = tl.exp2(scores - lse2[:, None])
        v = _load_rows(v_ptr, cols, v_stride, k_len, DV, DVP)
        grad_p = tl.dot(grad_out, tl.trans(v), input_precision="ieee")
        grad_scores = p * (grad_p - delta[:, None])
        if MASKED:
            grad_scores = tl.where(attended, grad_scores, 0.0)
            k = _finite(k)
        grad_q += tl.dot(grad_scores.to(k.dtype), k, input_precision="ieee")
    return grad_q


@triton.jit
def backward_q_kernel(
    q_ptr, k_ptr, v_ptr, grad_out_ptr, lse_ptr, delta_ptr, grad_q_ptr,
    full_count_ptr, full_index_ptr, part_count_ptr, part_index_ptr, spans_ptr, valid_ptr,
    q_sb, q_sh, q_st, k_sb, k_sh, k_st, v_sb, v_sh, v_st, valid_sb,
    H, G, q_len, k_len, q_blocks, full_max, part_max, index_b, index_h, scale,
    S: tl.constexpr, HAS_VALID: tl.constexpr, Q_BLOCK: tl.constexpr, K_BLOCK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
):  # fmt: skip
    """Gradient of one query tile; grid ``B * H * ceil(Tq / BM)``."""
    tile, b, h = _program(q_len, BM, H)
    rows = tile * BM + tl.arange(0, BM)
    flat = (b * H + h) * q_len
    q = _load_rows(q_ptr + b * q_sb + h * q_sh, rows, q_st, q_len, D, DP)
    grad_out = _load_rows(grad_out_ptr + flat * DV, rows, DV, q_len, DV, DVP)
    lse2 = _load_lse2(lse_ptr + flat, rows, q_len)
    delta = tl.load(delta_ptr + flat + rows, mask=rows < q_len, other=0.0)
    k_ptr += b * k_sb + (h // G) * k_sh
    v_ptr += b * v_sb + (h // G) * v_sh
    valid_ptr += b * valid_sb
    row = _index_row(b, h, tile // (Q_BLOCK // BM), q_blocks, index_b, index_h)

    grad_q = tl.zeros([BM, DP], tl.float32)
    grad_q = _backward_q_blocks(
        grad_q, q, grad_out, lse2, delta, rows, k_ptr, v_ptr, spans_ptr, valid_ptr, k_st, v_st, q_len, k_len,
        scale * LOG2E, tl.load(full_count_ptr + row), full_index_ptr + row * full_max,
        False, S, HAS_VALID, K_BLOCK, BN, D, DP, DV, DVP,
    )  # fmt: skip
    grad_q = _backward_q_blocks(
        grad_q, q, grad_out, lse2, delta, rows, k_ptr, v_ptr, spans_ptr, valid_ptr, k_st, v_st, q_len, k_len,
        scale * LOG2E, tl.load(part_count_ptr + row), part_index_ptr + row * part_max,
        True, S, HAS_VALID, K_BLOCK, BN, D, DP, DV, DVP,
    )  # fmt: skip
    _store_rows(grad_q_ptr + flat * D, rows, grad_q * scale, q_len, D, DP)


@triton.jit
def _backward_kv_blocks(
    grad_k, grad_v, k, v, cols, q_ptr, grad_out_ptr, lse_ptr, delta_ptr, spans_ptr, valid_ptr, q_stride,
    q_len, k_len, scale_log2, count, index_ptr,
    MASKED: tl.constexpr, S: tl.constexpr, HAS_VALID: tl.constexpr, Q_BLOCK: tl.constexpr, BM: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
):  # fmt: skip
    """Adds one list of query blocks of one head to the gradients of a key tile; scores are ``(keys, queries)``."""
    for step in range(count * (Q_BLOCK // BM)):
        block = tl.load(index_ptr + step // (Q_BLOCK // BM))
        rows = block * Q_BLOCK + (step % (Q_BLOCK // BM)) * BM + tl.arange(0, BM)
        q = _load_rows(q_ptr, rows, q_stride, q_len, D, DP)
        grad_out = _load_rows(grad_out_ptr, rows, DV, q_len, DV, DVP)
        lse2 = _load_lse2(lse_ptr, rows, q_len)
        delta = tl.load(delta_ptr + rows, mask=rows < q_len, other=0.0)
        scores = _scores(k, q, scale_log2)
        if MASKED:
            attended = _attended(rows[None, :], cols[:, None], spans_ptr, valid_ptr, q_len, k_len, S, HAS_VALID)
            scores = tl.where(attended, scores, -float("inf"))
        # Absent queries have lse +inf and p = 0; absent keys are computed on zeros and never stored.
        p = tl.exp2(scores - lse2[None, :])
        if MASKED:
            p = tl.where(attended, p, 0.0)
        grad_v += tl.dot(p.to(grad_out.dtype), grad_out, input_precision="ieee")
        grad_p = tl.dot(v, tl.trans(grad_out), input_precision="ieee")
        grad_scores = p * (grad_p - delta[None, :])
        if MASKED:
            grad_scores = tl.where(attended, grad_scores, 0.0)
        grad_k += tl.dot(grad_scores.to(q.dtype), q, input_precision="ieee")
    return grad_k, grad_v


@triton.jit
def backward_kv_kernel(
    q_ptr, k_ptr, v_ptr, grad_out_ptr, lse_ptr, delta_ptr, grad_k_ptr, grad_v_ptr,
    full_count_ptr, full_index_ptr, part_count_ptr, part_index_ptr, spans_ptr, valid_ptr,
    q_sb, q_sh, q_st, k_sb, k_sh, k_st, v_sb, v_sh, v_st, valid_sb,
    H, G, q_len, k_len, k_blocks, full_max, part_max, index_b, index_h, scale,
    S: tl.constexpr, HAS_VALID: tl.constexpr, Q_BLOCK: tl.constexpr, K_BLOCK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
):  # fmt: skip
    """Gradients of one key tile, summed over the G query heads that read it.

    Grid ``B * H/G * ceil(Tk / BN)``. The lists are transposed: query blocks of each key block.
    """
    tile, b, kv_head = _program(k_len, BN, H // G)
    cols = tile * BN + tl.arange(0, BN)
    k = _load_rows(k_ptr + b * k_sb + kv_head * k_sh, cols, k_st, k_len, D, DP)
    v = _load_rows(v_ptr + b * v_sb + kv_head * v_sh, cols, v_st, k_len, DV, DVP)
    valid_ptr += b * valid_sb

    grad_k = tl.zeros([BN, DP], tl.float32)
    grad_v = tl.zeros([BN, DVP], tl.float32)
    for g in range(G):
        h = kv_head * G + g
        flat = (b * H + h) * q_len
        row = _index_row(b, h, tile // (K_BLOCK // BN), k_blocks, index_b, index_h)
        grad_k, grad_v = _backward_kv_blocks(
            grad_k, grad_v, k, v, cols, q_ptr + b * q_sb + h * q_sh, grad_out_ptr + flat * DV, lse_ptr + flat,
            delta_ptr + flat, spans_ptr, valid_ptr, q_st, q_len, k_len, scale * LOG2E,
            tl.load(full_count_ptr + row), full_index_ptr + row * full_max,
            False, S, HAS_VALID, Q_BLOCK, BM, D, DP, DV, DVP,
        )  # fmt: skip
        grad_k, grad_v = _backward_kv_blocks(
            grad_k, grad_v, k, v, cols, q_ptr + b * q_sb + h * q_sh, grad_out_ptr + flat * DV, lse_ptr + flat,
            delta_ptr + flat, spans_ptr, valid_ptr, q_st, q_len, k_len, scale * LOG2E,
            tl.load(part_count_ptr + row), part_index_ptr + row * part_max,
            True, S, HAS_VALID, Q_BLOCK, BM, D, DP, DV, DVP,
        )  # fmt: skip
    flat = (b * (H // G) + kv_head) * k_len
    _store_rows(grad_k_ptr + flat * D, cols, grad_k * scale, k_len, D, DP)
    _store_rows(grad_v_ptr + flat * DV, cols, grad_v, k_len, DV, DVP)
