"""How codebooks learn: k-means to begin with, then moving averages, and a new place for codewords nobody uses.

Source: exponential moving averages of arXiv 1711.00937 (appendix A.1); k-means start and restarts of arXiv 2107.03312
(section III-C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.layers.quantise import ResidualVQ, nearest

__all__ = ["CodebookLearner", "kmeans"]


class CodebookLearner(nn.Module):
    """Statistics of the codebooks of a :class:`ResidualVQ`, which it changes in place.

    In a distributed run every process keeps its own; Lightning copies those of the first one to the others each step.

    Args:
        codebooks: Q.
        size: K.
        dim: D.
        decay: Of the moving averages, per step.
        dead_share: A codeword used less often than this part of the average is put elsewhere.
    """

    count: Tensor
    total: Tensor

    def __init__(self, codebooks: int, size: int, dim: int, decay: float = 0.98, dead_share: float = 0.05) -> None:
        super().__init__()
        self.decay, self.dead_share = decay, dead_share
        self.register_buffer("count", torch.zeros(codebooks, size))  # uses of each codeword, averaged
        self.register_buffer("total", torch.zeros(codebooks, size, dim))  # sum of what was mapped to it, averaged

    @torch.no_grad()
    def start(self, quantizer: ResidualVQ, x: Tensor, *, frames_per_step: int) -> None:
        """Sets the codebooks by k-means on vectors (N, D), each on what the ones before it leave over.

        Args:
            quantizer: Whose codebooks to set.
            x: The vectors, N >= 1.
            frames_per_step: Vectors that one training step will bring; scales the statistics.
        """
        residual = x.float()
        for q, book in enumerate(quantizer.codebook):
            book.copy_(kmeans(residual, book.shape[0]))
            codes = nearest(residual, book)
            used = torch.bincount(codes, minlength=book.shape[0]).to(residual) * frames_per_step / len(residual)
            self.count[q] = used
            self.total[q] = book * used[:, None]
            residual = residual - book[codes]

    @torch.no_grad()
    def adopt(self, quantizer: ResidualVQ) -> None:
        """Takes over trained codebooks whose statistics are lost, as if each codeword were used once per step."""
        self.count.fill_(1.0)
        self.total.copy_(quantizer.codebook)

    @torch.no_grad()
    def step(self, quantizer: ResidualVQ, x: Tensor, codes: Tensor, words: Tensor) -> int:
        """Moves the codebooks towards the vectors of a batch and returns how many codewords were put elsewhere.

        Args:
            quantizer: Whose codebooks to move.
            x: Vectors (B, T, D).
            codes: (Q, B, T) and
            words: (Q, B, T, D) as from :meth:`ResidualVQ.stages` of ``x``.
        """
        residual, restarted = x.detach().float().flatten(0, 1), 0
        for q, book in enumerate(quantizer.codebook):
            code = codes[q].flatten()
            self.count[q].lerp_(torch.bincount(code, minlength=len(book)).to(residual), 1 - self.decay)
            self.total[q].lerp_(torch.zeros_like(book).index_add_(0, code, residual), 1 - self.decay)
            restarted += self._restart(q, residual)
            book.copy_(self.total[q] / self.count[q].clamp_min(1e-6)[:, None])
            residual = residual - words[q].flatten(0, 1).float()
        return restarted

    def _restart(self, q: int, x: Tensor) -> int:
        """Puts codewords that are hardly used onto vectors (N, D) of the batch."""
        average = self.count[q].mean()
        dead = (self.count[q] < self.dead_share * average).nonzero()[:, 0]
        if len(dead) and average > 0:
            chosen = x[torch.randint(len(x), (len(dead),), device=x.device)]
            self.count[q, dead] = average
            self.total[q, dead] = chosen * average
        return len(dead)


def kmeans(x: Tensor, k: int, iterations: int = 12) -> Tensor:
    """Returns k centres (k, D) of vectors (N, D); empty clusters move onto random vectors. Time O(iterations N k D).

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.2]])
    >>> _ = torch.manual_seed(0)
    >>> kmeans(x, 2).flatten().sort().values.tolist()
    [0.05000000074505806, 5.099999904632568]
    """
    # With fewer vectors than centres some occur twice, and one of such twins is never used.
    order = torch.randperm(len(x), device=x.device)
    centres = x[order[torch.arange(k, device=x.device) % len(x)]].clone()
    for _ in range(iterations):
        codes = nearest(x, centres)
        count = torch.bincount(codes, minlength=k).to(x)
        centres = torch.zeros_like(centres).index_add_(0, codes, x) / count.clamp_min(1)[:, None]
        empty = (count == 0).nonzero()[:, 0]
        centres[empty] = x[torch.randint(len(x), (len(empty),), device=x.device)]
    return centres
