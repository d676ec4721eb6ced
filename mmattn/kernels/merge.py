"""Merging attention partials by their log-sum-exp: the identity that every sparse method here rests on."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["merge"]


def merge(partials: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Returns the attention over the union of disjoint key sets from the attention over each.

    ``L = logaddexp(l_1, l_2, ...)``, ``out = sum_s exp(l_s - L) out_s``, ``lse = L``. Where every ``l_s`` is ``-inf``
    the row attends nothing: ``out = 0``, ``lse = -inf`` and all gradients are 0. The operation is associative and
    commutative. An attention sink with logit ``b`` is the partial ``(zeros, b)``. Differentiable in all arguments.

    Args:
        partials: pairs ``out (..., Dv)``, ``lse (...)``, natural logarithm.

    Returns:
        ``out`` in the dtype of the first partial, ``lse`` in the widest lse dtype.

    Raises:
        ValueError: no partials, or shapes do not fit.

    Example:
        >>> out, lse = merge([(torch.ones(1, 2), torch.zeros(1)), (torch.zeros(1, 2), torch.zeros(1))])
        >>> out.tolist(), round(lse.item(), 4)
        ([[0.5, 0.5]], 0.6931)
    """
    if not partials:
        raise ValueError("merge needs at least one partial (out, lse)")
    for out, lse in partials:
        if out.shape[:-1] != lse.shape:
            raise ValueError(f"a partial is out (..., Dv) and lse (...), got {tuple(out.shape)} and {tuple(lse.shape)}")
    lses = torch.stack(torch.broadcast_tensors(*[lse for _, lse in partials]))
    # The peak cancels, so no gradient goes through it. In empty rows it is -inf, and -inf - -inf is NaN.
    peak = lses.detach().amax(dim=0)
    peak = torch.where(peak == -torch.inf, torch.zeros_like(peak), peak)
    weights = (lses - peak).exp()
    total = weights.sum(dim=0)
    empty = total == 0
    weights = weights / torch.where(empty, torch.ones_like(total), total)
    # log of a replaced argument: the gradient at an empty row is 0, not NaN.
    lse = torch.where(empty, -torch.inf, peak + torch.where(empty, torch.ones_like(total), total).log())
    out = torch.stack(
        [weight[..., None] * out.to(lses.dtype) for weight, (out, _) in zip(weights, partials, strict=True)]
    )
    return out.sum(dim=0).to(partials[0][0].dtype), lse
