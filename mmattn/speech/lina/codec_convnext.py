"""The block both our decoders are made of: ConvNeXt over time (arXiv 2201.03545, in Vocos, arXiv 2306.00814)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvNeXtBlock"]


class ConvNeXtBlock(nn.Module):
    """``x + gamma * W_2 gelu(W_1 LN(dwconv_7(x)))``: sees three frames to each side.

    Args:
        dim: Width D.
        hidden: Width between the two linear layers.
        scale: Initial value of gamma.
        eps: Of the LayerNorm.
    """

    kernel = 7

    def __init__(self, dim: int, hidden: int, scale: float, eps: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, self.kernel, padding=self.kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, D, T) for (B, D, T)."""
        frames = self.norm(self.dwconv(x).transpose(1, 2))
        frames = self.pwconv2(functional.gelu(self.pwconv1(frames))) * self.gamma
        return x + frames.transpose(1, 2)
