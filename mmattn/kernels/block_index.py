"""``BlockIndex``: an attention mask as data, a list of key blocks per query block plus a predicate inside them.

The layout is that of block-sparse kernels (FlexAttention's ``BlockMask``, FlashAttention's index lists): ``count`` and
``index`` name the selected key blocks of every query block. What happens inside a block is described by plain fields
(causal, window, sinks, documents, key padding, key spans), never by a callable, so that an index can be saved, moved,
sliced, compared, cached across layers and drawn.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from mmattn.kernels import block_algebra, spans
from mmattn.kernels.block_fields import TransposedBlocks
from mmattn.kernels.block_patterns import BlockPatterns

__all__ = ["BlockIndex"]


if TYPE_CHECKING:

    class _CausalField:
        """On an instance whether the predicate is causal; on the class the constructor of causal masks."""

        @overload
        def __get__(self, instance: None, owner: type) -> Callable[..., "BlockIndex"]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> bool: ...
        def __get__(self, instance: object | None, owner: type) -> Any: ...
        def __set__(self, instance: object, value: bool) -> None: ...


class _DenseMember:
    """``BlockIndex.dense(q_len, ...)`` builds a mask of all blocks, ``index.dense()`` expands an index to tokens."""

    @overload
    def __get__(self, instance: None, owner: type["BlockIndex"]) -> Callable[..., "BlockIndex"]: ...
    @overload
    def __get__(self, instance: "BlockIndex", owner: type["BlockIndex"]) -> Callable[[], Tensor]: ...
    def __get__(self, instance: "BlockIndex | None", owner: type["BlockIndex"]) -> Any:
        return owner.all_blocks if instance is None else instance.tokens


class BlockIndex(BlockPatterns):
    """A block-sparse attention mask.

    Query ``i`` may attend key ``j`` if all of these hold:

    - key block ``j // k_block`` is listed for query block ``i // q_block``;
    - ``j <= p`` if ``causal``, where ``p = i + k_len - q_len`` (bottom-right alignment);
    - ``p - j < window`` or ``j < sinks`` if there is a window;
    - ``i`` and ``j`` are in the same document if ``cu_q`` and ``cu_k`` are given; positions, alignment and sinks then
      count inside the document;
    - ``j`` lies in one of the query's key ``spans`` if they are given;
    - ``k_valid[b, j]`` if key padding is given.

    Ids are sorted and deduplicated at construction: an index is a set, no key is counted twice.

    Args:
        count: int32 ``(B|1, H|1, nq)``, number of selected key blocks per query block.
        index: int32 ``(B|1, H|1, nq, kmax)``, ids of the selected key blocks; entries after ``count`` are ignored.
        q_block: queries per block, any positive integer (GPU kernels need multiples of 16).
        k_block: keys per block.
        q_len: number of queries; the last block may be short, ``nq = ceil(q_len / q_block)``.
        k_len: number of keys.
        causal: see above.
        window: see above; None is no window.
        sinks: number of first keys that a window never hides.
        cu_q: int32 ``(n + 1,)`` cumulative document lengths of the queries, ``0 .. q_len``.
        cu_k: the same for the keys.
        k_valid: bool ``(B, k_len)``, True where a key is no padding.
        spans: int64 ``(S, q_len, 2)``, half-open key intervals per query. They express what positions can not:
            scales, rectangles, unions of different predicates.

    Raises:
        ValueError: shapes, dtypes or ids do not fit; the message names the field.

    Example:
        >>> index = BlockIndex.sliding_window(2, 6, q_block=2, k_block=2)
        >>> index.count.flatten().tolist(), index.index[0, 0, 2].tolist()
        ([1, 2, 2], [1, 2])
        >>> index
        BlockIndex(6 x 6 tokens, blocks of 2 x 2, batch 1, heads 1, density 0.556, causal, window 2, sinks 0)
        >>> index.dense()[0, 0].int().sum(-1).tolist()
        [1, 2, 2, 2, 2, 2]
    """

    if TYPE_CHECKING:
        causal: _CausalField  # type: ignore[assignment]

    dense = _DenseMember()
    __hash__ = None  # type: ignore[assignment]

    def transpose(self) -> TransposedBlocks:
        """Returns the query blocks that select each key block: the order in which k and v gradients are summed."""
        return self.transposed

    def tokens(self) -> Tensor:
        """Returns the whole mask as bool ``(B|1, H|1, q_len, k_len)``; O(q_len * k_len), for tests and small inputs."""
        blocks = self.mask().repeat_interleave(self.q_block, dim=-2)[..., : self.q_len, :]
        blocks = blocks.repeat_interleave(self.k_block, dim=-1)[..., : self.k_len]
        result = blocks & spans.allowed(self.row_spans, torch.arange(self.k_len, device=self.device))
        return result if self.k_valid is None else result & self.k_valid[:, None, None, :]

    def density(self) -> float:
        """Returns the fraction of all (query block, key block) pairs that is selected, over batch and heads."""
        pairs = self.count.numel() * self.num_k_blocks
        return float(self.count.sum()) / pairs if pairs else 0.0

    def to(self, device: torch.device | str) -> "BlockIndex":
        """Returns the index with its tensors on another device."""
        values = self.state_dict().items()
        moved: dict[str, Any] = {name: value.to(device) for name, value in values if isinstance(value, Tensor)}
        return replace(self, **moved)

    def state_dict(self) -> dict[str, Any]:
        """Returns the fields that are set, by name: tensors and plain numbers, ready to be saved."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns the fields that are set as a dictionary of tensors, for example for a safetensors file."""
        return {
            name: value.contiguous() if isinstance(value, Tensor) else torch.tensor(int(value))
            for name, value in self.state_dict().items()
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "BlockIndex":
        """Returns the index that ``to_tensors`` described."""
        numbers = ("q_block", "k_block", "q_len", "k_len", "window", "sinks")
        values: dict[str, Any] = dict(tensors)
        values.update({name: int(tensors[name]) for name in numbers if name in tensors})
        return cls(**{**values, "causal": bool(tensors["causal"])})

    def __or__(self, other: "BlockIndex") -> "BlockIndex":
        """Returns the index that allows what either allows."""
        return block_algebra.union(self, other)

    def __and__(self, other: "BlockIndex") -> "BlockIndex":
        """Returns the index that allows what both allow."""
        return block_algebra.intersection(self, other)

    def __getitem__(self, key: int | slice | tuple[int | slice, int | slice]) -> "BlockIndex":
        """Returns the index of some batch items, or of some batch items and heads; both dimensions stay."""
        batch, head = key if isinstance(key, tuple) else (key, slice(None))
        return block_algebra.take(self, batch, head)

    def _is_set(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False

    def __repr__(self) -> str:
        """One line: sizes, density and the predicate."""
        batch, heads = self.index.shape[:2]
        predicate = [name for name in ("causal", "cu_q", "k_valid", "spans") if self._is_set(name)]
        return (
            f"BlockIndex({self.q_len} x {self.k_len} tokens, blocks of {self.q_block} x {self.k_block}, "
            f"batch {batch}, heads {heads}, density {self.density():.3f}"
            + "".join(f", {name}" for name in predicate)
            + (f", window {self.window}, sinks {self.sinks})" if self.window is not None else ")")
        )

    def __eq__(self, other: object) -> bool:
        """Same fields with the same values; two masks with the same tokens may differ in their fields."""
        return isinstance(other, BlockIndex) and block_algebra.same_fields(self.state_dict(), other.state_dict())
