"""The text encoder: bidirectional self-attention blocks without a final norm.

Source: theodorblackbird/lina-speech. Queries and keys are rotated in the first half of every head; there is no output
projection. Padding is never attended; a padded row attends itself alone, so that no row is empty.

Shapes: B batch, M text tokens, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.attention.rotary import RotaryEmbedding
from mmattn.speech.lina.network.blocks import MixingBlock

__all__ = ["SelfAttention", "TextEncoder", "self_attention_mask"]


def self_attention_mask(valid: Tensor) -> Tensor:
    """Returns (B, M, M), True where a text token sees another: both are real.

    Args:
        valid: (B, M) bool, False is padding.

    >>> self_attention_mask(torch.tensor([[True, False]])).tolist()
    [[[True, False], [False, False]]]
    """
    return valid[:, None, :] & valid[:, :, None]


class SelfAttention(nn.Module):
    """Softmax attention of all tokens on all tokens.

    Args:
        dim: Width D.
        num_heads: Heads H; half of a head's width must be even.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rotary = RotaryEmbedding(dim // num_heads // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns (B, M, D).

        Args:
            x: (B, M, D).
            mask: (B, M, M), True where a row may attend, no row empty; None is everywhere.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, M, D / H)
        mask = None if mask is None else mask[:, None]
        mixed = F.scaled_dot_product_attention(self.rotary(q), self.rotary(k), v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)


class TextEncoder(nn.Module):
    """A stack of self-attention blocks.

    Args:
        dim: Width D.
        num_heads: Heads H.
        num_layers: Blocks.
        dropout: Dropout after each block, in training.
    """

    def __init__(self, dim: int, num_heads: int, num_layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MixingBlock(SelfAttention(dim, num_heads), dim, dropout) for _ in range(num_layers))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Returns (B, M, D).

        Args:
            x: (B, M, D) embeddings.
            valid: (B, M) bool, False is padding; None is no padding.
        """
        mask = None
        if valid is not None and not bool(valid.all()):
            mask = self_attention_mask(valid) | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x
