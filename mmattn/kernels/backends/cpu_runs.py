"""Running shared masks on the CPU: rectangles of query tiles and contiguous runs of keys.

A run is a slice of k and v, so nothing is copied, and all heads go into one kernel call. Equal rectangles that follow
each other at a fixed step, such as the tiles of a sliding window, form a *band*: overlapping strided views turn them
into the batch of a single call.
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
from mmattn.kernels.spans import allowed

__all__ = ["Call", "Run", "RunPlan"]

# Bytes that the results of one kernel call on a band may take: fresh memory in large pieces costs page faults.
_BAND_BYTES = 16 << 20

Run = tuple[int, int]


@dataclass(frozen=True)
class Call:
    """Rectangles of queries and keys: tile ``t`` has queries ``q_start + t step ..`` and keys ``runs + t step``.

    ``first`` means that no earlier call touches these queries. Calls of one ``pattern`` have the same mask.
    """

    q_start: int
    q_stop: int
    runs: tuple[Run, ...]
    causal: bool = False
    masked: bool = False
    first: bool = True
    pattern: int = -1
    count: int = 1

    @property
    def step(self) -> int:
        """Queries per tile, and the distance from tile to tile."""
        return self.q_stop - self.q_start

    def piece(self, start: int, stop: int) -> "Call":
        """Returns the band of tiles ``start .. stop``."""
        shift = start * self.step
        runs = tuple((first + shift, last + shift) for first, last in self.runs)
        rows = (self.q_start + shift, self.q_stop + shift)
        return replace(self, q_start=rows[0], q_stop=rows[1], runs=runs, count=stop - start)

    def pieces(self, tile_bytes: int) -> list["Call"]:
        """Returns the band cut into bands whose results stay small, at ``tile_bytes`` per tile."""
        limit = max(1, _BAND_BYTES // max(1, tile_bytes))
        return [self.piece(start, min(start + limit, self.count)) for start in range(0, self.count, limit)]


@dataclass(frozen=True)
class RunPlan:
    """A list of calls, with the spans and the key padding that their masks come from."""

    calls: tuple[Call, ...]
    spans: Tensor | None = None
    k_valid: Tensor | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns ``out`` and ``lse`` of q, k, v ``(B, H|Hkv, T, D)``."""
        if self._is_one_rectangle(q, k):
            return flash_forward(q, k, v, scale=scale, causal=self.calls[0].causal)
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        lse = torch.full(q.shape[:3], -torch.inf, dtype=accumulate_dtype(q.dtype), device="cpu")
        column = lse[..., None]
        for band, mask in self._masks(q.dtype):
            pieces = band.pieces(q.shape[1] * band.step * q.shape[3] * q.element_size())
            for call, item in ((call, item) for call in pieces for item in _items(band, q.shape[0])):
                partial = flash_forward(
                    _queries(q[item], call), _keys(k[item], call), _keys(v[item], call),
                    scale=scale, causal=call.causal, mask=mask,
                )  # fmt: skip
                rows_out, rows_lse = _queries(out[item], call), _queries(column[item], call)[..., 0]
                if not call.first:
                    partial = merge_into(rows_out, rows_lse, *partial)
                rows_out.copy_(partial[0])
                rows_lse.copy_(partial[1])
        return out, lse

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients ``(B, H, T, D)`` of q, k, v, summed in float32 or better."""
        if self._is_one_rectangle(q, k):
            return flash_backward(grad_out, q, k, v, out, lse, scale=scale, causal=self.calls[0].causal)
        sums = [torch.zeros(x.shape, dtype=accumulate_dtype(x.dtype), device="cpu") for x in (q, k, v)]
        for band, mask in self._masks(q.dtype):
            width = sum(stop - start for start, stop in band.runs)
            tile_bytes = 2 * width * k.shape[1] * k.shape[3] * sums[1].element_size()
            for call, item in ((call, item) for call in band.pieces(tile_bytes) for item in _items(band, q.shape[0])):
                upstream, query, merged, row_lse = (_queries(x[item], call) for x in (grad_out, q, out, lse[..., None]))
                grad_q, *grad_kv = flash_backward(
                    upstream, query, _keys(k[item], call), _keys(v[item], call), merged, row_lse[..., 0],
                    scale=scale, causal=call.causal, mask=mask,
                )  # fmt: skip
                _queries(sums[0][item], call).add_(grad_q)
                for total, grad in zip(sums[1:], grad_kv, strict=True):
                    _add_keys(total[item], call, grad)
        return sums[0], sums[1], sums[2]

    def _is_one_rectangle(self, q: Tensor, k: Tensor) -> bool:
        """Whether the plan is one unmasked call of everything, whose results need no copy."""
        if len(self.calls) != 1 or self.k_valid is not None:
            return False
        call = self.calls[0]
        whole = (call.q_start, call.q_stop, call.runs) == (0, q.shape[2], ((0, k.shape[2]),))
        return whole and call.count == 1 and not call.masked

    def _masks(self, dtype: torch.dtype) -> Iterator[tuple[Call, AdditiveMask | None]]:
        """Yields every call with its mask; consecutive calls of one pattern share the tensor."""
        pattern = -1
        shared: AdditiveMask | None = None
        for call in self.calls:
            if not call.masked and self.k_valid is None:
                yield call, None
                continue
            if shared is None or call.pattern < 0 or call.pattern != pattern:
                pattern, shared = call.pattern, self._additive(call, dtype)
            yield call, shared

    def _additive(self, call: Call, dtype: torch.dtype) -> AdditiveMask:
        mask = self._mask(call)
        if not call.causal:
            return additive(mask, dtype)
        # The kernel hides later keys itself, so this mask is the padding alone (B, 1, 1, side): a row is empty if no
        # key up to its own is valid.
        return additive(mask, dtype)._replace(empty=mask[..., 0, :].cummax(dim=-1).values.logical_not())

    def _mask(self, call: Call) -> Tensor:
        keys = torch.cat([torch.arange(start, stop, device="cpu") for start, stop in call.runs])
        if self.spans is None or not call.masked:
            mask = torch.ones(1, len(keys), dtype=torch.bool, device="cpu")
        else:
            mask = allowed(self.spans[:, call.q_start : call.q_stop], keys)
        return mask if self.k_valid is None else mask & self.k_valid[:, None, None, keys]


def _items(call: Call, batch: int) -> list[slice]:
    """Returns the batch slices of a band: a single tile takes the whole batch, more tiles one item at a time."""
    return [slice(None)] if call.count == 1 else [slice(b, b + 1) for b in range(batch)]


def _queries(x: Tensor, call: Call) -> Tensor:
    """Returns the query tiles of a call as a view ``(n, H, tile, D)``."""
    return _tiles(x, call.q_start, call.q_stop, call)


def _keys(x: Tensor, call: Call) -> Tensor:
    """Returns the keys of a call ``(n, H, tk, D)``: a view if there is one run."""
    parts = [_tiles(x, start, stop, call) for start, stop in call.runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _tiles(x: Tensor, start: int, stop: int, call: Call) -> Tensor:
    """Returns ``x[:, :, start + t step : stop + t step]`` for all tiles t; the views of a band may overlap."""
    if call.count == 1:
        return x[:, :, start:stop]
    _, heads, tokens, channels = x.stride()
    return x.as_strided(
        (call.count, x.shape[1], stop - start, x.shape[3]),
        (call.step * tokens, heads, tokens, channels),
        x.storage_offset() + start * tokens,
    )


def _add_keys(total: Tensor, call: Call, grad: Tensor) -> None:
    """Adds the key gradients of a call ``(n, H, tk, D)`` in place, in strips whose tiles do not overlap."""
    position = 0
    for first, last in call.runs:
        # Tiles of a band may share keys; adding through overlapping views would lose all but one of the sums.
        strip = call.step if call.count > 1 else last - first
        for start in range(first, last, strip):
            width = min(strip, last - start)
            _tiles(total, start, start + width, call).add_(grad[:, :, position : position + width])
            position += width
