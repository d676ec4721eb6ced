"""Memory as a gate (MAG) and memory as a layer (MAL): the memory beside attention, or before it.

Titans (arXiv 2501.00663), sections 4.2 and 4.3. No reference code of these two variants was published with the paper;
where it is silent (what normalises the branches, how the gate saturates) the choice is named below. Persistent tokens
are what they are in ``MemoryAsContext`` for the attention, learned keys and values that every query sees; the memory
reads as many learned tokens before the first one of a stream.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmattn.attention.titans.memory import NeuralMemory, NeuralMemoryState
from mmattn.attention.titans.options import MemoryOptions
from mmattn.attention.titans.segmented import SegmentedAttention, WindowCache

__all__ = ["BranchState", "MemoryAsGate", "MemoryAsLayer"]


class BranchState(NamedTuple):
    """The memory's state and the attention's cache."""

    memory: NeuralMemoryState
    cache: WindowCache


class _Branches(nn.Module):
    """A neural memory over persistent tokens and input, and a sliding-window attention."""

    def __init__(
        self,
        dim: int,
        window: int,
        *,
        dim_head: int = 64,
        heads: int = 8,
        num_persist_mem_tokens: int = 0,
        memory: MemoryOptions | None = None,
    ) -> None:
        super().__init__()
        self.persistent_tokens = nn.Parameter(torch.randn(num_persist_mem_tokens, dim) * 0.02)
        self.memory = NeuralMemory(dim, memory)
        self.attention = SegmentedAttention(
            dim, window, dim_head=dim_head, heads=heads, num_persist_mem_tokens=num_persist_mem_tokens, sliding=True
        )

    def _read(self, x: Tensor, state: NeuralMemoryState | None) -> tuple[Tensor, NeuralMemoryState]:
        """Returns what the tokens read; a new stream writes the persistent tokens first."""
        if state is None:
            x = torch.cat([self.persistent_tokens.expand(x.shape[0], -1, -1), x], dim=1)
            read, state = self.memory(x)
            return read[:, self.persistent_tokens.shape[0] :], state.compact()
        read, state = self.memory(x, state)
        return read, state.compact()


class MemoryAsGate(_Branches):
    """``y = attention(x)``, ``o = norm(y) * sigmoid(norm(M(x)))``: short-term memory gated by the long-term one.

    Both branches have a norm with learned scales, as the paper says; RMS norm and the sigmoid are our choice. Returns
    the mixer's output without a residual. Time is that of the memory, ``O(T D^2)`` for its width D, and of the
    attention, ``O(T window dim)``.

    Args:
        dim: width of the inputs.
        window: tokens that a query sees before its own.
        dim_head: width of an attention head.
        heads: attention heads.
        num_persist_mem_tokens: P, persistent tokens.
        memory: options of the memory.

    Example:
        >>> layer = MemoryAsGate(8, window=4, dim_head=4, heads=2, num_persist_mem_tokens=1)
        >>> layer(torch.randn(2, 6, 8))[0].shape
        torch.Size([2, 6, 8])
    """

    def __init__(
        self,
        dim: int,
        window: int,
        *,
        dim_head: int = 64,
        heads: int = 8,
        num_persist_mem_tokens: int = 0,
        memory: MemoryOptions | None = None,
    ) -> None:
        super().__init__(
            dim, window, dim_head=dim_head, heads=heads, num_persist_mem_tokens=num_persist_mem_tokens, memory=memory
        )
        self.attention_norm, self.memory_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)

    def forward(self, x: Tensor, state: BranchState | None = None) -> tuple[Tensor, BranchState]:
        """Returns the output ``(B, T, dim)`` and the state; ``state`` None starts a stream."""
        read, memory = self._read(x, None if state is None else state.memory)
        seen, _, cache = self.attention(x, None if state is None else state.cache)
        return self.attention_norm(seen) * self.memory_norm(read).sigmoid(), BranchState(memory, cache)


class MemoryAsLayer(_Branches):
    """``o = attention(M(x))``: what the memory answers is attended to, in windows.

    Returns the mixer's output without a residual. Arguments and costs are those of ``MemoryAsGate``.

    Example:
        >>> layer = MemoryAsLayer(8, window=4, dim_head=4, heads=2)
        >>> layer(torch.randn(2, 6, 8))[0].shape
        torch.Size([2, 6, 8])
    """

    def forward(self, x: Tensor, state: BranchState | None = None) -> tuple[Tensor, BranchState]:
        """Returns the output ``(B, T, dim)`` and the state; ``state`` None starts a stream."""
        read, memory = self._read(x, None if state is None else state.memory)
        out, _, cache = self.attention(read, None if state is None else state.cache)
        return out, BranchState(memory, cache)
