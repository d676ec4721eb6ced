"""What is added to the scores of attention between the product ``q k^T`` and the softmax, and in which order.

``s = scale q k^T``, then ``s = cap tanh(s / cap)`` (softcap), then ``s = s - slope |p_i - j| + bias`` (ALiBi, bias),
then the mask. This is the order of Gemma-2 (arXiv 2408.00118, section 2) and of flash-attn: the cap sees neither bias
nor mask. ALiBi: arXiv 2108.12409.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.kernels.block_index import BlockIndex

__all__ = ["NO_TERMS", "ScoreTerms", "aligned_positions", "fold_scale", "score_terms"]


class ScoreTerms(NamedTuple):
    """The terms of one call; None where there is none.

    ``bias (B|1, H|1, Tq|1, Tk|1)``; ``slopes (B|1, H)``; ``softcap`` positive.
    """

    bias: Tensor | None = None
    slopes: Tensor | None = None
    softcap: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments of ``attention`` that are set."""
        named = zip(("bias", "alibi_slopes", "softcap"), self, strict=True)
        return tuple(name for name, value in named if value is not None)


NO_TERMS = ScoreTerms()


def score_terms(
    q: Tensor, k: Tensor, bias: Tensor | None, alibi_slopes: Tensor | None, softcap: float | None
) -> ScoreTerms:
    """Returns the terms of a call with q ``(B, H, Tq, D)`` and k ``(B, Hkv, Tk, D)``, checked.

    Args:
        q: queries.
        k: keys.
        bias: floating, broadcastable to ``(B, H, Tq, Tk)``.
        alibi_slopes: floating ``(H,)`` or ``(B, H)``.
        softcap: positive number.

    Raises:
        ValueError: a shape, dtype, device or number does not fit.
    """
    (batch, heads, q_len), k_len = q.shape[:3], k.shape[2]
    if bias is not None:
        shape = (batch, heads, q_len, k_len)
        if bias.dtype == torch.bool:
            raise ValueError(
                "bias is added to the scores and must be floating, got a bool mask; a mask of tokens (True = may see) "
                "is BlockIndex.from_mask(mask, q_block=1, k_block=1), given as blocks"
            )
        _check_floating("bias", bias, q)
        if bias.ndim > 4 or any(n not in (1, m) for n, m in zip(bias.shape[::-1], shape[::-1], strict=False)):
            raise ValueError(
                f"bias must be broadcastable to (B, H, Tq, Tk) = {shape}, got {tuple(bias.shape)}; "
                "one number per head is (H, 1, 1)"
            )
        bias = bias.reshape((1,) * (4 - bias.ndim) + bias.shape)
    if alibi_slopes is not None:
        _check_floating("alibi_slopes", alibi_slopes, q)
        if tuple(alibi_slopes.shape) not in ((heads,), (1, heads), (batch, heads)):
            raise ValueError(
                f"alibi_slopes must be (H,) or (B, H) with B {batch}, H {heads}, got {tuple(alibi_slopes.shape)}"
            )
        alibi_slopes = alibi_slopes.reshape(-1, heads) if alibi_slopes.ndim == 1 else alibi_slopes
    if softcap is not None and not 0.0 < softcap < float("inf"):
        raise ValueError(f"softcap must be a positive number, or None for no cap (flash-attn's 0.0), got {softcap}")
    return ScoreTerms(bias, alibi_slopes, None if softcap is None else float(softcap))


def fold_scale(q: Tensor, scale: Tensor) -> Tensor:
    """Returns ``scale * q`` in the dtype of q ``(B, H, Tq, D)``: a learned scale on any backend, with its gradient.

    Args:
        q: queries.
        scale: floating ``()``, ``(H,)``, or broadcastable to ``(B, H, Tq, 1)``.

    Raises:
        ValueError: the shape, dtype or device does not fit.
    """
    _check_floating("scale", scale, q)
    by_head = scale[:, None, None] if scale.ndim == 1 else scale
    shape = (*q.shape[:3], 1)
    if by_head.ndim > 4 or any(n not in (1, m) for n, m in zip(by_head.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"scale must be a number, () or (H,), or broadcastable to (B, H, Tq, 1) = {shape}, got {tuple(scale.shape)}"
        )
    return (q * by_head).to(q.dtype)


def aligned_positions(q_len: int, k_len: int, device: torch.device, blocks: BlockIndex | None = None) -> Tensor:
    """Returns ``p_i``, the key position that stands for each query, int64 ``(q_len,)``: bottom-right alignment.

    With documents the ends meet inside each document, as they do for its causal mask.
    """
    query = torch.arange(q_len, device=device)
    if blocks is None or blocks.cu_q is None or blocks.cu_k is None:
        return query + (k_len - q_len)
    cu_q, cu_k = blocks.cu_q.long(), blocks.cu_k.long()
    stop = torch.searchsorted(cu_q, query, right=True)
    return query - cu_q[stop] + cu_k[stop]


def _check_floating(name: str, x: Tensor, q: Tensor) -> None:
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} must be floating, got {x.dtype}")
    if x.device != q.device and x.ndim:
        raise ValueError(f"{name} is on {x.device}, q on {q.device}; move it with .to(q.device)")
