"""Recurrences over chunks of tokens as one differentiable operation that keeps almost nothing.

A rule says what happens inside a group of chunks. This module walks over the groups: some heads and some chunks at a
time, so that temporaries stay small and in the cache, and the state goes from group to group. The backward pass walks
back and lets the rule recompute a group from the state that entered it, the only thing that is kept beside the inputs.

Letters: B batch, H heads, T tokens, h heads and n chunks of a group, C tokens of a chunk, K key and V value width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from mmattn.kernels.backends.fallbacks import differentiable_gradients

__all__ = ["Definition", "Rule", "RuleByAutograd", "chunked", "power_of_two"]

Definition: TypeAlias = Callable[..., tuple[Tensor, Tensor]]
"""A recurrence token by token, ``definition(*tokens, *heads, state=)``: what a graph of the gradients goes through."""

# Tokens of a group: at 64 keys and 128 values, a temporary has a quarter or half of a megabyte.
_GROUP = 1024


class Rule(Protocol):
    """What a recurrence does with a group of chunks; hashable options, no tensors."""

    def forward(self, tokens: list[Tensor], heads: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs ``(n, h, C, V)`` and the state after the group.

        Args:
            tokens: q, k, v and gates ``(n, h, C, ...)``, in the dtype of the state; 0 past the end.
            heads: parameters of the heads ``(h, ...)``.
            state: ``(h, K, V)`` before the group; not to be changed.
        """

    def backward(
        self, tokens: list[Tensor], heads: list[Tensor], state: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Returns the gradients of tokens, of heads and of the state ``(h, K, V)`` before the group."""


class RuleByAutograd(ABC):
    """A rule whose backward pass is autograd's, within one group at a time."""

    @abstractmethod
    def forward(self, tokens: list[Tensor], heads: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Rule.forward`; made of differentiable operations."""

    def backward(
        self, tokens: list[Tensor], heads: list[Tensor], state: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """See :meth:`Rule.backward`."""
        leaves = [x.detach().requires_grad_() for x in (*tokens, *heads, state)]
        tokens, heads, state = leaves[: len(tokens)], leaves[len(tokens) : -1], leaves[-1]
        with torch.enable_grad():
            results = self.forward(tokens, heads, state)
        grads = [*torch.autograd.grad(results, leaves, (grad_out, grad_state), materialize_grads=True)]
        return grads[: len(tokens)], grads[len(tokens) : -1], grads[-1]


def chunked(
    rule: Rule,
    tokens: list[Tensor],
    state: Tensor,
    *,
    chunk_size: int,
    definition: Definition,
    heads: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the outputs ``(B, H, T, V)`` and the final state ``(B, H, K, V)`` of a rule, both in the state's dtype.

    Memory beside inputs and outputs is that of one group and of ``T / 1024`` states per head. Gradients that are to be
    differentiated again are those of the definition, whose memory is ``T`` states.

    Args:
        rule: the recurrence.
        tokens: q, k, v and gates ``(B, H, T, ...)``.
        state: ``(B, H, K, V)``.
        chunk_size: C.
        definition: the same recurrence.
        heads: parameters of the heads ``(H, ...)``.
    """
    out, state = _Chunked.apply(rule, chunk_size, definition, len(tokens), state, *tokens, *(heads or []))
    return out, state


def power_of_two(size: int, at_most: int) -> int:
    """Returns the smallest power of two that is at least ``size``, or that is enough for ``at_most`` tokens.

    >>> power_of_two(48, 1000), power_of_two(64, 5), power_of_two(64, 0)
    (64, 8, 1)
    """
    return 1 << (max(1, min(size, at_most)) - 1).bit_length()


class _Group(NamedTuple):
    """Some heads of the batch, and some tokens."""

    heads: slice
    tokens: slice
    chunk_size: int

    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns the group's part of ``(B H, T, ...)`` as ``(n, h, C, ...)``, 0 past the end."""
        part = x[self.heads, self.tokens].to(dtype)
        missing = -part.shape[1] % self.chunk_size
        if missing:
            part = functional.pad(part, (*(0, 0) * (part.ndim - 2), 0, missing))
        return part.unflatten(1, (-1, self.chunk_size)).transpose(0, 1)

    def put(self, x: Tensor, part: Tensor) -> None:
        """Writes ``(n, h, C, ...)`` to the group's place in ``(B H, T, ...)``."""
        place = x[self.heads, self.tokens]
        place.copy_(part.transpose(0, 1).flatten(1, 2)[:, : place.shape[1]])


def _groups(heads: int, tokens: int, chunk_size: int) -> list[list[_Group]]:
    """Returns the groups, in order of time, of every set of heads."""
    span = max(1, _GROUP // chunk_size) * chunk_size
    # Short sequences leave room in a group, which several heads then share.
    together = max(1, span // max(1, tokens))
    return [
        [_Group(slice(h, h + together), slice(t, t + span), chunk_size) for t in range(0, tokens, span)]
        for h in range(0, heads, together)
    ]


class _Chunked(torch.autograd.Function):
    """``(state, *tokens, *heads) -> (out, state)``."""

    @staticmethod
    def forward(
        ctx: Any,
        rule: Rule,
        chunk_size: int,
        definition: Definition,
        num_tokens: int,
        state: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        B, H = state.shape[:2]
        tokens, heads = [x.flatten(0, 1) for x in tensors[:num_tokens]], _repeat(tensors[num_tokens:], B, state.dtype)
        T, V = tokens[0].shape[1], state.shape[3]
        # What is returned is no view: the caller may change it in place.
        last = state.clone(memory_format=torch.contiguous_format)
        result = torch.empty(B, H, T, V, dtype=state.dtype, device=state.device)
        final, out = last.view(B * H, *state.shape[2:]), result.view(B * H, T, V)
        entering = []
        for groups in _groups(B * H, T, chunk_size):
            for group in groups:
                entering.append(final[group.heads].clone())
                here = [group.take(x, state.dtype) for x in tokens]
                part, after = rule.forward(here, [x[group.heads] for x in heads], entering[-1])
                group.put(out, part)
                final[group.heads] = after
        ctx.rule, ctx.chunk_size, ctx.definition, ctx.num_tokens = rule, chunk_size, definition, num_tokens
        # One state per group and no temporary: the rule computes the group again.
        ctx.save_for_backward(state, *tensors, *entering)
        return result, last

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        num_inputs = len(ctx.needs_input_grad) - 4
        saved = ctx.saved_tensors  # read once: activation checkpointing forbids a second time
        state, *tensors = saved[:num_inputs]
        entering = [*saved[num_inputs:]]
        if torch.is_grad_enabled():

            def definition(state: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
                return ctx.definition(*tensors, state=state)

            with torch.autocast(state.device.type, enabled=False):
                found = differentiable_gradients(definition, (state, *tensors), (grad_out, grad_final))
            return None, None, None, None, *found
        dtype, (B, H) = state.dtype, state.shape[:2]
        tokens = [x.flatten(0, 1) for x in tensors[: ctx.num_tokens]]
        heads = _repeat(tensors[ctx.num_tokens :], B, dtype)
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tokens]
        head_grads = [torch.zeros_like(x) for x in heads]
        grad_out, grad_state = grad_out.flatten(0, 1), grad_final.flatten(0, 1).clone()
        # Autocast would lower the precision of the state.
        with torch.autocast(state.device.type, enabled=False):
            for groups in reversed(_groups(B * H, tokens[0].shape[1], ctx.chunk_size)):
                for group in reversed(groups):
                    here = [group.take(x, dtype) for x in tokens]
                    parts, head_parts, grad_state[group.heads] = ctx.rule.backward(
                        here,
                        [x[group.heads] for x in heads],
                        # Groups come in the opposite order, so the state wanted is the last one appended.
                        entering.pop(),
                        group.take(grad_out, dtype),
                        grad_state[group.heads].clone(),
                    )
                    for grad, part in zip(grads, parts, strict=True):
                        group.put(grad, part)
                    for grad, part in zip(head_grads, head_parts, strict=True):
                        grad[group.heads] += part
        of_heads = [
            grad.unflatten(0, (B, H)).sum(0).to(x.dtype)
            for grad, x in zip(head_grads, tensors[ctx.num_tokens :], strict=True)
        ]
        return None, None, None, None, *(x.unflatten(0, (B, H)) for x in (grad_state, *grads)), *of_heads


def _repeat(heads: tuple[Tensor, ...], batch: int, dtype: torch.dtype) -> list[Tensor]:
    """Returns parameters of heads ``(H, ...)`` for every item of the batch, ``(B H, ...)``."""
    return [x.to(dtype).expand(batch, *x.shape).flatten(0, 1) for x in heads]
