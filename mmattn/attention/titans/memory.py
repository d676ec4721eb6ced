"""``NeuralMemory``: the Titans memory as a layer that writes once per chunk of tokens.

Titans (arXiv 2501.00663), section 3, in the form of titans-pytorch 0.5, whose state dicts it reads. Letters: B batch,
H heads, T tokens, N chunks, C tokens per chunk, U keys per token, D width of a head.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmattn.attention.recurrent.parts import check_input
from mmattn.attention.titans.options import MemoryOptions
from mmattn.attention.titans.parts import ChunkPool, HeadRmsNorm
from mmattn.attention.titans.update import memory_updates, soft_clamp_norm
from mmattn.kernels.memory import Memory, aligned, memory_gradients, recall
from mmattn.kernels.states import map_tensors, own_storage, trainable

__all__ = ["NeuralMemory", "NeuralMemoryState"]

_ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}


class NeuralMemoryState(NamedTuple):
    """Where a stream stands; leading axes ``(B, H)``.

    Attributes:
        seq_index: tokens written so far, a multiple of the store chunk.
        base: the memory at which gradients are taken.
        remainder: inputs ``(B, r, dim)`` that do not fill a chunk yet.
        last_update: the newest memory.
        last_momentum: the newest momentum of every order; empty without momentum.
        updates: the memory before the last call and after each of its N chunks, ``(B, H, N + 1, ...)``: what a layer
            above may accept. It grows with the call; a stream goes on from ``compact()`` as well.
    """

    seq_index: int
    base: Memory
    remainder: Tensor
    last_update: Memory
    last_momentum: tuple[Memory, ...]
    updates: Memory

    def detach(self) -> "NeuralMemoryState":
        """Returns the same state without its history of operations, for truncated backpropagation."""
        return map_tensors(self, Tensor.detach)

    def compact(self) -> "NeuralMemoryState":
        """Returns what going on needs: of the updates only the newest, so that the size does not depend on the call.

        A layer that accepts these updates (``previous``) must have read them before.
        """
        newest = self.last_update.map(lambda t: t[:, :, None])
        return own_storage(self._replace(updates=newest))


class _Writing(NamedTuple):
    """What writing needs of every chunk; see ``NeuralMemory._prepare``."""

    keys: Tensor
    values: Tensor
    theta: Tensor
    keep: Tensor
    etas: tuple[Tensor, ...]
    modulation: tuple[Tensor, ...]
    mix: Tensor | None

    def part(self, start: int, stop: int) -> "_Writing":
        keys, values, theta, keep = (t[:, :, start:stop] for t in self[:4])
        etas, modulation = (tuple(t[:, :, start:stop] for t in group) for group in (self.etas, self.modulation))
        mix = None if self.mix is None else self.mix[:, :, start:stop]
        return _Writing(keys, values, theta, keep, etas, modulation, mix)


class NeuralMemory(nn.Module):
    """A memory network written while reading: token ``t`` (from 0) reads it as after ``floor((t + 1) / C)`` chunks.

    Every chunk adds the negative gradient of ``sum theta mean (M(k) - v)^2`` over its tokens to a momentum, and the
    momentum to the memory, which forgets by ``alpha``; ``theta``, ``eta`` and ``alpha`` are computed from the tokens.
    Gradients are taken at the memory at the start of the stream (or of the last ``batch_size`` tokens), which makes
    all chunks of a call parallel. A call may stop anywhere: the state keeps the tokens that do not fill a chunk.

    Works on a whole sequence in ``O(T D^2)`` time; memory is ``N`` copies of the memory network.

    Args:
        dim: width of the inputs.
        options: see ``MemoryOptions``.

    Raises:
        ValueError: one head with ``dim_head`` other than ``dim``.

    Example:
        >>> memory = NeuralMemory(8, MemoryOptions(chunk_size=4))
        >>> out, state = memory(torch.randn(2, 10, 8))
        >>> out.shape, state.seq_index, state.remainder.shape
        (torch.Size([2, 10, 8]), 8, torch.Size([2, 2, 8]))
    """

    def __init__(self, dim: int, options: MemoryOptions | None = None) -> None:
        super().__init__()
        self.options = o = options or MemoryOptions()
        dim_head = o.dim_head or dim
        if o.heads == 1 and dim_head != dim:
            raise ValueError(f"with one head, dim_head must be dim = {dim}, got {dim_head}; more heads are combined")
        inner = dim_head * o.heads
        self.dim, self.dim_head = dim, dim_head
        self.retrieve_norm = nn.RMSNorm(dim) if o.pre_rmsnorm else nn.Identity()
        self.store_norm = nn.RMSNorm(dim) if o.pre_rmsnorm else nn.Identity()
        self.multihead_rmsnorm = HeadRmsNorm(dim_head, o.heads) if o.post_rmsnorm else nn.Identity()
        self.q_norm = HeadRmsNorm(dim_head, o.heads) if o.qk_rmsnorm else nn.Identity()
        self.k_norm = HeadRmsNorm(dim_head, o.heads) if o.qk_rmsnorm else nn.Identity()
        self.combine_heads = nn.Linear(inner, dim, bias=False) if o.heads > 1 else nn.Identity()
        self.retrieve_gate = nn.Sequential(nn.Linear(dim, o.heads, bias=False)) if o.heads > 1 else None
        self.to_queries = _projection(dim, inner, o.activation)
        self.to_keys = _projection(dim, inner * o.num_kv_per_token, o.activation)
        self.to_values = _projection(dim, inner * o.num_kv_per_token, o.activation)
        self.memory_model_parameters = nn.ParameterList(_initial_memory(dim_head, o).tensors())
        self.reduce_to_chunk_rep = ChunkPool(dim, learned=o.attn_pool_chunks)
        # Sequences of one, because the published names end in ".0".
        self.to_adaptive_step = nn.Sequential(nn.Linear(dim, o.heads * o.num_kv_per_token))
        self.to_momentum = nn.Sequential(nn.Linear(dim, o.heads * o.momentum_order)) if o.momentum else None
        self.to_decay_factor = nn.Sequential(nn.Linear(dim, o.heads))
        tensors = o.heads * len(self.memory_model_parameters)
        self.to_layer_modulation = nn.Sequential(nn.Linear(dim, tensors)) if o.per_parameter_lr_modulation else None
        self.to_learned_weight_residual_mix = (
            nn.Sequential(nn.Linear(dim, o.heads)) if o.accept_weight_residual else None
        )
        self.transition_gate = nn.Parameter(torch.tensor(-5.0)) if o.gated_transition else None
        self.register_load_state_dict_pre_hook(_drop_template)

    def initial_state(self, batch: int) -> NeuralMemoryState:
        """Returns the state before the first token: the learned initial memory, no momentum."""
        expanded = [_widen(p).expand(batch, *p.shape) for p in self.memory_model_parameters]
        with_gamma = self.options.mem_model_norm_add_residual
        memory = Memory(tuple(expanded[1:]), expanded[0]) if with_gamma else Memory(tuple(expanded))
        orders = self.options.momentum_order if self.options.momentum else 0
        momentum = tuple(memory.map(torch.zeros_like) for _ in range(orders))
        remainder = self.memory_model_parameters[0].new_zeros(batch, 0, self.dim)
        return NeuralMemoryState(0, memory, remainder, memory, momentum, memory.map(lambda t: t[:, :, None]))

    def forward(
        self, x: Tensor, state: NeuralMemoryState | None = None, *, previous: Memory | None = None
    ) -> tuple[Tensor, NeuralMemoryState]:
        """Returns what the tokens read, ``(B, T, dim)``, and the state after they were written.

        Args:
            x: ``(B, T, dim)``, any T, 0 included.
            state: the state to go on from, not changed; None starts a stream.
            previous: ``state.updates`` of the layer whose memory is accepted, of a call with the same tokens.

        Raises:
            ValueError: shapes do not fit, or ``previous`` and ``accept_weight_residual`` do not go together.
        """
        check_input(x, self.dim)
        if (previous is not None) != self.options.accept_weight_residual:
            given = "none" if previous is None else "one"
            raise ValueError(f"accept_weight_residual is {self.options.accept_weight_residual}, got {given} to accept")
        state = self.initial_state(x.shape[0]) if state is None else trainable(state)
        offset = state.remainder.shape[1]
        state = self._store(torch.cat([state.remainder, x], dim=1), state, previous)
        # One token reads the newest memory, also where reading and writing have chunks of their own.
        read = state.last_update.map(lambda t: t[:, :, None]) if x.shape[1] == 1 else state.updates
        return self._retrieve(x, read, offset), state

    def _store(self, x: Tensor, state: NeuralMemoryState, previous: Memory | None) -> NeuralMemoryState:
        chunk = self.options.store_chunk
        chunks = x.shape[1] // chunk
        writing = self._prepare(x[:, : chunks * chunk].unflatten(1, (chunks, chunk)))
        # Autocast would lower the precision of the memory.
        with torch.autocast(x.device.type, enabled=False):
            return self._write(writing, state, previous, x[:, chunks * chunk :])

    def _write(
        self, writing: _Writing, state: NeuralMemoryState, previous: Memory | None, remainder: Tensor
    ) -> NeuralMemoryState:
        chunk, batch, chunks = self.options.store_chunk, self.options.batch_size, writing.keep.shape[2]
        index, base, last, momentum = state.seq_index, state.base, state.last_update, state.last_momentum
        entries, newest, done = [], last, 0
        while done < chunks:
            stop = chunks if batch is None else min(chunks, done + (batch - index % batch) // chunk)
            piece = writing.part(done, stop)
            gradients = self._gradients(piece, base, None if previous is None else _chunks(previous, done, stop))
            entries.append(last.map(lambda t: t[:, :, None]))
            updates, momentum = memory_updates(
                gradients, last, momentum, piece.keep, piece.etas, orthogonalise=self.options.spectral_norm_surprises
            )
            entries.append(_chunks(updates, 0, stop - done - 1))
            last = newest = updates.map(lambda t: t[:, :, -1])
            index, done = index + (stop - done) * chunk, stop
            if batch is not None and index % batch == 0:
                base = last = self._transition(base, last)
        entries.append(newest.map(lambda t: t[:, :, None]))
        updates = entries[0].map(lambda *t: torch.cat(t, dim=2), *entries[1:])
        return NeuralMemoryState(index, base, remainder, last, momentum, updates)

    def _transition(self, base: Memory, last: Memory) -> Memory:
        if self.transition_gate is None:
            return last
        gate = self.transition_gate.sigmoid()
        return base.map(lambda old, new: old.lerp(new, gate.to(old.dtype)), last)

    def _prepare(self, x: Tensor) -> _Writing:
        """Returns keys and values ``(B, H, N, C U, D)``, learning rates ``(B, H, N, C U)`` and gates ``(B, H, N)``."""
        o = self.options
        x = self.store_norm(x)
        pooled = self.reduce_to_chunk_rep(x)
        keys, values = (_split(project(x), o.heads, o.num_kv_per_token) for project in (self.to_keys, self.to_values))
        keys = self.k_norm(keys.flatten(2, 3)).reshape(keys.shape)
        theta = _split(self.to_adaptive_step(x).sigmoid() * o.max_lr, o.heads, o.num_kv_per_token)[..., 0]
        keep = 1 - self.to_decay_factor(pooled).sigmoid().transpose(1, 2)
        etas: tuple[Tensor, ...] = ()
        modulation: tuple[Tensor, ...] = ()
        if self.to_momentum is not None:
            # (B, N, H O) -> O gates (B, H, N)
            etas = _widen(self.to_momentum(pooled)).sigmoid().unflatten(2, (o.heads, -1)).transpose(1, 2).unbind(3)
        if self.to_layer_modulation is not None:
            factors = _widen(self.to_layer_modulation(pooled)).sigmoid() * o.max_mem_layer_modulation
            modulation = factors.unflatten(2, (o.heads, -1)).transpose(1, 2).unbind(3)
        mix = None
        if self.to_learned_weight_residual_mix is not None:
            mix = _widen(self.to_learned_weight_residual_mix(pooled)).sigmoid().transpose(1, 2)
        keys, values, theta, keep = (_widen(t) for t in (keys, values, theta, keep))
        return _Writing(keys, values, theta, keep, etas, modulation, mix)

    def _gradients(self, writing: _Writing, base: Memory, residual: Memory | None) -> Memory:
        weights = base.map(lambda t: t[:, :, None])
        if residual is not None and writing.mix is not None:
            mix = writing.mix
            weights = weights.map(lambda own, other: own + aligned(mix, other) * other, residual)
        gradients = memory_gradients(weights, writing.keys, writing.values, writing.theta, reduction="mean")
        limit = self.options.max_grad_norm
        if limit is not None:
            gradients = gradients.map(lambda g: soft_clamp_norm(g, limit, lead=3))
        if writing.modulation:
            factors = writing.modulation
            scaled = [aligned(f, g) * g for f, g in zip(factors, gradients.tensors(), strict=True)]
            gradients = Memory(tuple(scaled)) if gradients.gamma is None else Memory(tuple(scaled[1:]), scaled[0])
        return gradients

    def _retrieve(self, x: Tensor, updates: Memory, offset: int) -> Tensor:
        """Reads the memories; ``offset`` tokens of the running chunk came before ``x``."""
        o, tokens = self.options, x.shape[1]
        normed = self.retrieve_norm(x)
        queries = self.q_norm(self.to_queries(normed).unflatten(2, (o.heads, -1)).transpose(1, 2))
        chunk, front = o.retrieve_chunk, offset + 1
        if tokens == 1:
            chunk, front = 1, 0
        groups = -(-(front + tokens) // chunk)
        available = updates.weights[0].shape[2]
        if groups > available:
            raise ValueError(
                f"{tokens} tokens read {groups} memories in chunks of {chunk}, only {available} are written in chunks "
                f"of {o.store_chunk}: the retrieve chunk must not be smaller than the store chunk"
            )
        padded = nn.functional.pad(queries, (0, 0, front, groups * chunk - front - tokens))
        grouped = _widen(padded).unflatten(2, (groups, chunk))
        with torch.autocast(x.device.type, enabled=False):
            read = recall(_chunks(updates, 0, groups), grouped).flatten(2, 3)[:, :, front : front + tokens]
        read = self.multihead_rmsnorm(read.to(x.dtype))
        if self.retrieve_gate is not None:
            read = read * self.retrieve_gate(normed).sigmoid().transpose(1, 2)[..., None]
        return self.combine_heads(read.transpose(1, 2).flatten(2))


def _split(x: Tensor, heads: int, per_token: int) -> Tensor:
    """Returns ``(B, H, N, C U, D)`` of ``(B, N, C, H U D)``."""
    return x.unflatten(3, (heads, per_token, -1)).permute(0, 3, 1, 2, 4, 5).flatten(3, 4)


def _chunks(memory: Memory, start: int, stop: int) -> Memory:
    return memory.map(lambda t: t[:, :, start:stop])


def _widen(tensor: Tensor) -> Tensor:
    """Returns a tensor in float32 at least: memories are never kept in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _projection(dim: int, inner: int, activation: str | None) -> nn.Module:
    linear = nn.Linear(dim, inner, bias=False)
    return linear if activation is None else nn.Sequential(linear, _ACTIVATIONS[activation]())


def _initial_memory(dim: int, options: MemoryOptions) -> Memory:
    """Returns one Xavier initialisation for all heads, each with a copy of its own."""
    hidden = int(dim * options.expansion_factor)
    widths = [dim, *[hidden] * (options.depth - 1), dim]
    weights = [nn.init.xavier_uniform_(torch.empty(widths[i], widths[i + 1])) for i in range(options.depth)]
    copies = tuple(weight.repeat(options.heads, 1, 1) for weight in weights)
    return Memory(copies, torch.zeros(options.heads, dim) if options.mem_model_norm_add_residual else None)


def _drop_template(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Forgets ``memory_model.*``: in published state dicts the initial memory before it was copied to the heads."""
    for key in [key for key in state_dict if key.startswith(f"{prefix}memory_model.")]:
        del state_dict[key]
