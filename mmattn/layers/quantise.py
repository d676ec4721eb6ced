"""Residual vector quantisation: each codebook quantises what the ones before it left over (arXiv 2107.03312).

Shapes: B batch, T frames, D width, Q codebooks, K codewords. With ``r_0 = x``:

    c_q = argmin_k |r_q - e_q,k|^2,    r_(q+1) = r_q - e_q,c_q,    x^ = sum_q e_q,c_q
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualVQ", "nearest"]


class ResidualVQ(nn.Module):
    """The codebooks; they hold no gradients, see :mod:`.codebooks` for how they learn.

    Args:
        codebooks: Q.
        size: K.
        dim: D.
    """

    codebook: Tensor

    def __init__(self, codebooks: int, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(codebooks, size, dim))  # (Q, K, D)

    def encode(self, x: Tensor) -> Tensor:
        """Returns codes (B, Q, T) of vectors (B, T, D)."""
        return self.stages(x)[0].movedim(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns vectors (B, T, D) of codes (B, Q', T) of the first Q' codebooks."""
        parts = [functional.embedding(codes[:, q], self.codebook[q]) for q in range(codes.shape[1])]
        return torch.stack(parts).sum(0)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns codes (Q, B, T) and codewords (Q, B, T, D) of vectors (B, T, D), codebook by codebook."""
        residual, codes, words = x, [], []
        for book in self.codebook:
            codes.append(nearest(residual, book))
            words.append(functional.embedding(codes[-1], book))
            residual = residual - words[-1]
        return torch.stack(codes), torch.stack(words)


def nearest(x: Tensor, book: Tensor) -> Tensor:
    """Returns the numbers (...) of the codewords (K, D) nearest to vectors (..., D); the first of equally near ones."""
    # |x - e|^2 without |x|^2, which is the same for all e.
    return (book.square().sum(1) - 2 * x @ book.T).argmin(dim=-1)
