"""The output of a gated recurrent layer: RMS norm per head, then a swish gate."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GatedHeadNorm"]


class GatedHeadNorm(nn.Module):
    """RMS norm over the head width with one scale shared by all heads, optionally times ``swish(gate)``.

    Args:
        dim: V, the head width.
        eps: added to the mean square.

    Example:
        >>> GatedHeadNorm(2)(torch.tensor([[3.0, 3.0]])).round().tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Returns ``(..., V)``, normalised and, with ``gate (..., V)``, gated."""
        x = functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        return x if gate is None else x * functional.silu(gate)
