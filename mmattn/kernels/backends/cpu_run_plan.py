"""Planning shared masks for the CPU: which rectangles of queries and keys, and which of them need a mask."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mmattn.kernels.backends.cpu_runs import Call, Run, RunPlan
from mmattn.kernels.block_index import BlockIndex

__all__ = ["dense_plan", "run_plan"]

# Full blocks leave the masked call if they are this many times as many as partial ones: below, one call is faster.
_SPLIT_RATIO = 3
# Queries per masked call; the kernel works in rows of 32 up to 192 queries, so smaller tiles cost nothing.
_MASKED_TILE = 64
# Up to this many runs are called one by one and merged; more are copied side by side.
_SEPARATE_RUNS = 2


def dense_plan(q_len: int, k_len: int, causal: bool) -> RunPlan:
    """Returns the plan of dense or bottom-right causal attention."""
    if not q_len or not k_len:
        return RunPlan(())
    if not causal or q_len == 1:
        return RunPlan((Call(0, q_len, ((0, k_len),)),))
    # The square at the bottom right is what the kernel calls causal; earlier keys are visible to all queries.
    side = min(q_len, k_len)
    square = Call(q_len - side, q_len, ((k_len - side, k_len),), causal=True)
    if k_len == side:
        return RunPlan((square,))
    return RunPlan((square, replace(square, runs=((0, k_len - side),), causal=False, first=False)))


def run_plan(blocks: BlockIndex) -> RunPlan:
    """Returns the plan of an index that is shared by batch and heads."""
    shared = replace(blocks, k_valid=None)
    if _is_plainly_causal(shared):
        return replace(dense_plan(blocks.q_len, blocks.k_len, True), k_valid=blocks.k_valid)
    part_count, part, full_count, full = (tensor[0, 0].tolist() for tensor in shared.split)
    calls: list[list[Call]] = [[] for _ in range(_SEPARATE_RUNS + 2)]  # by kind, so that equal tiles are neighbours
    patterns: dict[object, int] = {}
    for row in range(blocks.num_q_blocks):
        q_start, q_stop = row * blocks.q_block, min((row + 1) * blocks.q_block, blocks.q_len)
        partial_ids, full_ids = part[row][: part_count[row]], full[row][: full_count[row]]
        if len(full_ids) > _SPLIT_RATIO * len(partial_ids):
            calls[0].append(Call(q_start, q_stop, _runs(full_ids, blocks)))
            full_ids = []
        if partial_ids:
            runs = _runs(sorted(partial_ids + full_ids), blocks)
            for kind, call in _masked_calls(q_start, q_stop, runs, blocks.row_spans, patterns):
                calls[kind].append(call)
    # With padding a mask depends on where its keys are, so no two calls share one.
    padded = blocks.k_valid is not None
    merged = [call for kind in calls for call in _join(kind, bands=not padded)]
    if padded:
        merged = [replace(call, pattern=-1) for call in merged]
    return RunPlan(tuple(_mark_first(merged, blocks.q_len)), blocks.row_spans, blocks.k_valid)


def _is_plainly_causal(blocks: BlockIndex) -> bool:
    """Whether the index is nothing but causal: a predicate without further fields and every visible block."""
    fields = (blocks.window, blocks.cu_q, blocks.spans)
    if not blocks.causal or any(field is not None for field in fields) or blocks.q_len == 0:
        return False
    visible = BlockIndex.causal(
        blocks.q_len, blocks.k_len, q_block=blocks.q_block, k_block=blocks.k_block, device=blocks.device
    )
    return bool((blocks.mask() | ~visible.mask()).all())


def _runs(ids: list[int], blocks: BlockIndex) -> tuple[Run, ...]:
    """Returns the contiguous key ranges of ascending block ids."""
    runs: list[list[int]] = []
    for block in ids:
        start, stop = block * blocks.k_block, min((block + 1) * blocks.k_block, blocks.k_len)
        if runs and runs[-1][1] == start:
            runs[-1][1] = stop
        else:
            runs.append([start, stop])
    return tuple((start, stop) for start, stop in runs)


def _masked_calls(
    q_start: int, q_stop: int, runs: tuple[Run, ...], spans: Tensor, patterns: dict[object, int]
) -> Iterator[tuple[int, Call]]:
    """Yields (kind, call) for one tile, cut into smaller tiles that see fewer superfluous keys."""
    for start in range(q_start, q_stop, _MASKED_TILE):
        stop = min(start + _MASKED_TILE, q_stop)
        tile = spans[:, start:stop]
        trimmed = tuple(run for run in (_trim(run, tile) for run in runs) if run is not None)
        parts = [(run,) for run in trimmed] if len(trimmed) <= _SEPARATE_RUNS else [trimmed]
        for number, part in enumerate(parts):
            kind = number + 1 if len(parts[0]) == 1 else _SEPARATE_RUNS + 1
            yield kind, _tile_call(start, stop, part, tile, patterns)


def _trim(run: Run, tile: Tensor) -> Run | None:
    """Returns the part of the run between the first and the last key that any query of the tile sees."""
    first, last = tile[..., 0].clamp(min=run[0]), tile[..., 1].clamp(max=run[1])
    seen = last > first
    return (int(first[seen].min()), int(last[seen].max())) if bool(seen.any()) else None


def _tile_call(start: int, stop: int, runs: tuple[Run, ...], tile: Tensor, patterns: dict[object, int]) -> Call:
    """Returns the call of one tile, with a mask if it needs one; equal masks get equal pattern numbers."""
    clipped = [tile.clamp(first, last) for first, last in runs]
    # Spans of a query never touch, so a run that is visible as a whole lies in one of them.
    whole = [(x[..., 0] == first) & (x[..., 1] == last) for x, (first, last) in zip(clipped, runs, strict=True)]
    if all(bool(inside.any(dim=0).all()) for inside in whole):
        return Call(start, stop, runs)
    relative = b"".join((x - first).numpy().tobytes() for x, (first, _) in zip(clipped, runs, strict=True))
    key = (relative, stop - start, tuple(last - first for first, last in runs))
    return Call(start, stop, runs, masked=True, pattern=patterns.setdefault(key, len(patterns)))


def _join(calls: list[Call], *, bands: bool) -> list[Call]:
    """Returns the calls with neighbours joined: unmasked ones on the same keys, and equal ones at a fixed step."""
    joined: list[Call] = []
    for call in calls:
        last = joined[-1] if joined else None
        if last is None or last.masked != call.masked or last.pattern != call.pattern:
            joined.append(call)
        elif not call.masked and last.count == 1 and last.runs == call.runs and last.q_stop == call.q_start:
            joined[-1] = replace(last, q_stop=call.q_stop)
        elif bands and last.piece(last.count, last.count + 1) == call:
            joined[-1] = replace(last, count=last.count + 1)
        else:
            joined.append(call)
    return joined


def _mark_first(calls: list[Call], q_len: int) -> Iterator[Call]:
    """Yields the calls, ``first`` where no earlier call touches their queries."""
    touched = torch.zeros(q_len, dtype=torch.bool, device="cpu")
    for call in calls:
        rows = touched[call.q_start : call.q_start + call.count * call.step]
        yield replace(call, first=not bool(rows.any()))
        rows.fill_(True)
