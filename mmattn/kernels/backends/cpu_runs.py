"""The plan for masks that all heads share: query tiles against contiguous runs of keys.

A run is a slice of k and v, so nothing is copied, all batch items and heads go into one kernel call, and only tiles
that need a mask get one (tile x run, shared by the heads, and by all tiles whose mask looks the same).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmattn.kernels.backends.flash import (
    AdditiveMask,
    accumulate_dtype,
    additive,
    flash_backward,
    flash_forward,
    merge_into,
)
from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.spans import allowed

__all__ = ["RunPlan", "dense_plan", "run_plan"]

# Full blocks leave the masked call if they are this many times as many as partial ones: below, one call is faster.
_SPLIT_RATIO = 3
# Queries per masked call; the kernel works in rows of 32 up to 192 queries, so smaller tiles cost nothing.
_MASKED_TILE = 64

Run = tuple[int, int]


@dataclass(frozen=True)
class _Call:
    """One rectangle: queries ``q_start .. q_stop`` against the keys of some runs."""

    q_start: int
    q_stop: int
    runs: tuple[Run, ...]
    causal: bool = False
    masked: bool = False
    first: bool = True
    pattern: int = -1


@dataclass(frozen=True)
class RunPlan:
    """A list of calls, with the spans and the key padding their masks come from."""

    calls: tuple[_Call, ...]
    spans: Tensor | None = None
    k_valid: Tensor | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns ``out`` and ``lse`` of q, k, v ``(B, H|Hkv, T, D)``."""
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        lse = torch.full(q.shape[:3], -torch.inf, dtype=accumulate_dtype(q.dtype))
        for call, mask in self._masks(q.dtype):
            rows = slice(call.q_start, call.q_stop)
            partial = flash_forward(
                q[:, :, rows], _take(k, call.runs), _take(v, call.runs), scale=scale, causal=call.causal, mask=mask
            )
            if not call.first:
                partial = merge_into(out[:, :, rows], lse[:, :, rows], *partial)
            out[:, :, rows], lse[:, :, rows] = partial
        return out, lse

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of q, k, v, summed in float32 or better."""
        grads = tuple(torch.zeros(x.shape, dtype=accumulate_dtype(x.dtype)) for x in (q, k, v))
        for call, mask in self._masks(q.dtype):
            rows = slice(call.q_start, call.q_stop)
            grad_q, grad_k, grad_v = flash_backward(
                grad_out[:, :, rows], q[:, :, rows], _take(k, call.runs), _take(v, call.runs),
                out[:, :, rows], lse[:, :, rows], scale=scale, causal=call.causal, mask=mask,
            )  # fmt: skip
            grads[0][:, :, rows] += grad_q
            _add(grads[1], call.runs, grad_k)
            _add(grads[2], call.runs, grad_v)
        return grads[0], grads[1], grads[2]

    def _masks(self, dtype: torch.dtype) -> Iterator[tuple[_Call, AdditiveMask | None]]:
        """Yields every call with its mask; consecutive calls of one pattern share the tensor."""
        pattern = -1
        shared: AdditiveMask | None = None
        for call in self.calls:
            if not call.masked and self.k_valid is None:
                yield call, None
                continue
            if shared is None or call.pattern < 0 or call.pattern != pattern:
                pattern, shared = call.pattern, additive(self._mask(call), dtype)
            yield call, shared

    def _mask(self, call: _Call) -> Tensor:
        keys = torch.cat([torch.arange(start, stop) for start, stop in call.runs])
        if self.spans is None or not call.masked:
            mask = torch.ones(1, len(keys), dtype=torch.bool)
        else:
            mask = allowed(self.spans[:, call.q_start : call.q_stop], keys)
        return mask if self.k_valid is None else mask & self.k_valid[:, None, None, keys]


def dense_plan(q_len: int, k_len: int, causal: bool) -> RunPlan:
    """Returns the plan of dense or bottom-right causal attention."""
    if not q_len or not k_len:
        return RunPlan(())
    if not causal or q_len == 1:
        return RunPlan((_Call(0, q_len, ((0, k_len),)),))
    # The square at the bottom right is what the kernel calls causal; earlier keys are visible to all queries.
    side = min(q_len, k_len)
    square = _Call(q_len - side, q_len, ((k_len - side, k_len),), causal=True)
    if k_len == side:
        return RunPlan((square,))
    return RunPlan((square, replace(square, runs=((0, k_len - side),), causal=False, first=False)))


def run_plan(blocks: BlockIndex) -> RunPlan:
    """Returns the plan of an index that is shared by batch and heads."""
    shared = replace(blocks, k_valid=None)
    if _is_plainly_causal(shared):
        return replace(dense_plan(blocks.q_len, blocks.k_len, True), k_valid=blocks.k_valid)
    part_count, part, full_count, full = (tensor[0, 0].tolist() for tensor in shared.split)
    spans = shared.row_spans
    calls: list[_Call] = []
    patterns: dict[object, int] = {}
    for row in range(blocks.num_q_blocks):
        q_start, q_stop = row * blocks.q_block, min((row + 1) * blocks.q_block, blocks.q_len)
        partial_ids, full_ids = part[row][: part_count[row]], full[row][: full_count[row]]
        if len(full_ids) > _SPLIT_RATIO * len(partial_ids):
            calls.append(_Call(q_start, q_stop, _runs(full_ids, blocks)))
            full_ids = []
        first = not (calls and calls[-1].q_start == q_start)
        if partial_ids:
            runs = _runs(sorted(partial_ids + full_ids), blocks)
            calls += _masked_calls(q_start, q_stop, runs, spans, first, patterns)
        elif full_ids:
            calls.append(_Call(q_start, q_stop, _runs(full_ids, blocks)))
    # With padding every mask depends on the key positions themselves.
    if blocks.k_valid is not None:
        calls = [replace(call, pattern=-1) for call in calls]
    return RunPlan(tuple(_join_tiles(calls)), spans, blocks.k_valid)


def _masked_calls(
    q_start: int, q_stop: int, runs: tuple[Run, ...], spans: Tensor, first: bool, patterns: dict[object, int]
) -> Iterator[_Call]:
    """Yields the calls of one tile with a mask, cut into smaller tiles that see fewer superfluous keys."""
    for start in range(q_start, q_stop, _MASKED_TILE):
        stop = min(start + _MASKED_TILE, q_stop)
        tile = spans[:, start:stop]
        trimmed = _trim(runs, tile)
        if trimmed:
            origin = trimmed[0][0]
            relative = (tile - origin).clamp(min=0).numpy().tobytes()
            key = (relative, stop - start, tuple((a - origin, b - origin) for a, b in trimmed))
            pattern = patterns.setdefault(key, len(patterns))
            yield _Call(start, stop, trimmed, masked=True, first=first, pattern=pattern)


def _is_plainly_causal(blocks: BlockIndex) -> bool:
    """Whether the index is nothing but causal: a predicate without further fields and every visible block."""
    fields = (blocks.window, blocks.cu_q, blocks.spans)
    if not blocks.causal or any(field is not None for field in fields) or blocks.q_len == 0:
        return False
    visible = BlockIndex.causal(blocks.q_len, blocks.k_len, q_block=blocks.q_block, k_block=blocks.k_block)
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


def _trim(runs: tuple[Run, ...], spans: Tensor) -> tuple[Run, ...]:
    """Returns the runs without the keys before the first and after the last one that any query of the tile sees."""
    filled = spans[..., 1] > spans[..., 0]
    if not bool(filled.any()):
        return ()
    lowest, highest = int(spans[..., 0][filled].min()), int(spans[..., 1][filled].max())
    clipped = ((max(start, lowest), min(stop, highest)) for start, stop in runs)
    return tuple((start, stop) for start, stop in clipped if start < stop)


def _join_tiles(calls: list[_Call]) -> list[_Call]:
    """Returns the calls with neighbouring unmasked tiles of the same keys joined into one."""
    # A tile with a second call of its own keeps its boundaries.
    alone = {call.q_start for call in calls if not call.first}
    joined: list[_Call] = []
    for call in calls:
        last = joined[-1] if joined else None
        if (
            last is not None
            and not (last.masked or call.masked)
            and last.runs == call.runs
            and last.q_stop == call.q_start
            and not alone & {last.q_start, call.q_start}
        ):
            joined[-1] = replace(last, q_stop=call.q_stop)
        else:
            joined.append(call)
    return joined


def _take(x: Tensor, runs: tuple[Run, ...]) -> Tensor:
    """Returns the keys of the runs: a view if there is one run."""
    parts = [x[:, :, start:stop] for start, stop in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _add(total: Tensor, runs: tuple[Run, ...], grad: Tensor) -> None:
    position = 0
    for start, stop in runs:
        total[:, :, start:stop] += grad[:, :, position : position + stop - start]
        position += stop - start
