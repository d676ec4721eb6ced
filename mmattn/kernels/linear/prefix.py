"""Prefix linear attention (JRT-RNN, arXiv 2407.05483, section 4): a prefix seen from both sides, the rest causal.

Letters: B batch, H heads, T tokens, M tokens of the prefix, D features of queries and keys, V value width.
"""

import torch
from torch import Tensor

from mmattn.kernels.linear.sequences import Layout, Mode, check_mask, check_options, compute_dtype
from mmattn.kernels.linear.ungated import linear_attention, linear_attention_step, with_ones

__all__ = ["prefix_linear_attention", "prefix_linear_attention_step"]


def prefix_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_prefix: Tensor | None = None,
    v_prefix: Tensor | None = None,
    *,
    eps: float = 1e-12,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
    prefix_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns normalised linear attention to all earlier tokens and to the whole prefix, and the state.

    ``o_i = q_i N_i / (q_i n_i + eps)`` with ``N_i = sum_{j<=i} k_j^T v_j + sum_{j<M} k'_j^T v'_j`` and ``n_i`` the same
    with 1 for the values. The tokens of the prefix appear twice: causally through ``k, v`` like all others, and as a
    whole, visible from everywhere, through projections of their own, ``k', v'``. As the whole is a constant it is just
    the state that the causal part starts from: nothing of size ``T x M`` is formed. After the prefix a token costs what
    it costs in plain linear attention.

    Time ``O(T (C (D + V) + D V))`` per head in chunks of C tokens, and ``O(M D V)`` for the prefix. Options:
    ``mmattn.kernels.linear``.

    Args:
        q: feature-mapped queries ``(B, H, T, D)``, non-negative or such that ``q k`` is (Taylor features).
        k: feature-mapped keys ``(B, H, T, D)``.
        v: values ``(B, H, T, V)``.
        k_prefix: feature-mapped keys ``(B, H, M, D)`` of the prefix, ``(N, H, M, D)`` with ``cu_seqlens``; None in
            calls after the first.
        v_prefix: values ``(B, H, M, V)`` of the prefix, or ``(N, H, M, V)``.
        eps: added to the normaliser.
        initial_state: ``(B, H, D, V + 1)``, what an earlier call returned.
        layout: ``bhtd`` or ``bthd``, of the prefix too.
        cu_seqlens: int ``(N + 1,)``, borders of packed sequences, each with a prefix of its own.
        prefix_mask: bool ``(B, M)``, or ``(N, M)``, the same for the prefix.

    Returns:
        ``o (B, H, T, V)`` in the dtype of v and the state ``(B, H, D, V + 1)``: ``N_T`` and, in the last column,
        ``n_T``; float32 or wider.

    Raises:
        ValueError: shapes or options do not fit; the message says what was given and expected.

    Example:
        >>> one = torch.ones(1, 1, 2, 1)
        >>> out, state = prefix_linear_attention(one, one, torch.tensor([[[[0.0], [3.0]]]]), one, 3 * one)
        >>> out.flatten().tolist(), state.flatten().tolist()
        ([2.0, 2.25], [9.0, 4.0])
    """
    check_options(mode, layout, chunk_size=chunk_size)
    if (k_prefix is None) != (v_prefix is None):
        raise ValueError("k_prefix and v_prefix go together, got one of them")
    if prefix_mask is not None and k_prefix is None:
        raise ValueError("prefix_mask is of k_prefix and v_prefix, got it without them")
    state = initial_state
    if k_prefix is not None and v_prefix is not None:
        _check_prefix(k, v, k_prefix, v_prefix, layout)
        added = _whole(k_prefix, v_prefix, prefix_mask, layout)
        if state is not None and state.shape != added.shape:
            raise ValueError(
                f"initial_state must be (B, H, D, V + 1) = {tuple(added.shape)} like the prefix's, "
                f"got {tuple(state.shape)}"
            )
        state = added if state is None else state + added
    return linear_attention(
        q, k, v, normalize=True, eps=eps, scale=1.0,
        initial_state=state, mode=mode, chunk_size=chunk_size, layout=layout, cu_seqlens=cu_seqlens, mask=mask,
    )  # fmt: skip


def prefix_linear_attention_step(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, *, eps: float = 1e-12
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see "Steps" in ``mmattn.kernels.linear``.

    Args:
        q: ``(B, H, D)``.
        k: ``(B, H, D)``.
        v: ``(B, H, V)``.
        state: ``(B, H, D, V + 1)``.

    Example:
        >>> one, state = torch.ones(1, 1, 1), torch.tensor([[[[9.0, 4.0]]]])
        >>> prefix_linear_attention_step(one, one, one, state)[0].item()
        2.0
    """
    return linear_attention_step(q, k, v, state, normalize=True, eps=eps, scale=1.0)


def _whole(k: Tensor, v: Tensor, mask: Tensor | None, layout: Layout) -> Tensor:
    """Returns the sums ``(B, H, D, V + 1)`` over a prefix; one more value that is always 1 sums up the normaliser."""
    if layout == "bthd":
        k, v = k.transpose(1, 2), v.transpose(1, 2)
    if mask is not None:
        check_mask(mask, k.shape[0], k.shape[2], name="prefix_mask", shape="(B, M)")
        k, v = (x.masked_fill(~mask[:, None, :, None], 0.0) for x in (k, v))
    dtype = compute_dtype(k, v)
    # Autocast would lower the precision of the state.
    with torch.autocast(v.device.type, enabled=False):
        return k.to(dtype).transpose(-1, -2) @ with_ones(v).to(dtype)


def _check_prefix(k: Tensor, v: Tensor, k_prefix: Tensor, v_prefix: Tensor, layout: Layout) -> None:
    heads = 1 if layout == "bhtd" else 2
    fits = k.ndim == v.ndim == k_prefix.ndim == v_prefix.ndim == 4 and k_prefix.shape[:3] == v_prefix.shape[:3]
    pairs = ((k, k_prefix), (v, v_prefix))
    if not fits or any((a.shape[heads], a.shape[3]) != (b.shape[heads], b.shape[3]) for a, b in pairs):
        raise ValueError(
            f"k_prefix and v_prefix must be like k and v except for their length, got k {tuple(k.shape)}, "
            f"v {tuple(v.shape)}, k_prefix {tuple(k_prefix.shape)}, v_prefix {tuple(v_prefix.shape)}"
        )
