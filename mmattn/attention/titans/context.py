"""Memory as context (MAC): a language model whose segments attend to themselves and to long-term memory tokens.

Titans (arXiv 2501.00663), section 4.1, in the form of titans-pytorch 0.5 with one residual stream. Letters: B batch,
T tokens, L tokens with memory tokens between, S tokens per segment.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.titans.memory import NeuralMemory, NeuralMemoryState
from mmattn.attention.titans.options import MemoryOptions
from mmattn.attention.titans.segmented import SegmentedAttention, WindowCache
from mmattn.kernels.memory import Memory

__all__ = ["MacOptions", "MacState", "MemoryAsContext"]

# The published names of a layer's three parts.
_MEMORY, _ATTENTION, _FEED_FORWARD = "4", "5", "6"


@dataclass(frozen=True)
class MacOptions:
    """Shape of a ``MemoryAsContext`` model, under the names of titans-pytorch.

    Attributes:
        num_tokens: vocabulary.
        dim: model width.
        depth: layers.
        segment_len: S, tokens after which long-term memory tokens are inserted.
        num_longterm_mem_tokens: learned tokens after every full segment, part of its attention window.
        num_persist_mem_tokens: learned keys and values per layer that all tokens see.
        dim_head: width of an attention head.
        heads: attention heads.
        ff_mult: hidden width of the feed-forward part over ``dim``, before the factor 2/3 of gating.
        neural_memory_layers: layers with a neural memory, counted from 1; None for all.
        neural_memory_segment_len: tokens per memory update, default the window ``S + num_longterm_mem_tokens``.
        neural_memory_batch_size: the memory's ``batch_size``.
        neural_mem_gate_attn_output: what is read gates the attention's output instead of being added.
        neural_mem_weight_residual: each memory accepts the weights of the one before.
        sliding_window_attn: overlapping windows.
        memory: further options of the memories.

    Raises:
        ValueError: a segment has no tokens, or a layer with a memory is none of the model's.
    """

    num_tokens: int
    dim: int
    depth: int
    segment_len: int
    num_longterm_mem_tokens: int = 0
    num_persist_mem_tokens: int = 0
    dim_head: int = 64
    heads: int = 8
    ff_mult: float = 4.0
    neural_memory_layers: tuple[int, ...] | None = None
    neural_memory_segment_len: int | None = None
    neural_memory_batch_size: int | None = None
    neural_mem_gate_attn_output: bool = False
    neural_mem_weight_residual: bool = False
    sliding_window_attn: bool = False
    memory: MemoryOptions = field(default_factory=MemoryOptions)

    def __post_init__(self) -> None:
        if self.segment_len < 1:
            raise ValueError(f"segment_len must be at least 1 token, got {self.segment_len}")
        unknown = sorted(set(self.memory_layers) - set(range(1, self.depth + 1)))
        if unknown:
            raise ValueError(f"neural_memory_layers count from 1 to depth = {self.depth}, got {unknown}")

    @property
    def window(self) -> int:
        """Tokens per attention window."""
        return self.segment_len + self.num_longterm_mem_tokens

    @property
    def memory_segment(self) -> int:
        """Tokens per memory update."""
        return self.neural_memory_segment_len or self.window

    @property
    def memory_layers(self) -> tuple[int, ...]:
        """Layers with a memory, counted from 1."""
        return tuple(range(1, self.depth + 1)) if self.neural_memory_layers is None else self.neural_memory_layers


class MacState(NamedTuple):
    """Where a text stands: tokens read, and of every layer its attention cache and its memory, if it has one."""

    tokens: int
    caches: tuple[WindowCache, ...]
    memories: tuple[NeuralMemoryState | None, ...]


class AxialPositions(nn.Module):
    """A position vector that is one network of ``i // inner`` plus another of ``i % inner``."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.inner = inner
        hidden = 2 * dim
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim))
            for _ in range(2)
        )

    def forward(self, positions: Tensor) -> Tensor:
        """Returns ``(L, dim)`` for ``positions (L,)``."""
        total = None
        for mlp, index in zip(self.mlps, (positions // self.inner, positions % self.inner), strict=True):
            values, inverse = index.unique(return_inverse=True)
            vectors = mlp(values[:, None].to(next(mlp.parameters()).dtype))[inverse]
            total = vectors if total is None else total + vectors
        return cast(Tensor, total)


class GatedHalf(nn.Module):
    """The first half of the features times the SiLU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(..., dim)`` of ``(..., 2 dim)``."""
        value, gate = x.chunk(2, dim=-1)
        return value * functional.silu(gate)


class MacLayer(nn.Module):
    """A neural memory (in some layers), attention and a feed-forward network around one residual stream."""

    def __init__(self, options: MacOptions, layer: int) -> None:
        super().__init__()
        o = options
        self.gates_attention = o.neural_mem_gate_attn_output
        if layer in o.memory_layers:
            accepts = o.neural_mem_weight_residual and layer != min(o.memory_layers)
            memory = replace(
                o.memory,
                chunk_size=o.memory_segment,
                batch_size=o.neural_memory_batch_size,
                accept_weight_residual=accepts,
            )
            self.add_module(_MEMORY, NeuralMemory(o.dim, memory))
        attend = SegmentedAttention(
            o.dim,
            o.window,
            dim_head=o.dim_head,
            heads=o.heads,
            num_persist_mem_tokens=o.num_persist_mem_tokens,
            sliding=o.sliding_window_attn,
            accept_value_residual=layer > 1,
        )
        self.add_module(_ATTENTION, attend)
        inner = int(o.dim * o.ff_mult * 2 / 3)
        feed_forward = nn.Sequential(
            nn.RMSNorm(o.dim), nn.Linear(o.dim, 2 * inner), GatedHalf(), nn.Linear(inner, o.dim)
        )
        self.add_module(_FEED_FORWARD, feed_forward)

    @property
    def memory(self) -> NeuralMemory | None:
        """The layer's neural memory, if it has one."""
        return cast(NeuralMemory | None, self._modules.get(_MEMORY))

    @property
    def attention(self) -> SegmentedAttention:
        """The layer's attention."""
        return cast(SegmentedAttention, self._modules[_ATTENTION])

    @property
    def feed_forward(self) -> nn.Sequential:
        """The layer's feed-forward network."""
        return cast(nn.Sequential, self._modules[_FEED_FORWARD])

    def forward(
        self,
        x: Tensor,
        cache: WindowCache | None,
        memory_state: NeuralMemoryState | None,
        *,
        first_values: Tensor | None,
        previous: Memory | None,
    ) -> tuple[Tensor, Tensor, WindowCache, NeuralMemoryState | None]:
        """Returns the stream after the layer, the attention's own values, its cache and the memory's state.

        Args:
            x: ``(B, T, dim)``.
            cache: of the attention; None at the start of a text.
            memory_state: the same of the memory.
            first_values: ``(B, H, T, D)`` of the first layer, which later ones may mix in; None for the first.
            previous: the memory of the layer before, if it passes one on.
        """
        gate = None
        if self.memory is not None:
            accepted = previous if self.memory.options.accept_weight_residual else None
            read, memory_state = self.memory(x, memory_state, previous=accepted)
            gate, x = (read.sigmoid(), x) if self.gates_attention else (None, x + read)
        out, own_values, cache = self.attention(x, cache, first_values=first_values)
        x = x + (out if gate is None else out * gate)
        return x + self.feed_forward(x), own_values, cache, memory_state


class MemoryAsContext(nn.Module):
    """The MAC transformer; reads the state dicts of titans-pytorch's ``MemoryAsContextTransformer``.

    Long-term memory tokens come after every full segment *that another token follows*. Calls may cut a text anywhere.

    Args:
        options: see ``MacOptions``.

    Example:
        >>> model = MemoryAsContext(MacOptions(9, 8, 1, 4, num_longterm_mem_tokens=2, dim_head=4, heads=2))
        >>> logits, state = model(torch.zeros(1, 7, dtype=torch.int64))
        >>> logits.shape, state.caches[0].position
        (torch.Size([1, 7, 9]), 9)
    """

    def __init__(self, options: MacOptions) -> None:
        super().__init__()
        self.options = o = options
        self.token_emb = nn.Embedding(o.num_tokens, o.dim)
        self.axial_pos_emb = AxialPositions(o.dim, o.memory_segment)
        self.longterm_mems = nn.Parameter(torch.randn(o.num_longterm_mem_tokens, o.dim) * 0.02)
        self.layers = nn.ModuleList(MacLayer(o, layer) for layer in range(1, o.depth + 1))
        self.norm = nn.RMSNorm(o.dim)
        self.to_logits = nn.Linear(o.dim, o.num_tokens, bias=False)

    def forward(self, ids: Tensor, state: MacState | None = None) -> tuple[Tensor, MacState]:
        """Returns the logits ``(B, T, num_tokens)`` of the tokens after ``ids (B, T)``, and the state.

        Raises:
            ValueError: ``ids`` is not ``(B, T)`` with at least one token.
        """
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"ids must be (B, T) with at least one token, got {tuple(ids.shape)}")
        done = 0 if state is None else state.tokens
        x, slots = self._interleave(self.token_emb(ids), done)
        caches = (None,) * len(self.layers) if state is None else state.caches
        memories = (None,) * len(self.layers) if state is None else state.memories
        first_values, previous, kept = None, None, []
        for layer, cache, memory in zip(self.layers, caches, memories, strict=True):
            x, own, *after = layer(x, cache, memory, first_values=first_values, previous=previous)
            first_values = own if first_values is None else first_values
            previous = previous if after[1] is None else after[1].updates
            kept.append((after[0], None if after[1] is None else after[1].compact()))
        logits = self.to_logits(self.norm(x[:, slots]))
        after_caches, after_memories = zip(*kept, strict=True) if kept else ((), ())
        return logits, MacState(done + ids.shape[1], after_caches, after_memories)

    def _interleave(self, tokens: Tensor, done: int) -> tuple[Tensor, Tensor]:
        """Returns the stream ``(B, L, dim)`` with memory tokens and positions, and the slots ``(T,)`` of the tokens."""
        segment, window = self.options.segment_len, self.options.window
        index = torch.arange(done, done + tokens.shape[1], device=tokens.device)
        places = index + index // segment * self.options.num_longterm_mem_tokens
        # A full segment's memory tokens are still to come if the last call ended on it.
        start = 0 if done == 0 else done + (done - 1) // segment * self.options.num_longterm_mem_tokens
        positions = torch.arange(start, int(places[-1]) + 1, device=tokens.device)
        slot = positions % window
        source = torch.where(
            slot < segment, positions // window * segment + slot - done, tokens.shape[1] + slot - segment
        )
        memories = self.longterm_mems.expand(tokens.shape[0], -1, -1)
        stream = torch.cat([tokens, memories], dim=1)[:, source]
        return stream + self.axial_pos_emb(positions), places - start

    @torch.no_grad()
    def generate(
        self,
        ids: Tensor,
        new_tokens: int,
        *,
        temperature: float = 1.5,
        min_p: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Returns ``new_tokens`` sampled ids ``(B, new_tokens)`` after a prompt ``ids (B, T)``.

        Args:
            ids: the prompt, at least one token.
            new_tokens: how many to sample.
            temperature: divides the logits; 0 takes the best token.
            min_p: tokens less probable than this share of the best one are left out (arXiv 2407.01082).
            generator: of the device of ``ids``, for repeatable samples.
        """
        sampled, state, feed = [], None, ids
        for _ in range(new_tokens):
            logits, state = self(feed, state)
            feed = _sample(logits[:, -1], temperature, min_p, generator)
            sampled.append(feed)
        return torch.cat(sampled, dim=1) if sampled else ids[:, :0]


def _sample(logits: Tensor, temperature: float, min_p: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    probabilities = logits.softmax(dim=-1)
    rare = probabilities < min_p * probabilities.amax(dim=-1, keepdim=True)
    kept = (logits / temperature).masked_fill(rare, -torch.inf).softmax(dim=-1)
    return torch.multinomial(kept, 1, generator=generator)
