"""Feature maps of linear attention: functions of the head dimension whose dot products replace ``exp(q k)``.

Maps with weights take them as arguments; ``FEATURE_MAPS`` names those without. A map costs ``O(D)`` time
and memory per token, with a matrix of weights ``O(K D)`` time. Letters: K width, D features.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "FEATURE_MAPS",
    "dpfp",
    "elu_plus_one",
    "exp",
    "hedgehog",
    "rebased",
    "square",
    "t2r",
    "taylor",
    "taylor_compact",
]


def elu_plus_one(x: Tensor) -> Tensor:
    """Returns ``elu(x) + 1`` of ``x (..., K)``, D = K (Katharopoulos et al., arXiv 2006.16236, Eq. 7).

    Example:
        >>> elu_plus_one(torch.tensor([0.0, 2.0])).tolist()
        [1.0, 3.0]
    """
    return functional.elu(x) + 1


def exp(x: Tensor) -> Tensor:
    """Returns ``exp(x - max x)`` of ``x (..., K)``, D = K: the largest feature of every token is 1, none overflows.

    The constant of a query cancels when outputs are normalised; that of a key evens out the sizes of keys.

    Example:
        >>> exp(torch.tensor([999.0, 999.0])).tolist()
        [1.0, 1.0]
    """
    return (x - x.amax(dim=-1, keepdim=True)).exp()


def square(x: Tensor) -> Tensor:
    """Returns ``x^2`` of ``x (..., K)``, D = K.

    Example:
        >>> square(torch.tensor([-2.0, 3.0])).tolist()
        [4.0, 9.0]
    """
    return x.square()


def taylor(x: Tensor) -> Tensor:
    """Returns ``[1, x / K^(1/4), vec(x^T x) / sqrt(2 K)]`` of ``(..., K)``, D = 1 + K + K^2 wide.

    Source: Based, arXiv 2402.18668, section 4.

    ``phi(q) . phi(k) = 1 + s + s^2 / 2`` with ``s = q . k / sqrt(K)``: ``exp(s)`` to second order, never negative.

    Example:
        >>> a, b = taylor(torch.tensor([[1.0], [2.0]]))
        >>> (a @ b).item()
        5.0
    """
    width = x.shape[-1]
    # Queries and keys carry half of the factor 1 / sqrt(K) each.
    products = (x[..., :, None] * x[..., None, :]).flatten(-2) / math.sqrt(2 * width)
    return torch.cat([torch.ones_like(x[..., :1]), x / width**0.25, products], dim=-1)


def taylor_compact(x: Tensor) -> Tensor:
    """Returns ``taylor`` of ``(..., K)`` without its repeated products, 1 + K + K (K + 1) / 2 wide; dot products agree.

    Example:
        >>> x = torch.randn(2, 4)
        >>> torch.allclose(taylor_compact(x) @ taylor_compact(x).T, taylor(x) @ taylor(x).T, rtol=1e-4)
        True
    """
    width = x.shape[-1]
    linear = x / width**0.25
    return torch.cat([torch.ones_like(x[..., :1]), linear, _products(x) / math.sqrt(width)], dim=-1)


def dpfp(x: Tensor, nu: int = 4, *, fla_compat: bool = False) -> Tensor:
    """Returns the products of ``r = [relu(x), relu(-x)]`` with its first ``nu`` rolls, D = 2 K nu.

    (Schlag et al., arXiv 2102.11174, Eq. 37.)

    Args:
        x: ``(..., K)``.
        nu: number of rolls.
        fla_compat: use ``r = [relu(x), -relu(x)]`` as flash-linear-attention does, for its checkpoints.

    Raises:
        ValueError: ``nu`` is below 1.

    Example:
        >>> dpfp(torch.tensor([2.0, 3.0]), nu=1).tolist()
        [0.0, 6.0, 0.0, 0.0]
    """
    if nu < 1:
        raise ValueError(f"nu must be at least 1, got {nu}")
    positive = x.relu()
    r = torch.cat([positive, -positive if fla_compat else (-x).relu()], dim=-1)
    return torch.cat([r * r.roll(shift, dims=-1) for shift in range(1, nu + 1)], dim=-1)


def hedgehog(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns ``softmax([2 y, -2 y])`` of ``y = W x + b``, D = 2 K (arXiv 2402.04347; W starts as the identity).

    Args:
        x: ``(..., K)``.
        weight: W ``(K, K)``.
        bias: b ``(K,)``.

    Example:
        >>> hedgehog(torch.zeros(1, 1), torch.eye(1)).tolist()
        [[0.5, 0.5]]
    """
    y = 2 * functional.linear(x, weight, bias)
    return torch.cat([y, -y], dim=-1).softmax(dim=-1)


def t2r(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns ``relu(W x + b)`` of ``x (..., K)`` with ``weight (D, K)`` (Kasai et al., arXiv 2103.13076, Eq. 7).

    Example:
        >>> t2r(torch.tensor([1.0, -1.0]), torch.eye(2)).tolist()
        [1.0, 0.0]
    """
    return functional.linear(x, weight, bias).relu()


def rebased(x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Returns the squares of a learned layer norm, ``y_i y_j`` for i <= j, D = K (K + 1) / 2 (arXiv 2402.10644).

    ``phi(q) . phi(k) = (y_q . y_k)^2 / K``.

    Args:
        x: ``(..., K)``.
        gamma: scale of the norm ``(K,)``.
        beta: shift of the norm ``(K,)``.
        eps: of the norm.

    Example:
        >>> rebased(torch.tensor([1.0, 3.0]), torch.ones(2), torch.zeros(2)).mul(10).round().tolist()
        [7.0, 7.0, -10.0]
    """
    y = functional.layer_norm(x, x.shape[-1:], gamma, beta, eps)
    return _products(y) * math.sqrt(2 / x.shape[-1])


def _products(x: Tensor) -> Tensor:
    """Returns ``[x_i^2 / sqrt(2), x_i x_j for i < j]``: features whose dot product is ``(x . y)^2 / 2``."""
    rows, columns = torch.triu_indices(x.shape[-1], x.shape[-1], offset=1, device=x.device)
    return torch.cat([x.square() / math.sqrt(2), x[..., rows] * x[..., columns]], dim=-1)


FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "elu+1": elu_plus_one,
    "relu": functional.relu,
    "softplus": functional.softplus,
    "exp": exp,
    "square": square,
    "taylor": taylor,
    "taylor_compact": taylor_compact,
    "dpfp": dpfp,
}
"""The maps without weights, by name."""
