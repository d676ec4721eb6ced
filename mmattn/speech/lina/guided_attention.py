"""A gentle push towards reading a text from left to right at an even pace.

Source: guided attention of arXiv 1710.08969, section 4, for attention maps of cross-attention:

    loss = mean over frames n of sum over tokens m of A[n, m] (1 - exp(-(n / N - m / M)^2 / (2 sigma^2))).

Speech is roughly as far along as its text, so that an early map off the diagonal is likely wrong. Small data need the
push for the alignment to appear at all; it fades out during training.

Shapes: B utterances, N audio columns, M text tokens, A maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["guided_attention_loss"]


def guided_attention_loss(maps: Tensor, audio_valid: Tensor, text_valid: Tensor, *, sigma: float = 0.12) -> Tensor:
    """Returns the mean penalty of all maps, in [0, 1].

    Args:
        maps: (B, A, N, M) weights; every row sums to 1.
        audio_valid: (B, N) bool, False is padding.
        text_valid: (B, M) bool, False is padding.
        sigma: Width of the diagonal as a part of the length.

    >>> exact = torch.eye(8)[None, None]
    >>> all_valid = torch.ones(1, 8, dtype=torch.bool)
    >>> guided_attention_loss(exact, all_valid, all_valid).item()
    0.0
    """
    along = _progress(audio_valid)[:, :, None] - _progress(text_valid)[:, None, :]  # (B, N, M)
    penalty = (1.0 - torch.exp(-along.square() / (2 * sigma**2))) * text_valid[:, None, :]
    per_frame = (maps.float() * penalty[:, None]).sum(dim=-1).mean(dim=1)  # (B, N)
    return (per_frame * audio_valid).sum() / audio_valid.sum()


def _progress(valid: Tensor) -> Tensor:
    """Returns how far along each place is, 0 to 1."""
    places = torch.arange(valid.shape[1], device=valid.device, dtype=torch.float32)
    return places / (valid.sum(dim=1, keepdim=True) - 1).clamp_min(1)
