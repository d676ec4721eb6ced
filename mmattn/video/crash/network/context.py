"""Context-aware branch: the frame embedding is folded to a plane and filtered in the frequency domain.

Source: arXiv 2407.17757 and ``SpectralGatingNetwork`` of Petrichor625/CRASH. It reads one frame only, so a whole clip
goes through it at once. Time O(D log D) a frame.

Shapes: ``...`` any leading axes, D width, (a, b) the plane with a * b = D, C = 3 channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmattn.kernels.products import Linear, Packable, Packed

__all__ = ["ChannelAttention", "ContextBranch", "SpectralGate"]

_CHANNELS = 3


class ChannelAttention(nn.Module):
    """Scales channels by a gate in (0, 1) made from their means and maxima (squeeze and excitation).

    Without bottleneck units the gate is sigmoid(0) = 0.5 for every channel and there is nothing to learn.

    Args:
        channels: Channels C.
        units: Width of the bottleneck; 0 makes the constant.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * channels, units, bias=False) if units else None
        self.fc2 = nn.Linear(units, channels, bias=False) if units else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the scaled (B, C, h, w)."""
        if self.fc1 is None or self.fc2 is None:
            return 0.5 * x
        pooled = torch.cat([x.mean(dim=(-2, -1)), x.amax(dim=(-2, -1))], dim=-1)
        gate = self.fc2(self.fc1(pooled).relu()).sigmoid()
        return x * gate[..., None, None]


class SpectralGate(nn.Module):
    """Learned filter on the 2-D spectrum of a vector of width D.

    Always in float32 or better: half precision has no FFT on the CPU, and on CUDA only for powers of two.

    Args:
        grid: (a, b).
        attention_units: Bottleneck of the channel attention; 0 reproduces the published code.
        init: "noise" starts the filter at 0.02 randn, "identity" at 1 plus that.
    """

    def __init__(
        self, grid: tuple[int, int], attention_units: int = 0, init: Literal["noise", "identity"] = "noise"
    ) -> None:
        super().__init__()
        self.grid = grid
        weight = 0.02 * torch.randn(grid[0], grid[1] // 2 + 1, _CHANNELS, 2)
        if init == "identity":
            weight[..., 0] += 1.0
        self.complex_weight = nn.Parameter(weight)
        self.expand = nn.Conv1d(1, _CHANNELS, kernel_size=1)
        self.channel_attention = ChannelAttention(2 * _CHANNELS, attention_units)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the filtered (..., D) of ``x`` (..., D), in its dtype."""
        with torch.autocast(x.device.type, enabled=False):
            precise = x.to(torch.promote_types(x.dtype, torch.float32))
            return self._filter(precise.reshape(-1, x.shape[-1])).reshape(x.shape).to(x.dtype)

    def _filter(self, x: Tensor) -> Tensor:
        # A convolution of one channel and width one, without the cost of calling one.
        weight, bias = self.expand.parameters()
        channels = torch.addcmul(bias[:, None], weight[..., 0], x[:, None])  # (R, C, D)
        # The published code reads this memory as (R, D, C), a view and no transpose: channels and places mix.
        plane = channels.reshape(-1, *self.grid, _CHANNELS)
        spectrum = torch.fft.rfft2(plane, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.complex_weight)
        if self.channel_attention.fc1 is None:
            spectrum = 0.5 * spectrum
        else:
            parts = torch.cat([spectrum.real, spectrum.imag], dim=-1).permute(0, 3, 1, 2)  # (R, 2C, a, b/2 + 1)
            real, imaginary = self.channel_attention(parts).permute(0, 2, 3, 1).chunk(2, dim=-1)
            spectrum = torch.complex(real.contiguous(), imaginary.contiguous())
        # The inverse is linear: the mean over the channels may come first and leaves one plane to transform.
        return torch.fft.irfft2(spectrum.mean(dim=-1), s=self.grid, dim=(1, 2), norm="ortho").flatten(1)


class ContextBranch(Packable):
    """The spectral gate, then a linear layer and ReLU.

    Args:
        dim: Width D.
        grid: (a, b).
        attention_units: See :class:`SpectralGate`.
        init: See :class:`SpectralGate`.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        attention_units: int = 0,
        init: Literal["noise", "identity"] = "noise",
    ) -> None:
        super().__init__()
        self.gate = SpectralGate(grid, attention_units, init)
        self.project = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the context features (..., D), not negative, of frame embeddings (..., D)."""
        if self.packed is not None and self.packed.serves(x):
            weight, bias = self.packed.value
            return (x @ weight + bias).relu()
        return self.project(self.gate(x)).relu()

    @torch.no_grad()
    def pack(self) -> None:
        """Makes one matrix of gate and layer, which are both affine unless a bottleneck scales the channels."""
        if self.gate.channel_attention.fc1 is not None:
            return
        weight = self.project.weight
        zero = weight.new_zeros(1, weight.shape[1])
        offset = self.gate(zero)
        columns = self.gate(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)) - offset
        self.packed = Packed((columns @ weight.T, self.project(offset)[0]), self.parameters())
