"""Where streams stand: states are tensors, and named tuples of states and plain numbers.

What all of them promise: their size does not depend on how many tokens were read, and one that was made without
gradients, or under ``torch.inference_mode``, can be gone on from in training.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["map_tensors", "own_storage", "trainable"]

S = TypeVar("S")


def map_tensors(state: S, function: Callable[[Tensor], Tensor]) -> S:
    """Returns a state with every tensor ``(...)`` replaced by what a function makes of it.

    >>> map_tensors((torch.ones(1), 3, (None, torch.ones(1))), torch.neg)
    (tensor([-1.]), 3, (None, tensor([-1.])))
    """
    if isinstance(state, Tensor):
        return cast("S", function(state))
    if not isinstance(state, tuple):
        return state
    parts = [map_tensors(part, function) for part in state]
    maker: Any = getattr(type(state), "_make", type(state))
    return cast("S", maker(parts))


def own_storage(state: S) -> S:
    """Returns a state whose tensors ``(...)`` share no memory with what they were cut from.

    A view of a sequence keeps the whole of it alive, and ``torch.save`` writes it.
    """
    return map_tensors(state, lambda x: x.clone(memory_format=torch.contiguous_format))


def trainable(state: S) -> S:
    """Returns a state that autograd may keep: tensors ``(...)`` made under ``torch.inference_mode`` are copied."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return state
    return map_tensors(state, lambda x: x.clone() if x.is_inference() else x)
