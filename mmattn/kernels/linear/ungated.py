"""Linear attention (Katharopoulos et al., arXiv 2006.16236): feature maps instead of the softmax, a sum as the state.

Letters: B batch, H heads, T tokens, K key width, D features, V value width, C tokens of a chunk.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmattn.kernels.linear.feature_maps import FEATURE_MAPS
from mmattn.kernels.linear.one_token import cast, read, update
from mmattn.kernels.linear.scalar_chunks import scalar_chunks
from mmattn.kernels.linear.sequences import Kernel, Layout, Mode, Options, over_sequences
from mmattn.kernels.linear.token_by_token import gated_recurrence
from mmattn.kernels.states import trainable

__all__ = ["linear_attention", "linear_attention_step", "with_ones"]

FeatureMap = str | Callable[[Tensor], Tensor]


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    feature_map: FeatureMap = "identity",
    normalize: bool = False,
    eps: float = 1e-10,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns ``o_t = scale phi(q_t) S_t`` with ``S_t = S_{t-1} + phi(k_t)^T v_t`` for all tokens, and ``S_T``.

    Normalised, ``o_t`` is divided by ``scale phi(q_t) . z_t + eps`` with ``z_t = z_{t-1} + phi(k_t)`` (arXiv
    2006.16236, Eq. 18-20), which needs features whose products are not negative; ``z`` is then the last column of the
    state. Time ``O(T (C (D + V) + D V))`` per head in mode ``chunk``. Options, results and memory:
    ``mmattn.kernels.linear``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``.
        v: values ``(B, H, T, V)``.
        feature_map: phi, a name in ``FEATURE_MAPS`` or a function ``(..., K) -> (..., D)``.
        normalize: whether the weights of a token are divided by their sum.
        eps: added to that sum.
        scale: multiplies ``phi(q)``, default ``1 / sqrt(D)``.
        initial_state: ``(B, H, D, V)``, normalised ``(B, H, D, V + 1)``.
        mask: bool ``(B, T)``, False at padding, which is left out after the feature map.

    Raises:
        ValueError: shapes or options do not fit; the message says what was given and expected.

    Example:
        >>> one = torch.ones(1, 1, 2, 1)
        >>> out, state = linear_attention(one, one, torch.tensor([[[[1.0], [3.0]]]]), normalize=True)
        >>> out.flatten().tolist(), state.flatten().tolist()
        ([1.0, 2.0], [4.0, 2.0])
    """
    options = Options(scale, initial_state, mode, layout, cu_seqlens, mask)
    options.check(chunk_size=chunk_size)
    phi = _map(feature_map)
    naive: Kernel = gated_recurrence
    chunks: Kernel = partial(scalar_chunks, chunk_size=chunk_size)
    if normalize:
        v = with_ones(v)
        naive, chunks = (partial(_normalized_by, kernel=kernel, eps=eps) for kernel in (naive, chunks))
    return over_sequences({"q": phi(q), "k": phi(k), "v": v}, options, naive=naive, chunks=chunks)


def linear_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    *,
    feature_map: FeatureMap = "identity",
    normalize: bool = False,
    eps: float = 1e-10,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see "Steps" in ``mmattn.kernels.linear``.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        state: ``(B, H, D, V)``, normalised ``(B, H, D, V + 1)``.
        feature_map: as in ``linear_attention``, as are the other options.

    Raises:
        ValueError: the feature map is not known by that name.

    Example:
        >>> one, state = torch.ones(1, 1, 1), torch.tensor([[[[4.0, 2.0]]]])
        >>> linear_attention_step(one, one, 5 * one, state, normalize=True)
        (tensor([[[3.]]]), tensor([[[[9., 3.]]]]))
    """
    phi = _map(feature_map)
    q, k, values = cast(state.dtype, phi(q), phi(k), v)
    values = with_ones(values) if normalize else values
    state = update(trainable(state), None, k, values)
    out = read(q, state, q.shape[-1] ** -0.5 if scale is None else scale, values)
    return (_normalized(out, eps) if normalize else out).to(v.dtype), state


def _map(feature_map: FeatureMap) -> Callable[[Tensor], Tensor]:
    if not isinstance(feature_map, str):
        return feature_map
    if feature_map not in FEATURE_MAPS:
        raise ValueError(f"feature_map must be a function or one of {', '.join(FEATURE_MAPS)}, got {feature_map!r}")
    return FEATURE_MAPS[feature_map]


def with_ones(v: Tensor) -> Tensor:
    """Returns ``(..., V + 1)`` of ``v (..., V)``: a value that is always 1 sums up the weights."""
    return torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)


def _normalized(sums: Tensor, eps: float) -> Tensor:
    return sums[..., :-1] / (sums[..., -1:] + eps)


def _normalized_by(*tensors: Tensor, kernel: Kernel, eps: float, **options: Any) -> tuple[Tensor, Tensor]:
    out, state = kernel(*tensors, **options)
    return _normalized(out, eps), state
