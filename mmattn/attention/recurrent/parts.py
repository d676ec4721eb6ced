"""What layers over streams of tokens ``(B, T, dim)`` do with their inputs: check them, take out padding, split heads.

Letters: B batch, T tokens, H heads, D width of a head.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.kernels.linear.sequences import Mode, check_mask

__all__ = [
    "GatedHeadNorm",
    "Kernel",
    "ShortConv",
    "check_heads",
    "check_input",
    "merge_heads",
    "recur",
    "split_heads",
    "without_padding",
]

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
    """Returns ``(B, T, H D)`` of ``(B, H, T, D)``.

    Example:
        >>> merge_heads(torch.zeros(1, 2, 5, 3)).shape
        torch.Size([1, 5, 6])
    """
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


class GatedHeadNorm(nn.Module):
    """RMS norm over the head width with one scale shared by all heads, optionally times ``swish(gate)``.

    Args:
        dim: V, the head width.
        eps: added to the mean square.

    Example:
        >>> GatedHeadNorm(2)(torch.tensor([[3.0, 3.0]])).round().tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Returns ``(..., V)``, normalised and, with ``gate (..., V)``, gated."""
        x = functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        return x if gate is None else x * functional.silu(gate)


class ShortConv(nn.Conv1d):
    """SiLU of a causal depthwise convolution without bias; its weight ``(channels, 1, kernel)`` is fla's.

    Time ``O(T channels kernel)``.

    Args:
        channels: width of the input.
        kernel: tokens seen, the current one included.

    Example:
        >>> conv = ShortConv(2)
        >>> out, cache = conv(torch.ones(1, 3, 2))
        >>> out.shape, cache.shape
        (torch.Size([1, 3, 2]), torch.Size([1, 2, 4]))
    """

    def __init__(self, channels: int, kernel: int = 4) -> None:
        super().__init__(channels, channels, kernel, groups=channels, bias=False)

    def forward(self, x: Tensor, cache: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Returns the output ``(B, T, channels)`` and the last inputs ``(B, channels, kernel)``, newest last.

        Args:
            x: ``(B, T, channels)``.
            cache: what an earlier call returned, not changed; None stands for zeros.
        """
        kernel = self.kernel_size[0]
        if cache is None:
            cache = x.new_zeros(x.shape[0], x.shape[2], kernel)
        if x.shape[1] == 0:
            return x, cache
        inputs = torch.cat([cache, x.transpose(1, 2)], dim=2)
        if x.shape[1] == 1:
            out = (inputs[:, :, 1:] * self.weight[:, 0]).sum(dim=2, keepdim=True)
        else:
            out = functional.conv1d(inputs[:, :, 1:], self.weight, groups=self.groups)
        # A view would keep the whole stream alive.
        return functional.silu(out).transpose(1, 2), inputs[:, :, inputs.shape[2] - kernel :].clone()
