"""Products ``y = x W^T + b`` with few rows on the CPU: through oneDNN, with weights laid out once, whole or lighter.

PyTorch multiplies float32 matrices on the CPU with MKL, whose AVX-512 kernels run on Intel's processors only; oneDNN,
which PyTorch carries as well, generates its kernels for the processor at hand and reads long matrices faster when
there are only a few rows. The product is the same up to the order of summation.

With few rows the time is that of reading the weight. A model that only scores may therefore lay it out once, and in
fewer bytes, where activations between the products stay in float32:

- "float32": the weight itself, or a copy in the order in which oneDNN reads it.
- "bfloat16": a copy in that order; products are summed up in float32 and rounded to bfloat16.
- "int8": a copy with one scale for each output, ``w = scale * round(w / scale)``; activations enter in bfloat16.

One rule says when such a layout is let go, see :class:`Packable`. Letters: B rows, I inputs, O outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.kernels.backends.fallbacks import differentiable_gradients

__all__ = [
    "Linear", "Packable", "Packed", "Precision", "Product", "StepLinear",
    "linear", "reordered_product", "stacked", "step_product", "uses_onednn",
]  # fmt: skip

T = TypeVar("T")
Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]
Product: TypeAlias = Callable[[Tensor], Tensor]
"""A weight and a bias laid out: ``x W^T + b`` (B, O) in the dtype of x (B, I), without gradients."""

# The operator that torch's own compiler emits for a linear layer on the CPU.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_REORDER = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
# Multiplications from which the kernel gains more than the 10 us of its call, measured on widths of 64 to 512.
_WORTHWHILE = 2**19
# The same for one row, where MKL falls further behind.
_WORTHWHILE_ROW = 2**15
# Rows of a streamed frame: the order is chosen for these, and serves any number.
_FRAME = 20
# The kernel of int8 weights reads beyond the end of rows whose length is no multiple of 16.
_INT8_ROW = 64


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Tells whether :func:`linear` takes the oneDNN product for ``x`` (..., I) and ``weight`` (O, I).

    >>> uses_onednn(torch.zeros(1, 8), torch.zeros(8, 8))
    False
    """
    return x.numel() * weight.shape[0] >= _WORTHWHILE and _reads(x, weight) and _is_eager(x)


def _reads(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is there and x and the weight are something for it."""
    return _ONEDNN is not None and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32


def _is_eager(x: Tensor) -> bool:
    """Whether operators run as they are called: oneDNN on, no autocast, no compiler or export."""
    return (
        bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled(x.device.type)
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


def stacked(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Applies layer ``l`` to ``x[l]`` and stacks the results: (L, ...) -> (L, ...).

    Raises:
        ValueError: there are not L layers.
    """
    return torch.stack([layer(row) for layer, row in zip(layers, x, strict=True)])


class Packed(Generic[T]):
    """Something derived from weights that serves for as long as these stay what and where they were.

    Args:
        value: What was derived.
        weights: What from.
        reads: The value reads the weights themselves and may see other numbers in them, but not in another place.
    """

    def __init__(self, value: T, weights: Iterable[Tensor], *, reads: bool = False) -> None:
        self.value, self._weights, self._reads = value, tuple(weights), reads
        self._made_of = self._marks()

    def holds(self) -> bool:
        """Tells whether the weights are as they were and nobody asks for gradients."""
        return not torch.is_grad_enabled() and self._made_of == self._marks()

    def serves(self, x: Tensor) -> bool:
        """Tells whether the value can be used for x ``(..., I)``: it holds, oneDNN is on, no autocast, no compiler."""
        return _is_eager(x) and self.holds()

    def _marks(self) -> list[tuple[int, int]]:
        # Every change in place counts up a tensor's version; tensors made in inference mode have none.
        return [(w.data_ptr(), 0 if self._reads or w.is_inference() else w._version) for w in self._weights]


class Packable(nn.Module, ABC):
    """A module that can keep something derived from its weights, for scoring with weights that stay as they are.

    What it keeps is used without gradients only and no longer once a weight was written to or moved; ``train()``,
    ``load_state_dict()``, ``to()``, copying and pickling drop it.
    """

    packed: Packed[Any] | None = None

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
        # A later tensor may be given the address of the one that is moved: marks alone would not tell.
        self.packed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # With ``assign=True`` other parameters take the place of those that are marked.
        self.packed = None
        super()._load_from_state_dict(*args, **kwargs)


class Linear(Packable, nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`: same parameters, same initial values."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        if self.packed is not None and uses_onednn(x, self.weight) and self.packed.holds():
            product: Tensor = self.packed.value(x)
            return product
        return linear(x, self.weight, self.bias)

    def pack(self) -> None:
        """Reorders the weight as oneDNN reads it, a second copy in memory; small ones and other dtypes stay."""
        product = reordered_product(self.weight, self.bias)
        self.packed = None if product is None else Packed(product, [self.weight])


class StepLinear(Packable, nn.Linear):
    """``torch.nn.Linear`` that can lay its weight out for steps of one frame; its parameters are the same."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O); (B, 1, I) -> (B, 1, O) are the steps."""
        if self.packed is not None and x.ndim == 3 and x.shape[1] == 1 and self.packed.serves(x):
            product: Tensor = self.packed.value(x[:, 0])
            return product[:, None]
        return F.linear(x, self.weight, self.bias)

    def pack(self, precision: Precision = "float32") -> None:
        """Lays the weight out."""
        product = step_product(self.weight, self.bias, precision)
        self.packed = Packed(product, [self.weight], reads=precision == "float32")


@torch.no_grad()
def reordered_product(weight: Tensor, bias: Tensor | None) -> Product | None:
    """Returns the product with a copy of a weight (O, I) in the order oneDNN reads it; None if that gains nothing.

    Args:
        weight: float32, for x (..., I) of any number of rows.
        bias: (O,), kept as it is.
    """
    if _REORDER is None or not uses_onednn(weight, weight):
        return None
    copy: Tensor = _REORDER(weight.detach(), _FRAME)
    return lambda x: _product(x.contiguous(), copy, bias)


def step_product(weight: Tensor, bias: Tensor | None, precision: Precision) -> Product:
    """Returns the product with a weight (O, I) and a bias (O,) for one row or a few.

    Args:
        weight: Kept as it is with "float32" and read again in every call; otherwise copied.
        bias: Kept as it is.
        precision: Of the weight.

    Raises:
        ValueError: The precision is none, or int8 is asked for on another device than the CPU.

    >>> x, weight = torch.ones(1, 2), torch.tensor([[1.0, 0.5]])
    >>> [round(step_product(weight, None, precision)(x).item(), 1) for precision in get_args(Precision)]
    [1.5, 1.5, 1.5]
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if precision == "int8":
        if weight.device.type != "cpu":
            raise ValueError(f"int8 weights work on the CPU only, got one on {weight.device}; use bfloat16")
        return _Int8(weight, bias)
    return _Bfloat16(weight, bias) if precision == "bfloat16" else _Whole(weight, bias)


class _Whole:
    """The weight itself."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        weight = self._weight
        if _reads(x, weight) and weight.numel() >= _WORTHWHILE_ROW:
            return _product(x.contiguous(), weight, self._bias)
        return F.linear(x, weight, self._bias)


class _Bfloat16:
    """The weight in bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias, self._reordered = weight.detach().bfloat16(), bias, False
        if _ONEDNN is not None and weight.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            self._weight, self._reordered = _REORDER(self._weight, 1), True  # type: ignore[misc]

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        product = _product(rows, self._weight, None) if self._reordered else F.linear(rows, self._weight)
        # The bias is added in float32, after the product was rounded.
        return product.to(x.dtype) if self._bias is None else self._bias + product


class _Int8:
    """The weight in whole numbers from -127 to 127 and a scale for each of its rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().float()
        largest = weight.abs().amax(dim=1, keepdim=True)
        # The scale is rounded first, so that the numbers fit the one that is used.
        scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
        numbers = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8)
        self._padding = -weight.shape[1] % _INT8_ROW
        self._numbers, self._scale, self._bias = F.pad(numbers, (0, self._padding)), scale[:, 0], bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        rows = F.pad(rows, (0, self._padding)) if self._padding else rows.contiguous()
        product = torch._weight_int8pack_mm(rows, self._numbers, self._scale)
        return product.to(x.dtype) if self._bias is None else self._bias + product


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = _ONEDNN(x, weight, bias, "none", [], "")  # type: ignore[misc]
    return result


class _Linear(torch.autograd.Function):
    """The oneDNN product with its gradients, which are two more such products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():
            grads = differentiable_gradients(lambda x, weight: [x @ weight.T], (x, weight), (grad,))
            return *grads, grad.flatten(0, -2).sum(0) if needs_bias else None
        grad = grad.contiguous()
        grad_x = _product(grad, weight.T, None) if needs_x else None
        rows = grad.flatten(0, -2)  # (R, O)
        grad_weight = _product(rows.T, x.flatten(0, -2).T, None) if needs_weight else None
        return grad_x, grad_weight, rows.sum(0) if needs_bias else None
