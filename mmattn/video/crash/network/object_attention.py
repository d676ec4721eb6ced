"""Object-aware attention (OFA): the hidden state chooses the boxes that matter.

Source: arXiv 2407.17757 and ``SpatialAttention`` of Petrichor625/CRASH. With L hidden states h_l and box embeddings O,

    s = sum_l alpha_l (W_l h_l + b_l) (W_k O + b_k)^T / sqrt(D),   o = softmax_boxes(s) (W_v O + b_v).

Computed without keys and values: ``q (W_k O)^T = (q W_k) O^T``, and W_v is applied to the weighted mean of the boxes
instead of to each of them. The bias b_k shifts all scores of a frame alike, which the softmax does not notice: it could
never be learned, so it is left out.

Shapes: B clips, N boxes, D width, L hidden states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.kernels.products import Linear, linear, stacked

__all__ = ["ObjectAttention", "masked_softmax", "max_boxes", "mean_boxes"]


def masked_softmax(scores: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the softmax over the last axis among valid entries; a row without one is all zero.

    Args:
        scores: (..., N).
        valid: (..., N) bool, or None when all are valid.

    >>> masked_softmax(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    if valid is None:
        return scores.softmax(dim=-1)
    # A finite fill keeps the gradient of an all-empty row free of NaN; its weights are zeroed right after.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~valid, lowest).softmax(dim=-1).masked_fill(~valid, 0.0)


def mean_boxes(boxes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the mean (..., D) of the valid boxes (..., N, D) and the weights (..., N) it gives them.

    Without a valid box both are zero.
    """
    present = boxes.new_ones(boxes.shape[:-1]) if valid is None else valid.to(boxes.dtype)
    weights = present / present.sum(dim=-1, keepdim=True).clamp_min(1.0)
    return (weights[..., None] * boxes).sum(dim=-2), weights


def max_boxes(boxes: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the largest value (..., D) over the valid boxes (..., N, D) of embeddings that are not negative."""
    return (boxes if valid is None else boxes * valid[..., None]).amax(dim=-2)


class ObjectAttention(nn.Module):
    """Single-head attention over boxes whose query mixes the hidden states of all GRU layers.

    Args:
        dim: Width D.
        num_layers: Hidden states L.
    """

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.queries = nn.ModuleList(Linear(dim, dim) for _ in range(num_layers))
        self.key = Linear(dim, dim, bias=False)
        self.value = Linear(dim, dim)
        self.alpha = nn.Parameter(torch.rand(num_layers))

    def forward(self, boxes: Tensor, hidden: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns what is attended (B, D) and the weights (B, N).

        Args:
            boxes: (B, N, D) embeddings.
            hidden: (L, B, D).
            valid: (B, N) bool, boxes that exist; None lets all take part. A frame without any gives zeros.
        """
        query = (self.alpha[:, None, None] * stacked(self.queries, hidden)).sum(dim=0)
        query = linear(query * hidden.shape[-1] ** -0.5, self.key.weight.T)
        weights = masked_softmax((boxes @ query[:, :, None]).squeeze(-1), valid)
        pooled = (weights[:, None] @ boxes).squeeze(1)
        out = self.value(pooled)
        if valid is not None:
            out = out * valid.any(dim=-1, keepdim=True)
        return out, weights
