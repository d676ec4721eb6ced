"""The network that is the memory: reading it, and the gradient of its regression loss, written out by hand.

Derived by hand rather than by a nested ``autograd.grad`` because every token (or group of tokens) has weights of its
own, because the result must itself be differentiable, and because it must work without gradients enabled at all.
Letters: ``...`` leading axes such as batch, heads and groups, T tokens, D width of the memory, U and W the two widths
of one of its matrices.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Backward", "Memory", "Reduction", "aligned", "backward", "memory_gradients", "norm_residual", "recall"]

Reduction = Literal["sum", "mean"]

_LAYER_NORM_EPS = 1e-5


class Memory(NamedTuple):
    """The weights of a memory network, or anything of their shape: a gradient, a momentum.

    One matrix is the linear memory ``M(x) = x W``; several are an MLP with GELU between them and no biases. With
    ``gamma`` the network becomes ``x + LayerNorm(MLP(x)) (gamma + 1)``, as in test-time training (arXiv 2407.04620).

    Attributes:
        weights: matrices ``(..., U, W)``; the first U is the width of the keys, the last W that of the values.
        gamma: ``(..., D)``, or None for the plain network.
    """

    weights: tuple[Tensor, ...]
    gamma: Tensor | None = None

    def map(self, function: Callable[..., Tensor], *others: "Memory") -> "Memory":
        """Returns a function's result for every tensor, taken together with the same tensor of ``others``."""
        weights = tuple(function(*tensors) for tensors in zip(*(m.weights for m in (self, *others)), strict=True))
        if self.gamma is None:
            return Memory(weights)
        return Memory(weights, function(*(m.gamma for m in (self, *others))))

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns all tensors, ``gamma`` first as in the published checkpoints."""
        return self.weights if self.gamma is None else (self.gamma, *self.weights)


def aligned(gate: Tensor, like: Tensor) -> Tensor:
    """Returns a gate ``(B, H, ...)`` with as many axes as ``like (B, H, ..., U, W)``, to multiply it.

    Example:
        >>> aligned(torch.zeros(2, 3), torch.zeros(2, 3, 4, 5)).shape
        torch.Size([2, 3, 1, 1])
    """
    return gate.reshape(gate.shape + (1,) * (like.ndim - gate.ndim))


def recall(memory: Memory, x: Tensor) -> Tensor:
    """Returns what the memory answers to ``x (..., T, D)``: ``M(x)`` of shape ``(..., T, D)``.

    Example:
        >>> recall(Memory((2 * torch.eye(2),)), torch.ones(1, 2)).tolist()
        [[2.0, 2.0]]
    """
    out = x @ memory.weights[0]
    for weight in memory.weights[1:]:
        out = functional.gelu(out) @ weight
    return out if memory.gamma is None else norm_residual(out, memory.gamma[..., None, :], x)


def norm_residual(out: Tensor, gamma: Tensor, x: Tensor) -> Tensor:
    """Returns ``x + LayerNorm(out) (gamma + 1)``, the wrapping of a memory that has ``gamma (..., T or 1, D)``.

    Example:
        >>> norm_residual(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2), torch.ones(1, 2)).round().tolist()
        [[0.0, 2.0]]
    """
    return x + functional.layer_norm(out, out.shape[-1:], eps=_LAYER_NORM_EPS) * (gamma + 1)


class Backward(NamedTuple):
    """One pass backwards through the memory, before anything is summed over tokens.

    The gradient of token ``t``'s loss with respect to matrix ``l`` is the outer product ``inputs[l]_t^T deltas[l]_t``;
    with respect to ``gamma`` it is ``gamma[t]``.
    """

    inputs: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    gamma: Tensor | None

    def weighted_sum(self, theta: Tensor) -> Memory:
        """Returns the gradient summed over tokens with the weights ``theta (..., T)``."""
        weights = tuple(
            a.transpose(-1, -2) @ (theta[..., None] * delta) for a, delta in zip(self.inputs, self.deltas, strict=True)
        )
        return Memory(weights, None if self.gamma is None else (theta[..., None] * self.gamma).sum(dim=-2))


def backward(memory: Memory, k: Tensor, v: Tensor, reduction: Reduction = "sum") -> Backward:
    """Returns the factors of the gradient of ``||M(k) - v||^2``, token by token (Titans, equation 12).

    Args:
        memory: its tensors' leading axes broadcast with those of ``k``.
        k: keys ``(..., T, D)``.
        v: values ``(..., T, D)``.
        reduction: over the D features of the squared error; ``mean`` is what titans-pytorch uses.

    Example:
        >>> parts = backward(Memory((torch.eye(2),)), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        >>> parts.deltas[0].tolist()
        [[2.0, 0.0]]
    """
    inputs, slopes = [k], []
    out = k @ memory.weights[0]
    for weight in memory.weights[1:]:
        inputs.append(functional.gelu(out))
        slopes.append(_gelu_slope(out))
        out = inputs[-1] @ weight
    factor = 2.0 / v.shape[-1] if reduction == "mean" else 2.0
    gamma = None
    if memory.gamma is None:
        delta = factor * (out - v)
    else:
        scale = memory.gamma[..., None, :] + 1
        centred = out - out.mean(dim=-1, keepdim=True)
        inverse = (centred.square().mean(dim=-1, keepdim=True) + _LAYER_NORM_EPS).rsqrt()
        normed = centred * inverse
        error = factor * (normed * scale + k - v)
        gamma = error * normed
        inner = error * scale
        # Through the layer norm: less the mean of the gradient and its part along the normed values.
        delta = inverse * (
            inner - inner.mean(dim=-1, keepdim=True) - normed * (inner * normed).mean(dim=-1, keepdim=True)
        )
    deltas = [delta]
    for weight, slope in zip(memory.weights[:0:-1], slopes[::-1], strict=True):
        deltas.append(deltas[-1] @ weight.transpose(-1, -2) * slope)
    return Backward(tuple(inputs), tuple(deltas[::-1]), gamma)


def memory_gradients(memory: Memory, k: Tensor, v: Tensor, theta: Tensor, *, reduction: Reduction = "sum") -> Memory:
    """Returns the gradient of ``sum_t theta_t ||M(k_t) - v_t||^2`` with respect to the memory's tensors.

    Differentiable in everything. Time and memory are those of one training step of the memory network.

    Args:
        memory: leading axes equal to (or broadcasting with) those of ``k``.
        k: keys ``(..., T, D)``.
        v: values ``(..., T, D)``.
        theta: weights of the tokens ``(..., T)``: their learning rates.
        reduction: over the features of the squared error.

    Example:
        >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
        >>> memory_gradients(Memory((zero,)), one, one, torch.tensor([0.5])).weights[0].item()
        -1.0
    """
    return backward(memory, k, v, reduction).weighted_sum(theta)


def _gelu_slope(x: Tensor) -> Tensor:
    # Of the exact gelu, not of its tanh form.
    return 0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
