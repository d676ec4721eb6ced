"""``attention``: softmax attention under a block mask, with its log-sum-exp, on the fastest backend that fits."""

from functools import lru_cache, partial
from importlib import import_module
from typing import Literal, overload

import torch
from torch import Tensor

from mmattn.kernels.backends import reference
from mmattn.kernels.backends.fallbacks import Attend, all_finite, is_traced, keep_out
from mmattn.kernels.backends.resolve import Backend, resolve
from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.score_terms import ScoreTerms, fold_scale, score_terms
from mmattn.kernels.windows import Window, sides

__all__ = ["attention"]

# Backends that need no index for a mask without blocks and window.
_DENSE = ("reference", "cpu", "scored")
_PLAIN = ((-1, -1), (-1, 0))


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockIndex | None = None,
    *,
    causal: bool | None = None,
    window: Window | None = None,
    scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float | None = None,
    return_lse: Literal[False] = False,
    backend: Backend = "auto",
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockIndex | None = None,
    *,
    causal: bool | None = None,
    window: Window | None = None,
    scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float | None = None,
    return_lse: Literal[True],
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockIndex | None = None,
    *,
    causal: bool | None = None,
    window: Window | None = None,
    scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float | None = None,
    return_lse: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Returns ``softmax(scale q k^T + mask) v``, and on request the log-sum-exp of every row.

    With all terms the scores are ``cap tanh(scale q k^T / cap) - slope |i + Tk - Tq - j| + bias + mask``, cap being
    ``softcap`` and slope one of ``alibi_slopes``. Rows that attend nothing give ``out = 0``, ``lse = -inf`` and zero
    gradients. Both outputs are differentiable with respect to q, k, v, and to scale, bias and alibi_slopes where these
    are tensors. Time and memory are proportional to the selected blocks; nothing of size Tq x Tk is stored (backend
    ``reference`` and a bias of that size excepted).

    What stands at a masked place reaches nothing: a key or value that is NaN or infinite makes the rows NaN that attend
    it, and no other (backend ``flex`` excepted). Gradients may be differentiated again, and compilers, exporters,
    ``torch.func`` transforms and fake tensors work: all of them run the definition, with O(Tq Tk) memory. Under
    autocast q, k and v are cast as those of ``scaled_dot_product_attention``.

    Args:
        q: ``(B, H, Tq, D)`` float64, float32, float16 or bfloat16.
        k: ``(B, Hkv, Tk, D)``, H a multiple of Hkv; query head ``h`` reads key head ``h // (H / Hkv)``.
        v: ``(B, Hkv, Tk, Dv)``.
        blocks: the mask; it carries its own predicate, so ``causal`` and ``window`` must then be left out.
        causal: key ``j`` is visible to query ``i`` if ``j <= p`` with ``p = i + Tk - Tq`` (bottom-right alignment).
        window: a number of keys is a *causal* window: key ``j`` is visible if ``0 <= p - j < window``. A pair
            ``(left, right)`` shows ``left`` keys before and ``right`` keys after ``p``, -1 for all of them, as in
            flash-attn. A window of the past that shows all later keys is ``(window - 1, -1)``, or
            ``causal=False`` beside the number.
        scale: multiplies the scores, default ``1 / sqrt(D)``; a tensor ``()``, ``(H,)`` or one that broadcasts to
            ``(B, H, Tq, 1)`` multiplies q and keeps its gradient.
        bias: floating, broadcastable to ``(B, H, Tq, Tk)``; ``-inf`` hides a key.
        alibi_slopes: ``(H,)`` or ``(B, H)``; with documents the distance counts inside each of them.
        softcap: positive; bounds the scaled scores, before slopes, bias and mask.
        return_lse: also return ``lse``.
        backend: ``auto`` takes Triton on CUDA and the gather path on the CPU (``backends.resolve`` explains);
            ``reference`` is the dense definition, ``flex`` PyTorch's FlexAttention, ``scored`` the form for bias,
            slopes and softcap, which ``auto`` takes on every device when one of them is given.

    Returns:
        ``out (B, H, Tq, Dv)`` in the dtype of q, or ``(out, lse)`` with ``lse (B, H, Tq)``, natural logarithm, float32
        (float64 for float64 inputs).

    Raises:
        ValueError: shapes, dtypes, devices or options do not fit; the message says what was given and expected.

    Example:
        >>> x = torch.eye(3)[None, None]
        >>> attention(x, x, x, causal=True, scale=0.0)[0, 0, 1].tolist()
        [0.5, 0.5, 0.0]
    """
    q, k, v = _autocast(q, k, v)
    _check_tensors(q, k, v)
    _check_mask(q, k, blocks, causal, window)
    span, terms = sides(window, causal), score_terms(q, k, bias, alibi_slopes, softcap)
    if isinstance(scale, Tensor):
        q, scale = fold_scale(q, scale), 1.0
    # A scale of 0 is allowed and makes the softmax uniform, so None and not 0 stands for the default.
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if is_traced([x for x in (q, k, v, terms.bias, terms.slopes) if x is not None]):
        return _chosen(_definition(q, k, v, blocks, span, scale, terms), return_lse)
    chosen = resolve(q, backend, terms=terms.names)
    if return_lse and chosen.name == "flex":
        raise ValueError("backend 'flex' does not return lse; use backend='auto', or return_lse=False")
    if blocks is None:
        k, v, span, terms = _within_reach(q, k, v, span, terms)
    # Imported by name: Triton and FlexAttention are loaded where they run, and only there.
    module = import_module(f"mmattn.kernels.backends.{chosen.name}")
    # Backends without terms never see any: ``resolve`` refuses them.
    added = {"terms": terms} if terms.names else {}
    attend: Attend
    if blocks is None and span in _PLAIN and chosen.name in _DENSE:
        attend = partial(module.dense_attention, causal=span == (-1, 0), scale=scale, **added)
    else:
        blocks = _built_in(q.shape[2], k.shape[2], span, q.device) if blocks is None else blocks
        attend = partial(module.block_sparse_attention, blocks=blocks, scale=scale, **added)
    result = attend(q, k, v)
    # Without a mask there is nothing to keep out. Gradients can be spoilt by what the output does not show.
    is_masked = blocks is not None or (span != (-1, -1) and q.shape[2] > 1)
    if is_masked and chosen.name == "cpu" and not all_finite(*((k, v) if result[0].requires_grad else result[:1])):
        result = keep_out(attend, q, k, v)
    return _chosen(result, return_lse)


def _within_reach(
    q: Tensor, k: Tensor, v: Tensor, span: tuple[int, int], terms: ScoreTerms
) -> tuple[Tensor, Tensor, tuple[int, int], ScoreTerms]:
    """Returns the keys and values that any query's window reaches, and what is left of the window and terms there."""
    left, right = span
    unseen = k.shape[2] - q.shape[2] - left
    if left >= 0 and unseen > 0:
        k, v = k[:, :, unseen:], v[:, :, unseen:]
        if terms.bias is not None and terms.bias.shape[3] > 1:
            terms = terms._replace(bias=terms.bias[..., unseen:])
    # One query stands behind all keys that are left.
    if q.shape[2] == 1 and left >= k.shape[2] - 1:
        left = right = -1
    return k, v, (left, right), terms


def _chosen(result: tuple[Tensor, Tensor], return_lse: bool) -> Tensor | tuple[Tensor, Tensor]:
    return result if return_lse else result[0]


def _definition(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockIndex | None,
    span: tuple[int, int],
    scale: float,
    terms: ScoreTerms,
) -> tuple[Tensor, Tensor]:
    if blocks is None:
        return reference.dense_attention(q, k, v, window=span, scale=scale, terms=terms)
    return reference.block_sparse_attention(q, k, v, blocks, scale=scale, terms=terms)


def _autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns q, k, v in the dtype of an active autocast region, as ``scaled_dot_product_attention`` takes them."""
    device = q.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return q, k, v
    dtype = torch.get_autocast_dtype(device)
    cast = (x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in (q, k, v))
    return tuple(cast)  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _built_in(q_len: int, k_len: int, span: tuple[int, int], device: torch.device) -> BlockIndex:
    """Returns the index of a built-in mask; kept, so that all layers of a model share what is derived from it."""
    return BlockIndex.all_blocks(q_len, k_len, window=span, device=device)


def _check_mask(q: Tensor, k: Tensor, blocks: object, causal: bool | None, window: object) -> None:
    if isinstance(blocks, Tensor):
        raise ValueError(
            f"blocks must be a BlockIndex, got a {blocks.dtype} tensor {tuple(blocks.shape)}; a bool mask of tokens is "
            "BlockIndex.from_mask(mask, q_block=1, k_block=1), an additive one is bias="
        )
    if blocks is not None and not isinstance(blocks, BlockIndex):
        raise ValueError(f"blocks must be a BlockIndex, got {type(blocks).__name__}")
    if blocks is not None and (causal or window is not None):
        raise ValueError("blocks carry their own predicate: build it with causal/window instead of passing both")
    if blocks is not None:
        _check_blocks(q, k, blocks)


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(f"q, k, v must be (B, H, T, D), {shapes}")
    if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
        raise ValueError(f"q, k, v must share one floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k, v must be on one device, got {q.device}, {k.device}, {v.device}")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ValueError(f"q, k, v must share the batch size, {shapes}")
    if k.shape[1:3] != v.shape[1:3]:
        raise ValueError(f"k and v must share heads and length, {shapes}")
    if q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k must share the head dimension, {shapes}")
    if q.shape[3] == 0:
        raise ValueError(f"q and k need at least one channel, {shapes}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"the number of query heads must be a multiple of that of key heads, {shapes}")


def _check_blocks(q: Tensor, k: Tensor, blocks: BlockIndex) -> None:
    if (blocks.q_len, blocks.k_len) != (q.shape[2], k.shape[2]):
        raise ValueError(
            f"blocks are for {blocks.q_len} queries and {blocks.k_len} keys, got {q.shape[2]} and {k.shape[2]}"
        )
    if blocks.batch_size not in (1, q.shape[0]) or blocks.index.shape[1] not in (1, q.shape[1]):
        raise ValueError(
            f"blocks are for batch {blocks.batch_size} and {blocks.index.shape[1]} heads (1 = shared), "
            f"got batch {q.shape[0]} and {q.shape[1]} query heads"
        )
    if blocks.device != q.device:
        raise ValueError(f"blocks are on {blocks.device}, q on {q.device}; move them with blocks.to(q.device)")
