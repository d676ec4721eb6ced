"""The delta rule (DeltaNet, arXiv 2406.06484; gated, arXiv 2412.06464): a state that corrects what it stored.

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk.
"""

from functools import partial

from torch import Tensor

from mmattn.kernels.linear.delta_chunks import delta_chunks
from mmattn.kernels.linear.one_token import cast, read, update
from mmattn.kernels.linear.sequences import Layout, Mode, Options, over_sequences
from mmattn.kernels.linear.token_by_token import delta_recurrence
from mmattn.kernels.states import trainable

__all__ = ["delta_rule", "delta_rule_step", "gated_delta_rule", "gated_delta_rule_step"]


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns ``o_t = scale q_t S_t`` with ``S_t = S_{t-1} + beta_t k_t^T (v_t - k_t S_{t-1})`` and ``S_T``.

    (arXiv 2406.06484, section 2.2.) The state answers ``k_t`` with ``k_t S_{t-1}``; a step of size beta moves this
    answer towards ``v_t``. Mode ``chunk`` solves one unit lower triangular system per chunk of C tokens (section 3.2):
    time ``O(T (C (K + V) + K V))`` per head. Options, results and memory: ``mmattn.kernels.linear``.

    Args:
        q: queries ``(B, H, T, K)``, floating point.
        k: keys ``(B, H, T, K)``, of unit length, or else the recurrence may diverge.
        v: values ``(B, H, T, V)``.
        beta: step sizes ``(B, H, T)``, in (0, 1), or (0, 2) to let the state reflect.

    Raises:
        ValueError: shapes or options do not fit; the message says what was given and expected.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = delta_rule(one, one, 8 * one, torch.full((1, 1, 3), 0.5))
        >>> out.flatten().tolist(), state.item()
        ([4.0, 6.0, 7.0], 7.0)
    """
    options = Options(scale, initial_state, mode, layout, cu_seqlens, mask)
    options.check(chunk_size=chunk_size)
    chunks = partial(delta_chunks, chunk_size=chunk_size)
    return over_sequences({"q": q, "k": k, "v": v, "beta": beta}, options, naive=delta_recurrence, chunks=chunks)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    mode: Mode = "auto",
    chunk_size: int = 64,
    layout: Layout = "bhtd",
    cu_seqlens: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the delta rule on a state that decays first: ``exp(g_t) S_{t-1}`` takes the place of ``S_{t-1}``.

    ``S_t = exp(g_t) S_{t-1} + beta_t k_t^T (v_t - k_t exp(g_t) S_{t-1})`` (Gated DeltaNet, arXiv 2412.06464, Eq. 10).
    Costs are those of ``delta_rule``.

    Args:
        q: as in ``delta_rule``, as are k, v and beta.
        g: logarithms of the decays ``(B, H, T)``, <= 0.

    Raises:
        ValueError: shapes or options do not fit, or a gate is positive; the message says what was given and expected.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 2, 1)
        >>> half = torch.full((1, 1, 2), 0.5)
        >>> out, state = gated_delta_rule(one, one, 8 * one, half.log(), half)
        >>> out.flatten().tolist(), state.item()
        ([4.0, 5.0], 5.0)
    """
    options = Options(scale, initial_state, mode, layout, cu_seqlens, mask)
    options.check(chunk_size=chunk_size)
    chunks = partial(delta_chunks, chunk_size=chunk_size)
    return over_sequences(
        {"q": q, "k": k, "v": v, "beta": beta, "g": g}, options, naive=delta_recurrence, chunks=chunks
    )


def delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see "Steps" in ``mmattn.kernels.linear``.

    Args:
        q: ``(B, H, K)``.
        k: ``(B, H, K)``.
        v: ``(B, H, V)``.
        beta: ``(B, H)``.
        state: ``(B, H, K, V)``.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 1)
        >>> delta_rule_step(one, one, 8 * one, 0.5 * one[0], torch.zeros(1, 1, 1, 1))[0].item()
        4.0
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype, state = v.dtype, trainable(state)
    q, k, v, beta = cast(state.dtype, q, k, v, beta)
    state = update(state, None, k, beta[..., None] * (v - read(k, state, 1.0, v)))
    return read(q, state, scale, v).to(dtype), state


def gated_delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the output for one more token and the new state; see ``delta_rule_step``.

    Args:
        q: ``(B, H, K)``, as are the other tensors there.
        g: ``(B, H)``, <= 0.

    Example:
        >>> import torch
        >>> one, half = torch.ones(1, 1, 1), torch.full((1, 1), 0.5)
        >>> gated_delta_rule_step(one, one, 8 * one, half.log(), half, 4 * one[None])[0].item()
        5.0
    """
    return delta_rule_step(q, k, v, beta, state * g.to(state.dtype).exp()[..., None, None], scale=scale)
