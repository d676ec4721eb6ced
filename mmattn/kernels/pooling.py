"""``pool`` and ``select``: representatives of token segments, and from their scores a ``BlockIndex``.

Together with ``attention`` these are the selection half of FlexPrefill (arXiv 2502.20766), DHSA (arXiv 2510.24606),
NSA (arXiv 2502.11089) and block top-k methods: pool keys and queries, score, select, attend.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.kernels.block_index import BlockIndex

__all__ = ["pool", "select"]

PoolMode = Literal["mean", "sum", "sqrt", "max", "last"]


def pool(x: Tensor, segments: int | Tensor, mode: PoolMode = "mean", *, weights: Tensor | None = None) -> Tensor:
    """Returns one vector per segment of tokens.

    Args:
        x: ``(B, H, T, D)``.
        segments: an int block length (the last block may be short), or boundaries int64 ``(B, n + 1)``, ascending;
            tokens before the first and after the last boundary belong to no segment.
        mode: ``mean`` over the true length, ``sum``, ``sqrt`` (mean times sqrt of the length, DHSA), ``max``, ``last``.
        weights: ``(B, H, T)`` logits; the result is then the sum weighted by their softmax inside each segment (CCA).

    Returns:
        ``(B, H, n, D)`` in the dtype of x, accumulated in float32 or better; an empty segment gives 0. Time and memory
        O(T D).

    Raises:
        ValueError: shapes or options do not fit.

    Example:
        >>> pool(torch.tensor([1.0, 3.0, 8.0]).view(1, 1, 3, 1), 2).flatten().tolist()
        [2.0, 8.0]
    """
    if x.ndim != 4:
        raise ValueError(f"x must be (B, H, T, D), got {tuple(x.shape)}")
    if mode not in get_args(PoolMode):
        raise ValueError(f"mode must be one of {', '.join(get_args(PoolMode))}, got {mode!r}")
    if weights is not None and weights.shape != x.shape[:3]:
        raise ValueError(f"weights must be (B, H, T) = {tuple(x.shape[:3])}, got {tuple(weights.shape)}")
    bounds = _boundaries(x, segments)
    start, stop = bounds[:, None, :-1], bounds[:, None, 1:]  # (B, 1, n)
    length = stop - start
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    if weights is not None:
        values = values * _segment_softmax(weights.to(values.dtype), bounds)[..., None]
        mode = "sum"
    if mode == "last":
        # An empty segment at the start would read token -1; what it reads instead is zeroed next.
        last = (stop - 1).clamp(min=0)[..., None].expand(*x.shape[:2], -1, x.shape[3])
        result = values.gather(2, last).masked_fill((length == 0)[..., None], 0.0)
    elif mode == "max":
        result = _segment_max(values, bounds)
    else:
        result = _segment_sum(values, bounds, segments)
        if mode != "sum":
            size = length.clamp(min=1).to(values.dtype)
            result = result / (size if mode == "mean" else size.sqrt())[..., None]
    return result.to(x.dtype)


def select(
    scores: Tensor,
    *,
    topk: int | Tensor | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    keep: BlockIndex | None = None,
    causal: bool = True,
    q_block: int,
    k_block: int,
    q_len: int | None = None,
    k_len: int | None = None,
    crossing: Literal["include", "exclude"] = "include",
) -> BlockIndex:
    """Returns the index of the best key blocks of every query block.

    A block is eligible if it holds a key that some query of the row may see, and its score is not ``-inf``. Ties go to
    the lower block id. Exactly one rule is given:

    - ``topk``: the n best eligible blocks, those of ``keep`` first and always; rows with fewer take them all.
    - ``coverage``: eligible scores are softmaxed and sorted in descending order; with cumulative sums ``c`` the first
      ``#{c <= coverage} + 1`` blocks (``crossing="include"``) or ``#{c <= coverage}`` blocks (``"exclude"``), and
      those of ``keep``.
    - ``threshold``: all with ``score >= threshold``, and those of ``keep``.

    Args:
        scores: ``(B, H, nq, nk)``.
        topk: blocks per row, an int or a tensor that broadcasts to ``(B, H, nq)``.
        coverage: probability mass, in 0 .. 1.
        threshold: least score.
        keep: blocks that are always selected where eligible; same grid, its predicate is not used.
        causal: whether eligibility and the returned index are causal.
        q_block: queries per block.
        k_block: keys per block.
        q_len: number of queries, default ``nq * q_block``.
        k_len: number of keys, default ``nk * k_block``.
        crossing: see ``coverage``.

    Raises:
        ValueError: not exactly one rule, a coverage outside 0 .. 1, or shapes that do not fit.

    Example:
        >>> index = select(torch.tensor([[[[3.0, 1.0, 2.0]]]]), topk=2, causal=False, q_block=4, k_block=4)
        >>> index.index.flatten().tolist()
        [0, 2]
    """
    if sum(rule is not None for rule in (topk, coverage, threshold)) != 1:
        raise ValueError(f"give exactly one of topk, coverage, threshold; got {topk}, {coverage}, {threshold}")
    if crossing not in ("include", "exclude"):
        raise ValueError(f"crossing must be 'include' or 'exclude', got {crossing!r}")
    if coverage is not None and not 0.0 <= coverage <= 1.0:
        raise ValueError(f"coverage must be a probability mass in 0 .. 1, got {coverage}")
    if scores.ndim != 4:
        raise ValueError(f"scores must be (B, H, nq, nk), got {tuple(scores.shape)}")
    nq, nk = scores.shape[-2:]
    q_len = nq * q_block if q_len is None else q_len
    k_len = nk * k_block if k_len is None else k_len
    eligible = (scores > -torch.inf) & _visible(nq, nk, q_block, k_block, q_len, k_len, causal, scores.device)
    forced = torch.zeros_like(eligible)
    if keep is not None:
        if (keep.q_block, keep.k_block, keep.num_q_blocks, keep.num_k_blocks) != (q_block, k_block, nq, nk):
            raise ValueError(f"keep has another grid than scores: {keep.num_q_blocks} x {keep.num_k_blocks} blocks")
        forced = keep.mask() & eligible
    if threshold is not None:
        chosen = eligible & (scores >= threshold)
    elif topk is not None:
        limit = torch.as_tensor(topk, device=scores.device).expand(scores.shape[:-1])
        chosen = eligible & (_ranks(scores, eligible, forced) < limit[..., None])
    else:
        chosen = _covering(scores, eligible, coverage or 0.0, crossing)
    return BlockIndex.from_mask(chosen | forced, q_len, k_len, q_block=q_block, k_block=k_block, causal=causal)


def _visible(
    nq: int, nk: int, q_block: int, k_block: int, q_len: int, k_len: int, causal: bool, device: torch.device
) -> Tensor:
    """Returns bool ``(nq, nk)``: some query of the row may see some key of the block."""
    if not causal:
        return torch.ones(nq, nk, dtype=torch.bool, device=device)
    # Bottom-right alignment: the last query sees the last key, whatever the two lengths.
    last_query = (torch.arange(1, nq + 1, device=device) * q_block).clamp(max=q_len) - 1 + (k_len - q_len)
    return torch.arange(nk, device=device) * k_block <= last_query[:, None]


def _ranks(scores: Tensor, eligible: Tensor, forced: Tensor) -> Tensor:
    """Returns the rank of every block in its row: forced first, then eligible by score, lower id first on ties."""
    order = scores.masked_fill(~eligible, -torch.inf).masked_fill(forced, torch.inf)
    # A stable sort keeps the order of ids among equal scores: ties go to the lower id.
    order = order.argsort(dim=-1, descending=True, stable=True)
    return torch.empty_like(order).scatter_(
        -1, order, torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    )


def _covering(scores: Tensor, eligible: Tensor, coverage: float, crossing: str) -> Tensor:
    """Returns the blocks whose softmax mass covers ``coverage``."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(~eligible, -torch.inf)
    # A row without eligible blocks has no softmax; nothing is chosen there.
    probability = torch.softmax(wide, dim=-1).nan_to_num(0.0)
    ranks = _ranks(probability, eligible, torch.zeros_like(eligible))
    # Ranks are a permutation of the row; sorting them inverts it.
    ordered = probability.gather(-1, ranks.argsort(dim=-1))
    count = (ordered.cumsum(dim=-1) <= coverage).sum(dim=-1, keepdim=True)
    return eligible & (ranks < count + (crossing == "include"))


def _boundaries(x: Tensor, segments: int | Tensor) -> Tensor:
    """Returns checked boundaries ``(B, n + 1)``."""
    batch, length = x.shape[0], x.shape[2]
    if isinstance(segments, int):
        if segments < 1:
            raise ValueError(f"a block needs at least 1 token, got segments={segments}")
        bounds = (torch.arange(-(-length // segments) + 1, device=x.device) * segments).clamp(max=length)
        return bounds.expand(batch, -1)
    if segments.ndim != 2 or segments.shape[0] != batch or segments.shape[1] < 1:
        raise ValueError(f"boundaries must be (B, n + 1) with B = {batch}, got {tuple(segments.shape)}")
    if bool((segments.diff(dim=-1) < 0).any()) or int(segments.min()) < 0 or int(segments.max()) > length:
        raise ValueError(f"boundaries must ascend within 0 .. {length}, got {segments.tolist()}")
    return segments.to(x.device, torch.int64)


def _segment_sum(values: Tensor, bounds: Tensor, segments: int | Tensor) -> Tensor:
    """Returns the sums ``(B, H, n, D)``: a reshape for equal blocks, differences of prefix sums otherwise."""
    if isinstance(segments, int):
        padding = -values.shape[2] % segments
        return F.pad(values, (0, 0, 0, padding)).unflatten(2, (-1, segments)).sum(dim=3)
    # float64, because a difference of long float32 prefix sums loses digits.
    prefix = F.pad(values.double().cumsum(dim=2), (0, 0, 1, 0))
    at = bounds[:, None, :, None].expand(*values.shape[:2], -1, values.shape[3])
    return prefix.gather(2, at).diff(dim=2).to(values.dtype)


def _segment_ids(bounds: Tensor, length: int) -> Tensor:
    """Returns the segment of every token ``(B, T)``; ``n`` for tokens outside all segments."""
    tokens = torch.arange(length, device=bounds.device).expand(bounds.shape[0], -1).contiguous()
    ids = torch.searchsorted(bounds.contiguous(), tokens, right=True) - 1
    count = bounds.shape[1] - 1
    return torch.where((ids < 0) | (ids >= count), count, ids)


def _segment_max(values: Tensor, bounds: Tensor) -> Tensor:
    """Returns the maxima ``(B, H, n, D)``, 0 for empty segments."""
    ids = _segment_ids(bounds, values.shape[2])[:, None, :, None].expand_as(values)
    count = bounds.shape[1] - 1
    # One segment more than there are takes the tokens that belong to none.
    start = values.new_full((*values.shape[:2], count + 1, values.shape[3]), -torch.inf)
    result = start.scatter_reduce(2, ids, values, "amax")[:, :, :count]
    return result.masked_fill((bounds.diff(dim=-1) == 0)[:, None, :, None], 0.0)


def _segment_softmax(logits: Tensor, bounds: Tensor) -> Tensor:
    """Returns the softmax of ``(B, H, T)`` inside each segment."""
    ids = _segment_ids(bounds, logits.shape[2])[:, None].expand_as(logits)
    shape = (*logits.shape[:2], bounds.shape[1])
    # Subtracted for range only: it cancels, so no gradient goes through it.
    peak = logits.new_full(shape, -torch.inf).scatter_reduce(2, ids, logits.detach(), "amax")
    shifted = (logits - peak.gather(2, ids)).exp()
    total = logits.new_zeros(shape).scatter_add(2, ids, shifted)
    return shifted / total.gather(2, ids)
