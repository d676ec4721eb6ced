"""Rotary position embedding on interleaved pairs (RoFormer, arXiv 2104.09864, equation 34)."""

import torch
from torch import Tensor, nn

__all__ = ["RotaryEmbedding", "rotate"]


def rotate(x: Tensor, positions: Tensor, freqs: Tensor) -> Tensor:
    """Returns ``x`` with the pairs ``(x_0, x_1), (x_2, x_3), ...`` of its first features rotated by their position.

    Args:
        x: ``(..., T, D)``.
        positions: ``(T,)``, in tokens; only differences matter to a dot product of two rotated vectors.
        freqs: ``(R / 2,)`` radians per token; features from R on stay as they are.

    Example:
        >>> rotate(torch.tensor([[1.0, 0.0, 7.0]]), torch.tensor([1]), torch.tensor([torch.pi / 2])).round().tolist()
        [[-0.0, 1.0, 7.0]]
    """
    angles = positions.to(freqs.dtype)[:, None] * freqs  # (T, R / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    pairs = x[..., : 2 * freqs.shape[0]].unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([turned, x[..., 2 * freqs.shape[0] :]], dim=-1)


class RotaryEmbedding(nn.Module):
    """Frequencies ``theta^(-2 i / dim)``, kept in the state dict as published checkpoints do.

    Args:
        dim: R, the features that are rotated, even.
        theta: the base, 10000 in the paper.

    Raises:
        ValueError: ``dim`` is odd.
    """

    freqs: Tensor

    def __init__(self, dim: int, *, theta: float = 10000.0) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"rotary embedding turns pairs of features: dim must be even, got {dim}")
        self.register_buffer("freqs", theta ** (-torch.arange(0, dim, 2).float() / dim))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Returns ``x (..., T, D)`` rotated, its first row at position ``start``."""
        return rotate(x, torch.arange(start, start + x.shape[-2], device=x.device), self.freqs)
