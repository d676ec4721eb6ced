"""What reads the hidden states: the classifier of frames and clips, and the video-level aggregation.

Source: ``GRUNet``, ``AccidentPredictor`` and ``SelfAttAggregate`` of Petrichor625/CRASH.

Shapes: B clips, T frames, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.kernels import attention
from mmattn.kernels.products import Linear

__all__ = ["Classifier", "VideoAggregation", "positional_encoding"]

# The published code has a table of this length and fails on longer clips.
_TABLE_LENGTH = 100


class Classifier(nn.Module):
    """Dropout, linear, ReLU, linear to two logits: [..., 0] normal, [..., 1] accident.

    Args:
        dim: Width of the input.
        hidden_dim: Width between.
        dropout: Probability that a unit of the input is dropped.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.dense1 = Linear(dim, hidden_dim)
        self.dense2 = Linear(hidden_dim, 2)
        self.dropout = dropout

    def forward(self, x: Tensor, *, drop: bool | None = None) -> Tensor:
        """Returns logits (..., 2).

        Args:
            x: (..., D).
            drop: Whether dropout is on; None means in training mode only.
        """
        x = F.dropout(x, self.dropout, training=self.training if drop is None else drop)
        logits: Tensor = self.dense2(self.dense1(x).relu())
        return logits

    def sample(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Averages ``count`` passes with dropout on (Monte-Carlo dropout, arXiv 1506.02142).

        Args:
            x: (..., D).
            count: Passes, at least 2.

        Returns:
            Logits (..., 2) whose softmax is the mean probability, and the standard deviation (...) of the accident's
            probability over the passes.
        """
        probabilities = torch.stack([self(x, drop=True).softmax(dim=-1) for _ in range(count)])
        mean = probabilities.mean(dim=0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), probabilities[..., 1].std(dim=0)


def positional_encoding(length: int, dim: int) -> Tensor:
    """Returns sines and cosines of the positions (arXiv 1706.03762, 3.5), (T, D) float32.

    >>> positional_encoding(2, 2).tolist()[0]
    [0.0, 1.0]
    """
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(10000.0) / dim))
    angles = position * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]


class VideoAggregation(nn.Module):
    """Self-attention over all hidden states of a clip, then their mean and maximum over time.

    It looks ahead, so it serves the auxiliary loss only. Time O(T^2 D), memory O(T D).

    Args:
        dim: Width D.
        num_heads: Heads.
    """

    positions: Tensor

    def __init__(self, dim: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.dense = Linear(dim, dim)
        for layer in (self.qkv, self.dense):
            nn.init.kaiming_normal_(layer.weight, a=math.sqrt(5))
        self.register_buffer("positions", positional_encoding(_TABLE_LENGTH, dim), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the clip embeddings (B, 2D), mean before maximum, of hidden states (B, T, D)."""
        length, dim = hidden.shape[1:]
        positions = self.positions[:length]
        if length > len(self.positions):
            positions = positional_encoding(length, dim).to(self.positions)
        qkv = self.qkv(hidden + positions)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, d)
        mixed = attention(q, k, v).transpose(1, 2).flatten(2)
        out = self.dense(mixed)
        return torch.cat([out.mean(dim=1), out.amax(dim=1)], dim=-1)
