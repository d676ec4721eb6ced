"""The short causal convolution before a recurrent mixer, over a whole sequence or token by token."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ShortConv"]


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
        return functional.silu(out).transpose(1, 2), inputs[:, :, inputs.shape[2] - kernel :]
