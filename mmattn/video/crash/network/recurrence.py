"""GRU cells that are stepped by hand, with the input given in parts.

``torch.nn.GRU`` multiplies the whole input at every step. Here most of it is known before the first step (frame and
context embeddings), so its share of the gates is computed for a whole clip at once and only added in the loop.

Same equations and gate order as ``torch.nn.GRU``: with x and h the shares of input and hidden state,

    r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + r h_n),  h' = (1 - z) n + z h.

Shapes: B clips, D width, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.kernels.products import Linear, Packable, Packed, reordered_product, stacked

__all__ = ["PartedGru", "gru_cell"]


class PartedGru(Packable):
    """L GRU layers of width D whose input is a concatenation of parts of width D.

    Args:
        dim: Width D of each part and of the hidden states.
        num_parts: Parts of the input.
        num_layers: Layers L.
        num_late: How many of the parts, the first ones, are not known before the state is.
    """

    def __init__(self, dim: int, num_parts: int, num_layers: int, num_late: int = 1) -> None:
        super().__init__()
        self.num_late = num_late
        self.parts = nn.ModuleList(Linear(dim, 3 * dim, bias=False) for _ in range(num_parts))
        self.bias = nn.Parameter(torch.empty(3 * dim))
        self.between = nn.ModuleList(Linear(dim, 3 * dim) for _ in range(num_layers - 1))
        self.recurrent = nn.ModuleList(Linear(dim, 3 * dim) for _ in range(num_layers))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(dim**-0.5), dim**-0.5)

    def known(self, *inputs: Tensor) -> Tensor:
        """Returns the share (..., 3D) of all known parts, each (..., D), in the first layer's gates, bias included."""
        if self.packed is not None and self.packed.serves(inputs[0]):
            product: Tensor = self.packed.value(torch.cat(inputs, dim=-1))
            return product
        gates = self.bias
        for part, x in zip(self.parts[self.num_late :], inputs, strict=True):
            gates = gates + part(x)
        return gates

    def late(self, x: Tensor) -> Tensor:
        """Returns the share (..., 3D) of the late part (..., D), without bias."""
        gates: Tensor = self.parts[0](x)
        return gates

    def pack(self) -> None:
        """Puts the weights of the known parts together: one product instead of several."""
        weights: list[Tensor] = [part.get_parameter("weight") for part in self.parts[self.num_late :]]
        product = reordered_product(torch.cat(weights, dim=1), self.bias)
        self.packed = None if product is None else Packed(product, weights)

    def forward(self, gates: Tensor, hidden: Tensor) -> Tensor:
        """Returns the next hidden states (L, B, D).

        Args:
            gates: (B, 3D), the shares of all input parts and the bias, summed.
            hidden: (L, B, D).
        """
        recurrent = stacked(self.recurrent, hidden)
        rows = [gru_cell(gates, recurrent[0], hidden[0])]
        for layer, between in enumerate(self.between, start=1):
            gates = between(rows[-1])
            rows.append(gru_cell(gates, recurrent[layer], hidden[layer]))
        return torch.stack(rows)


def gru_cell(gates: Tensor, recurrent: Tensor, hidden: Tensor) -> Tensor:
    """Returns the next hidden state (B, D), in the dtype of ``hidden``.

    Args:
        gates: (B, 3D), the input's share, in the order reset, update, new.
        recurrent: (B, 3D), the hidden state's share, in the same order.
        hidden: (B, D).

    >>> gru_cell(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 1)).item()
    0.5
    """
    dim = hidden.shape[-1]
    # Under autocast the products are half precision; the memory itself stays precise.
    gates, recurrent = gates.to(hidden.dtype), recurrent.to(hidden.dtype)
    reset, update = (gates[..., : 2 * dim] + recurrent[..., : 2 * dim]).sigmoid().chunk(2, dim=-1)
    new = torch.addcmul(gates[..., 2 * dim :], reset, recurrent[..., 2 * dim :]).tanh()
    return torch.lerp(new, hidden, update)
