"""What layers over streams of tokens ``(B, T, dim)`` do with their inputs: check them, take out padding, split heads.

Letters: B batch, T tokens, H heads, D width of a head.
"""

from collections.abc import Callable

from torch import Tensor

from mmattn.kernels.linear.sequences import Mode, check_mask

__all__ = ["Kernel", "check_heads", "check_input", "merge_heads", "recur", "split_heads", "without_padding"]

Kernel = Callable[..., tuple[Tensor, Tensor]]
"""A recurrence over tokens, or one step of it: output and new state."""


def check_heads(num_heads: int, key_dim: int, value_dim: int) -> None:
    """Requires heads of whole channels.

    Raises:
        ValueError: heads do not divide the widths.
    """
    if num_heads < 1 or key_dim % num_heads or value_dim % num_heads:
        raise ValueError(f"{num_heads} heads do not divide keys of width {key_dim} and values of width {value_dim}")


def check_input(x: Tensor, dim: int) -> None:
    """Requires a batch of streams.

    Raises:
        ValueError: x is not ``(B, T, dim)``.
    """
    if x.ndim != 3 or x.shape[2] != dim:
        raise ValueError(f"x must be (B, T, {dim}), got {tuple(x.shape)}")


def without_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Returns ``x (B, T, D)`` with 0 where ``mask (B, T)`` is False, whatever stands there.

    Raises:
        ValueError: the mask is not bool ``(B, T)``.
    """
    if mask is None:
        return x
    check_mask(mask, x.shape[0], x.shape[1])
    return x.masked_fill(~mask[..., None], 0.0)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Returns ``(B, H, T, D)`` of ``(B, T, H D)``.

    Example:
        >>> import torch
        >>> split_heads(torch.zeros(1, 5, 6), 2).shape
        torch.Size([1, 2, 5, 3])
    """
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Returns ``(B, T, H D)`` of ``(B, H, T, D)``."""
    return x.transpose(1, 2).flatten(2)


def recur(
    kernel: Kernel,
    step: Kernel,
    tensors: tuple[Tensor, ...],
    state: Tensor | None,
    *,
    mode: Mode,
    chunk_size: int,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Returns output ``(B, H, T, V)`` and new state: one step for a token that goes on, the kernel for all else.

    Args:
        kernel: over ``tensors``, with ``initial_state``, ``mode``, ``chunk_size`` and ``mask``.
        step: the same for one token, with ``state``.
        tensors: q, k, v and gates, ``(B, H, T, ...)`` each.
        state: ``(B, H, K, V)``, not changed; None starts a stream.
        mode: of the kernel.
        chunk_size: of the kernel.
        mask: bool ``(B, T)``, or None.
    """
    if tensors[0].shape[2] == 1 and mask is None and state is not None:
        out, state = step(*(x[:, :, 0] for x in tensors), state=state)
        return out[:, :, None], state
    return kernel(*tensors, initial_state=state, mode=mode, chunk_size=chunk_size, mask=mask)
