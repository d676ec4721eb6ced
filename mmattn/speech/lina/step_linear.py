"""Matrix products of one frame: weights laid out once, whole or in less memory, for the few rows a step has.

A step reads every weight of the decoder once and multiplies it by as many rows as there are streams. At the published
size that is hundreds of megabytes per frame and the time is that of reading them, so a product with bfloat16 or int8
weights is three to four times as fast. Activations between the products, states, norms and gates stay in float32.

- "float32": the module's own weight, through oneDNN. PyTorch multiplies with MKL, which is slow on AMD's processors.
- "bfloat16": a copy in oneDNN's order; products are summed up in float32 and rounded to bfloat16.
- "int8": a copy with one scale for each output, ``w = scale * round(w / scale)``; activations enter in bfloat16.

Shapes: B streams, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.errors import InputError

__all__ = ["Layout", "PackedLinear", "Precision", "StepLinear", "StepProduct", "check_precision", "step_product"]

Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]

# What torch's own compiler emits for linear layers on the CPU.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
# Multiplications of one row from which oneDNN gains more than its call costs.
_WORTHWHILE = 2**15
# The kernel of int8 weights reads beyond the end of rows whose length is no multiple of 16.
_INT8_ROW = 64


def check_precision(precision: str, device: torch.device) -> Precision:
    """Returns the precision if it is one and works on the device.

    Raises:
        InputError: If it is not, or int8 is asked for on another device than the CPU.
    """
    known: Precision
    for known in get_args(Precision):
        if precision != known:
            continue
        if known == "int8" and device.type != "cpu":
            raise InputError(f"int8 weights work on the CPU only, the model is on {device}.", "Use bfloat16.")
        return known
    raise InputError(f"precision is '{precision}', expected one of {', '.join(get_args(Precision))}.")


class StepProduct(Protocol):
    """A weight and a bias laid out for few rows."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x W^T + b`` (B, O) in the dtype of x (B, I), without gradients."""


def step_product(weight: Tensor, bias: Tensor | None, precision: Precision) -> StepProduct:
    """Returns the product with a weight (O, I) and a bias (O,).

    Args:
        weight: Kept as it is with "float32" and read again in every call; otherwise copied.
        bias: Kept as it is.
        precision: Of the weight.
    """
    if precision == "int8":
        return _Int8(weight, bias)
    return _Whole(weight, bias) if precision == "float32" else _Bfloat16(weight, bias)


class Layout:
    """Something derived from parameters that serves for as long as these stay what they were.

    A copy of a module has None in its place: oneDNN's order of a weight cannot be copied.

    Args:
        parameters: What it is derived from.
        precision: In "float32" it reads the parameters themselves and may see other values, but not in another place.
    """

    def __init__(self, parameters: Sequence[Tensor], precision: Precision) -> None:
        self._parameters, self._copied = tuple(parameters), precision != "float32"
        self._made_of = self._marks()

    @property
    def holds(self) -> bool:
        """Whether the parameters still are those that it was made of."""
        return self._made_of == self._marks()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def _marks(self) -> list[tuple[int, int]]:
        # Every change in place counts up a tensor's version; tensors made in inference mode have none.
        return [(p.data_ptr(), p._version if self._copied and not p.is_inference() else 0) for p in self._parameters]


class PackedLinear(Layout):
    """A weight and a bias laid out for steps.

    Args:
        weight: (O, I), or (Q, V, I) for Q V outputs.
        bias: (O,).
        precision: Of the weight.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision) -> None:
        super().__init__([weight], precision)
        self._product = step_product(weight.flatten(0, -2), bias, precision)

    def serves(self, x: Tensor) -> bool:
        """Tells whether it can be used for x: one frame (B, 1, I), no gradients, weights as they were."""
        return x.ndim == 3 and x.shape[1] == 1 and not torch.is_grad_enabled() and self.holds

    def __call__(self, x: Tensor) -> Tensor:
        """Returns (B, 1, O) for (B, 1, I)."""
        return self._product(x[:, 0])[:, None]


class StepLinear(nn.Linear):
    """``torch.nn.Linear`` that can lay its weight out for steps of one frame; its parameters are the same."""

    packed: PackedLinear | None = None

    def pack(self, precision: Precision) -> None:
        """Lays the weight out."""
        self.packed = PackedLinear(self.weight, self.bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., O) for (..., I)."""
        if self.packed is not None and self.packed.serves(x):
            return self.packed(x)
        return F.linear(x, self.weight, self.bias)


class _Whole:
    """The weight itself."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        weight = self._weight
        if (
            _ONEDNN is None
            or weight.numel() < _WORTHWHILE
            or x.device.type != "cpu"
            or not x.dtype == weight.dtype == torch.float32
        ):
            return F.linear(x, weight, self._bias)
        product: Tensor = _ONEDNN(x.contiguous(), weight, self._bias, "none", [], "")
        return product


class _Bfloat16:
    """The weight in bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias, self._reordered = weight.detach().bfloat16(), bias, False
        if _ONEDNN is not None and weight.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            self._weight, self._reordered = torch.ops.mkldnn._reorder_linear_weight(self._weight, 1), True

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        if self._reordered and _ONEDNN is not None:
            product: Tensor = _ONEDNN(rows, self._weight, None, "none", [], "")
        else:
            product = F.linear(rows, self._weight)
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
