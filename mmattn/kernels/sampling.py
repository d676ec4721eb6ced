"""How a token is drawn from logits: temperature, then top-k, top-p and min-p, then one random number.

The published code compares scaled logits with the k-th unscaled one, which for temperatures other than 1 keeps too many
or none; here the order is the usual one. One uniform number per token, given by the caller, decides: an utterance with
a generator of its own comes out the same whatever it is batched with.

Shapes: B rows, V ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SamplingOptions", "candidates", "draw", "penalise"]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Rules of the draw; the defaults are the published code's.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Tokens that may be drawn, the likeliest; 0 allows all.
        top_p: The fewest likeliest tokens whose probabilities reach this sum may be drawn; 1 allows all.
        min_p: A token must have this part of the likeliest one's probability; 0 allows all.
        repetition_penalty: Divides the odds of tokens among the last ``repetition_window``; 1 is none.
        repetition_window: Frames that count as lately heard.
        sampled_codebooks: How many codebooks, the first ones, are drawn; the others take the likeliest token. None
            draws all.
    """

    temperature: float = 1.0
    top_k: int = 100
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 25
    sampled_codebooks: int | None = 1

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: If a field is out of its range; the message names it.
        """
        for name, least, most in (
            ("temperature", 0.0, None), ("top_k", 0, None), ("top_p", 0.0, 1.0), ("min_p", 0.0, 1.0),
            ("repetition_window", 0, None),
        ):  # fmt: skip
            value = getattr(self, name)
            if not value >= least or (most is not None and value > most):
                wanted = f"at least {least}" if most is None else f"a number from {least:g} to {most:g}"
                raise ValueError(f"{name} is {value}, expected {wanted}.")
        if not self.repetition_penalty > 0.0:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}, expected a positive number.")
        if self.sampled_codebooks is not None and self.sampled_codebooks < 0:
            raise ValueError(f"sampled_codebooks is {self.sampled_codebooks}, expected at least 0.")


def draw(logits: Tensor, options: SamplingOptions, uniform: Tensor) -> Tensor:
    """Returns one id (B,) of each row.

    Args:
        logits: (B, V), -inf where a token is impossible; at least one is not.
        options: Rules.
        uniform: (B,) float64 in [0, 1): position in the cumulated probabilities, the likeliest token first.

    >>> draw(torch.tensor([[0.0, 3.0, 1.0]]), SamplingOptions(), torch.tensor([0.999], dtype=torch.float64)).tolist()
    [0]
    """
    if options.temperature == 0.0 or options.top_k == 1:
        return logits.argmax(dim=-1)
    ids, probabilities = candidates(logits, options)
    # float64: float32 sums over many ids lose the digits in which neighbours differ.
    cumulated = probabilities.double().cumsum(dim=-1)
    position = (cumulated <= uniform[:, None] * cumulated[:, -1:]).sum(dim=-1, keepdim=True)
    # Rounding must not lead to a token that was dropped.
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    return ids.gather(-1, torch.minimum(position, last)).squeeze(-1)


def candidates(logits: Tensor, options: SamplingOptions) -> tuple[Tensor, Tensor]:
    """Returns the ids that may be drawn and their probabilities, likeliest first, both (B, C).

    Dropped tokens among them have probability 0. ``temperature`` must not be 0.

    Args:
        logits: (B, V).
        options: Rules.

    >>> ids, probabilities = candidates(torch.tensor([[0.0, 1.0, 0.0]]), SamplingOptions(top_k=1))
    >>> ids.tolist(), probabilities.tolist()
    ([[1]], [[1.0]])
    """
    width = logits.shape[-1]
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / options.temperature
    values, ids = scaled.topk(min(options.top_k or width, width), dim=-1)
    # The softmax is over what top-k left, so that top-p counts the mass among these, the usual order.
    probabilities = values.softmax(dim=-1)
    if options.top_p < 1.0:
        before = probabilities.cumsum(dim=-1) - probabilities
        before[..., 0] = -1.0  # the likeliest always stays
        probabilities = probabilities.masked_fill(before >= options.top_p, 0.0)
    if options.min_p > 0.0:
        probabilities = probabilities.masked_fill(probabilities < options.min_p * probabilities[..., :1], 0.0)
    return ids, probabilities / probabilities.sum(dim=-1, keepdim=True)


def penalise(logits: Tensor, heard: Tensor, penalty: float) -> Tensor:
    """Returns logits with the odds of some tokens divided by a number.

    Args:
        logits: (..., V).
        heard: (..., W) int, ids heard lately; one that occurs twice is not punished twice.
        penalty: What their odds are divided by, positive.

    >>> penalise(torch.zeros(1, 2), torch.tensor([[1, 1]]), 2.0).mul(10).round().tolist()
    [[0.0, -7.0]]
    """
    marked = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, heard, value=True)
    # Odds divided by p are logits less log p: the same for either sign, which dividing logits is not.
    return torch.where(marked, logits - torch.tensor(penalty).log().item(), logits)
