"""Key spans: for every query a union of half-open key intervals, the token-level half of a ``BlockIndex``.

A span tensor is ``(S, Tq, 2)`` int64: query ``i`` may attend key ``j`` if ``spans[s, i, 0] <= j < spans[s, i, 1]`` for
some ``s``. *Normal form*: the spans of a query are ascending, disjoint, not adjacent, and empty ones are ``(0, 0)`` and
come last. Causal, window, sink, document, scale and rectangle masks are all a few spans per query, so they cost O(T)
memory instead of the O(T^2) of a boolean mask.
"""

import torch
from torch import Tensor

__all__ = ["allowed", "block_areas", "intersect", "normalise", "positional_spans", "slice_spans", "touched_blocks"]

# Pairs of a query and a key block that are looked at together.
_PAIRS = 1 << 20


def positional_spans(
    q_len: int,
    k_len: int,
    *,
    causal: bool,
    window: int | None,
    sinks: int,
    cu_q: Tensor | None,
    cu_k: Tensor | None,
    device: torch.device,
    ahead: int = 0,
) -> Tensor:
    """Returns the normal spans of the positional predicate, ``(S, q_len, 2)``.

    With aligned position ``p = i + offset`` (bottom-right alignment, inside the query's document if there are any) key
    ``j`` is allowed if ``j <= p + ahead`` (causal) and (``p - j < window`` or ``j`` is one of the first ``sinks``).

    Example:
        >>> positional_spans(
        ...     2, 4, causal=True, window=1, sinks=1, cu_q=None, cu_k=None, device=torch.device("cpu")
        ... ).tolist()
        [[[0, 1], [0, 1]], [[2, 3], [3, 4]]]
    """
    query = torch.arange(q_len, device=device)
    if cu_q is not None and cu_k is not None:
        starts_q, starts_k = cu_q.to(device, torch.int64), cu_k.to(device, torch.int64)
        # ``right``: a token on a border belongs to the document that starts there, also after empty ones.
        document = torch.searchsorted(starts_q, query, right=True) - 1
        first, last = starts_k[document], starts_k[document + 1]
        # Ends meet inside each document: what it has more of keys came before its queries, as in a cache.
        position = query - starts_q[document + 1] + last
    else:
        first, last = torch.zeros_like(query), torch.full_like(query, k_len)
        position = query + (k_len - q_len)
    stop = torch.minimum(last, position + 1 + ahead) if causal else last
    if window is None:
        return normalise(torch.stack([first, stop], dim=-1)[None])
    start = torch.maximum(first, position - window + 1)
    # Causality comes before sinks: an early query does not see those that are still to come.
    sink_stop = torch.minimum(first + sinks, stop)
    return normalise(torch.stack([torch.stack([first, sink_stop], dim=-1), torch.stack([start, stop], dim=-1)]))


def slice_spans(q_ranges: Tensor, k_ranges: Tensor, types: Tensor, q_len: int) -> Tensor:
    """Returns the normal spans of a union of typed rectangles, ``(S, q_len, 2)``.

    Types (LongCA-bench, arXiv 2510.17896): 0 full, 1 causal (aligned to the bottom right corner of the rectangle),
    2 inverse causal (aligned to the top left corner), 3 both.

    Args:
        q_ranges: half-open ``(n, 2)``.
        k_ranges: half-open ``(n, 2)``.
        types: ``(n,)``.
        q_len: number of queries.

    Example:
        >>> slice_spans(torch.tensor([[0, 2]]), torch.tensor([[0, 2]]), torch.tensor([1]), 3).tolist()
        [[[0, 1], [0, 2], [0, 0]]]
    """
    query = torch.arange(q_len, device=q_ranges.device)
    q_start, q_stop = q_ranges.long().unbind(-1)
    k_start, k_stop = k_ranges.long().unbind(-1)
    inside = (query >= q_start[:, None]) & (query < q_stop[:, None])
    is_causal, is_inverse = ((types == 1) | (types == 3))[:, None], ((types == 2) | (types == 3))[:, None]
    start = k_start[:, None] + torch.where(is_inverse, query - q_start[:, None], 0)
    stop = k_stop[:, None] - torch.where(is_causal, q_stop[:, None] - 1 - query, 0)
    start = torch.maximum(start, k_start[:, None])
    return normalise(torch.stack([torch.where(inside, start, 0), torch.where(inside, stop, 0)], dim=-1))


def normalise(spans: Tensor) -> Tensor:
    """Returns the normal form of ``(S, Tq, 2)`` spans: same keys, as few spans as possible.

    Example:
        >>> normalise(torch.tensor([[[4, 6]], [[0, 2]], [[2, 4]]])).tolist()
        [[[0, 6]]]
    """
    spans = spans.long()
    empty = spans[..., 1] <= spans[..., 0]
    # Empty spans sort behind all others.
    far = torch.iinfo(torch.int64).max
    order = torch.where(empty, torch.full_like(spans[..., 0], far), spans[..., 0]).argsort(dim=0, stable=True)
    spans = torch.where(empty[..., None], torch.zeros_like(spans), spans).gather(0, order[..., None].expand_as(spans))
    merged = list(spans.unbind(0))
    for s in range(1, len(merged)):
        # Every span that touches its predecessor absorbs it; the predecessor becomes empty.
        before, here = merged[s - 1], merged[s]
        filled = here[:, 1] > here[:, 0]
        # Neighbours without a gap count as touching, so that equal masks have equal spans.
        touches = filled & (before[:, 1] > before[:, 0]) & (here[:, 0] <= before[:, 1])
        joined = torch.stack([before[:, 0], torch.maximum(before[:, 1], here[:, 1])], dim=-1)
        merged[s] = torch.where(touches[:, None], joined, here)
        merged[s - 1] = torch.where(touches[:, None], torch.zeros_like(before), before)
    spans = torch.stack(merged)
    order = (spans[..., 1] <= spans[..., 0]).to(torch.int8).argsort(dim=0, stable=True)
    spans = spans.gather(0, order[..., None].expand_as(spans))
    used = int((spans[..., 1] > spans[..., 0]).sum(dim=0).max()) if spans.shape[1] else 0
    # One empty span is left where nothing is allowed: no caller has to think of S = 0.
    return spans[: max(used, 1)].contiguous()


def intersect(left: Tensor, right: Tensor) -> Tensor:
    """Returns the normal spans of the keys that two span tensors ``(S, Tq, 2)`` share.

    Example:
        >>> intersect(torch.tensor([[[0, 4]]]), torch.tensor([[[1, 2]], [[3, 9]]])).tolist()
        [[[1, 2]], [[3, 4]]]
    """
    start = torch.maximum(left[:, None, :, 0], right[None, :, :, 0])
    stop = torch.minimum(left[:, None, :, 1], right[None, :, :, 1])
    return normalise(torch.stack([start, stop], dim=-1).flatten(0, 1))


def allowed(spans: Tensor, keys: Tensor) -> Tensor:
    """Returns which keys the queries may attend.

    Args:
        spans: ``(S, ..., 2)``, the spans of some queries.
        keys: key positions that broadcast against ``(..., K)``.

    Returns:
        bool ``(..., K)``.

    Example:
        >>> allowed(torch.tensor([[[1, 3]]]), torch.arange(4)).tolist()
        [[False, True, True, False]]
    """
    keys = keys.expand(*spans.shape[1:-1], keys.shape[-1])
    result = torch.zeros(keys.shape, dtype=torch.bool, device=keys.device)
    for span in spans:
        result |= (keys >= span[..., :1]) & (keys < span[..., 1:])
    return result


def block_areas(spans: Tensor, index: Tensor, q_block: int, k_block: int, k_len: int) -> Tensor:
    """Returns how many (query, key) pairs the spans allow inside selected blocks.

    Args:
        spans: normal ``(S, Tq, 2)``.
        index: key-block ids ``(..., nq, kmax)``.
        q_block: queries per block.
        k_block: keys per block.
        k_len: number of keys; the last block may be short.

    Returns:
        int64 like ``index``. Time O(q_block) times the size of ``index``, in pieces of bounded memory.

    Example:
        >>> block_areas(torch.tensor([[[0, 1], [0, 2]]]), torch.tensor([[0]]), 2, 2, k_len=2).tolist()
        [[3]]
    """
    nq, width = index.shape[-2:]
    areas = torch.zeros(index.shape, dtype=torch.int64, device=index.device)
    rows = torch.nn.functional.pad(spans, (0, 0, 0, nq * q_block - spans.shape[1])).unflatten(1, (nq, q_block))
    step = max(1, _PAIRS // max(1, index[..., :1, :].numel() * q_block))
    for first in range(0, nq if width else 0, step):
        some = slice(first, first + step)
        start = index[..., some, :].long() * k_block
        stop = (start + k_block).clamp(max=k_len)
        for span in rows[:, some]:  # (n, q, 2)
            # Spans of a query are disjoint, so the overlaps add up without counting a pair twice.
            begin, end = span[:, None, :, 0], span[:, None, :, 1]
            overlap = torch.minimum(stop[..., None], end) - torch.maximum(start[..., None], begin)
            areas[..., some, :] += overlap.clamp(min=0).sum(dim=-1)
    return areas


def touched_blocks(spans: Tensor, q_block: int, k_block: int) -> tuple[Tensor, Tensor]:
    """Returns count ``(nq,)`` and ids ``(nq, m)`` of the key blocks between the ends of each query block's spans.

    A few of them may lie in gaps, none is missing. Time and memory O(Tq + nq m): a window of a long text costs what
    its band does.

    Args:
        spans: normal ``(S, Tq, 2)``.
        q_block: queries per block.
        k_block: keys per block.

    Example:
        >>> touched_blocks(torch.tensor([[[0, 1], [0, 2], [4, 9], [5, 6]]]), 2, 2)
        (tensor([1, 3], dtype=torch.int32), tensor([[0, 0, 0],
                [2, 3, 4]], dtype=torch.int32))
    """
    nq = -(-spans.shape[1] // q_block)
    rows = torch.nn.functional.pad(spans, (0, 0, 0, nq * q_block - spans.shape[1])).unflatten(1, (nq, q_block))
    start, stop = rows.unbind(-1)  # (S, nq, q)
    empty = stop <= start
    first = start.masked_fill(empty, torch.iinfo(torch.int64).max).amin(dim=-1) // k_block
    after = -(-stop.masked_fill(empty, 0).amax(dim=-1) // k_block)
    # Ranges of one query block may overlap; ids are made unique by sorting, repeated ones last.
    length = (after - first).clamp(min=0)
    steps = torch.arange(int(length.max()) if length.numel() else 0, device=spans.device)
    far = torch.iinfo(torch.int64).max
    ids = torch.where(steps < length[..., None], first[..., None] + steps, far).transpose(0, 1).flatten(1)
    ids = ids.sort(dim=-1).values
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[:, 1:] = ids[:, 1:] == ids[:, :-1]
    ids = ids.masked_fill(repeated, far).sort(dim=-1).values
    count = (ids < far).sum(dim=-1)
    widest = int(count.max()) if count.numel() else 0
    ids = ids[:, :widest].masked_fill(ids[:, :widest] == far, 0)
    return count.to(torch.int32), ids.to(torch.int32)
