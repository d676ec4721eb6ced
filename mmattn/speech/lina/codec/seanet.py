"""WavTokenizer's encoder, SEANet: strided convolutions with residual blocks, then an LSTM (arXiv 2210.13438).

Convolutions pad by reflection on both sides, so that a stride of r makes ``ceil(length / r)`` frames.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ReflectConv", "ResidualLSTM", "ResidualUnit", "SEANetEncoder"]


class ReflectConv(nn.Conv1d):
    """Convolution whose input is reflected at both ends, the right end up to a whole number of strides.

    With ``total = kernel - stride``, ``total // 2`` values are added on the right, the rest on the left.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C', ceil(T / stride)) for (B, C, T), T >= 1."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total, missing = kernel - stride, -x.shape[-1] % stride
        right = total // 2
        return super().forward(reflect(x, total - right, right + missing))


class ResidualUnit(nn.Module):
    """``conv_1(x) + conv_1(elu(conv_3(elu(x))))``, half as wide inside.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ReflectConv(dim, dim // 2, 3)
        self.conv2 = ReflectConv(dim // 2, dim, 1)
        self.shortcut = ReflectConv(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, T) for (B, C, T)."""
        inner = self.conv2(functional.elu(self.conv1(functional.elu(x))))
        out: Tensor = self.shortcut(x) + inner
        return out


class ResidualLSTM(nn.Module):
    """``x + LSTM(x)`` over time.

    Args:
        dim: Channels C.
        num_layers: Of the LSTM.
    """

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, T) for (B, C, T)."""
        out: Tensor = self.lstm(x.transpose(1, 2))[0]
        return x + out.transpose(1, 2)


class SEANetEncoder(nn.Module):
    """Wave to features.

    Args:
        filters: Channels after the first convolution; each stride doubles them.
        strides: In order from the wave on; their product is the hop.
        dim: Channels D of the features.
        lstm_layers: Layers of the LSTM; 0 leaves it out.
    """

    def __init__(self, filters: int, strides: Sequence[int], dim: int, lstm_layers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ReflectConv(1, filters, 7)]
        for stride in strides:
            layers += [ResidualUnit(filters), nn.ELU(), ReflectConv(filters, 2 * filters, 2 * stride, stride)]
            filters *= 2
        if lstm_layers:
            layers.append(ResidualLSTM(filters, lstm_layers))
        layers += [nn.ELU(), ReflectConv(filters, dim, 7)]
        self.model = nn.Sequential(*layers)

    def forward(self, wave: Tensor) -> Tensor:
        """Returns features (B, D, ceil(samples / hop)) of waves (B, samples), samples >= 1."""
        features: Tensor = self.model(wave[:, None])
        return features


def reflect(x: Tensor, left: int, right: int) -> Tensor:
    """Reflects (B, C, T) at both ends; what is too short to be reflected is first continued by zeros."""
    short = max(0, max(left, right) - x.shape[-1] + 1)
    padded = functional.pad(functional.pad(x, (0, short)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - short]
