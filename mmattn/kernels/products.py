"""``linear`` and ``Linear``: y = x W^T + b, on the CPU through oneDNN, for matrices that are used once per frame.

PyTorch multiplies float32 matrices on the CPU with MKL, whose AVX-512 kernels run on Intel's processors only; oneDNN,
which PyTorch carries as well, generates its kernels for the processor at hand and reads long matrices faster when
there are only a few rows. The product is the same up to the order of summation. A call costs about 10 us more, so
small products, and everything else - other devices and dtypes, autocast, a compiled or exported model - take
:func:`torch.nn.functional.linear`.

A model that only scores may lay its weights out for these kernels once: see :class:`Packable`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Linear", "Packable", "linear", "pack_weight", "packed_linear", "stacked", "uses_onednn", "uses_packed"]

# The operator that torch's own compiler emits for a linear layer on the CPU.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_REORDER = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
# Multiplications from which the kernel gains more than the call costs, measured on widths of 64 to 512.
_WORTHWHILE = 2**19
# Rows of a streamed frame: the layout is chosen for these, and serves any number.
_PACKED_FOR = 20


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Tells whether :func:`linear` takes the oneDNN product for ``x`` (..., I) and ``weight`` (O, I)."""
    return (
        _ONEDNN is not None
        and x.numel() * weight.shape[0] >= _WORTHWHILE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns ``x weight^T + bias``; differentiable once on the oneDNN path.

    Args:
        x: (..., I).
        weight: (O, I), of any strides: ``linear(x, w.T)`` is ``x w``.
        bias: (O,).

    >>> linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([0.5])).tolist()
    [[3.5]]
    """
    if not uses_onednn(x, weight):
        return F.linear(x, weight, bias)
    # oneDNN has slow paths only for rows that do not follow each other and, below, for expanded gradients.
    x = x.contiguous()
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        product: Tensor = _Linear.apply(x, weight, bias)
        return product
    return _product(x, weight, bias)


class Packable(nn.Module, ABC):
    """A module that can keep something derived from its weights, for scoring with weights that stay as they are.

    What it keeps is used without gradients only, and dropped by ``train()``, ``load_state_dict()``, ``to()`` and in
    copies. After writing into the weights in any other way, call :meth:`pack` again.
    """

    packed: Any = None

    @abstractmethod
    def pack(self) -> None:
        """Derives it from the weights as they are now."""

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; training drops what was packed."""
        self.packed = None if mode else self.packed
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # oneDNN's layout can be neither copied nor pickled.
        return {**self.__dict__, "packed": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.packed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.packed = None
        super()._load_from_state_dict(*args, **kwargs)


def uses_packed(module: Packable, x: Tensor) -> bool:
    """Tells whether what a module keeps serves for ``x``: oneDNN on, no gradients, no autocast, no compiler."""
    return (
        module.packed is not None
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
    )


class Linear(Packable, nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`: same parameters, same initial values."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        if self.packed is not None and not torch.is_grad_enabled() and uses_onednn(x, self.weight):
            return packed_linear(x, self.packed, self.bias)
        return linear(x, self.weight, self.bias)

    def pack(self) -> None:
        """Reorders the weight as oneDNN reads it, a second copy in memory; small ones and other dtypes stay."""
        self.packed = pack_weight(self.weight)


@torch.no_grad()
def pack_weight(weight: Tensor) -> Tensor | None:
    """Returns a weight (O, I) in the order oneDNN reads it, for :func:`packed_linear`; None if that gains nothing."""
    if _REORDER is None or not uses_onednn(weight, weight):
        return None
    packed: Tensor = _REORDER(weight.detach(), _PACKED_FOR)
    return packed


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Returns :func:`linear` of x (..., I) with a weight from :func:`pack_weight`; has no gradient."""
    return _product(x.contiguous(), packed, bias)


def stacked(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Applies layer ``l`` to ``x[l]`` and stacks the results: (L, ...) -> (L, ...)."""
    return torch.stack([layer(row) for layer, row in zip(layers, x, strict=True)])


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = _ONEDNN(x, weight, bias, "none", [], "")  # type: ignore[misc]
    return result


class _Linear(torch.autograd.Function):
    """The oneDNN product with its gradients, which are two more such products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Returns ``x weight^T + bias``."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Returns the gradients of x, weight and bias that are asked for."""
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        grad_x = _product(grad, weight.T, None) if needs_x else None
        rows = grad.flatten(0, -2)  # (R, O)
        grad_weight = _product(rows.T, x.flatten(0, -2).T, None) if needs_weight else None
        return grad_x, grad_weight, rows.sum(0) if needs_bias else None
