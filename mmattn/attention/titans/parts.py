"""Small modules of the neural memory: a norm with a scale per head, and pooling over a chunk."""

import torch
from torch import Tensor, nn

__all__ = ["ChunkPool", "HeadRmsNorm"]


class HeadRmsNorm(nn.Module):
    """RMS norm over D with its own scale ``gamma + 1`` in every head, for ``(B, H, T, D)``.

    Example:
        >>> HeadRmsNorm(2, 1)(torch.tensor([[[[3.0, 3.0]]]])).round().tolist()
        [[[[1.0, 1.0]]]]
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(heads, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised ``x (B, H, T, D)``."""
        return nn.functional.rms_norm(x, x.shape[-1:]) * (self.gamma + 1)


class ChunkPool(nn.Module):
    """The mean of each chunk's tokens, or one weighted per feature: ``(B, N, C, dim)`` to ``(B, N, dim)``."""

    def __init__(self, dim: int, *, learned: bool) -> None:
        super().__init__()
        self.to_attn_logits = nn.Linear(dim, dim) if learned else None
        if self.to_attn_logits is not None:
            # The mean, to begin with.
            nn.init.zeros_(self.to_attn_logits.weight)
            nn.init.zeros_(self.to_attn_logits.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, N, dim)`` of ``x (B, N, C, dim)``."""
        if self.to_attn_logits is None:
            return x.mean(dim=2)
        return (x * self.to_attn_logits(x).softmax(dim=2)).sum(dim=2)
