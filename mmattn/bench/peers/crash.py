"""CRASH as its description reads: one frame after the other, everything a frame needs computed when it arrives.

This is the straightforward form of arXiv 2407.17757 and of the public code Petrichor625/CRASH (repaired where that does
not run), with its parameter names, so that published weights load as they are. The fast form in ``mmattn.video.crash``
is measured against it. Dropout is left out; both are compared at evaluation or with dropout 0.

Shapes: B clips, T frames, N boxes, D width, L GRU layers, K states in the window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.video.crash.network.heads import positional_encoding

__all__ = ["PerStepCrash", "PerStepOutput"]


class PerStepOutput(NamedTuple):
    """Everything the fixtures hold of one run.

    Attributes:
        logits: (B, T, 2).
        hidden: (T, L, B, D) after each frame.
        objects: (B, T, D) of the object attention.
        filtered: (B, T, D) of the spectral gate.
        context: (B, T, D) after the layer that follows it.
        focused: (T - 2, L, B, D) of the temporal attention, from the third frame on.
        video: (B, 2D).
        aux_logits: (B, 2).
    """

    logits: Tensor
    hidden: Tensor
    objects: Tensor
    filtered: Tensor
    context: Tensor
    focused: Tensor
    video: Tensor
    aux_logits: Tensor


class PerStepCrash(nn.Module):
    """The network, frame by frame.

    Args:
        feature_dim: Width of the features.
        dim: Width D.
        grid: Plane of the FFT.
        classifier_dim: Width of the heads.
        window: States the temporal attention sees.
        tfa_layers: Its layers.
        tfa_heads: Its heads.
        aggregation_heads: Heads of the auxiliary branch.
        num_layers: GRU layers L.
    """

    def __init__(
        self,
        feature_dim: int = 4096,
        dim: int = 512,
        grid: tuple[int, int] = (32, 16),
        *,
        classifier_dim: int = 64,
        window: int = 10,
        tfa_layers: int = 3,
        tfa_heads: int = 8,
        aggregation_heads: int = 4,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        self.window = window
        self.rho_1, self.rho_2 = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.phi_x = nn.Sequential(nn.Linear(feature_dim, dim), nn.ReLU())
        self.phi_x3 = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.fftblock = SpectralGate(grid)
        self.sp_attention = BoxAttention(dim, num_layers)
        self.RSD = WindowAttention(dim, num_layers, tfa_layers, tfa_heads)
        self.gru_net = FrameGru(dim, num_layers, classifier_dim)
        self.self_aggregation = Aggregation(dim, aggregation_heads)
        self.predictor_aux = Classifier(2 * dim, classifier_dim)

    def forward(self, features: Tensor) -> PerStepOutput:
        """Runs clips (B, T, N + 1, F)."""
        hidden = features.new_zeros(self.gru_net.gru.num_layers, len(features), self.gru_net.gru.hidden_size)
        past: list[Tensor] = []
        logits, states, objects, filtered, contexts, focused = [], [], [], [], [], []
        for t in range(features.shape[1]):
            embedded = self.phi_x(features[:, t])
            frame, boxes = embedded[:, 0], embedded[:, 1:]
            filtered.append(self.fftblock(frame))
            contexts.append(self.phi_x3(filtered[-1]))
            objects.append(self.sp_attention(boxes, hidden))
            past.append(hidden)
            if t >= 2:
                hidden = self.RSD(torch.stack(past[::-1][: self.window]))
                focused.append(hidden)
            scores, hidden = self.gru_net(torch.cat([objects[-1], frame, contexts[-1]], dim=-1), hidden)
            logits.append(scores)
            states.append(hidden)
        video = self.self_aggregation(torch.stack([state[-1] for state in states], dim=1))
        return PerStepOutput(
            torch.stack(logits, dim=1),
            torch.stack(states),
            torch.stack(objects, dim=1),
            torch.stack(filtered, dim=1),
            torch.stack(contexts, dim=1),
            torch.stack(focused) if focused else hidden.new_zeros(0, *hidden.shape),
            video,
            self.predictor_aux(video),
        )


class BoxAttention(nn.Module):
    """Attention over boxes, one query per GRU layer, with keys and values of every box."""

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        for layer in range(1, num_layers + 1):
            self.register_parameter(f"alpha{layer}", nn.Parameter(torch.rand(1)))
            self.add_module(f"q{layer}", nn.Linear(dim, dim))
        self.wk, self.wv = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, boxes: Tensor, hidden: Tensor) -> Tensor:
        """(B, N, D), (L, B, D) -> (B, D)."""
        key, value = self.wk(boxes), self.wv(boxes)
        scores = boxes.new_zeros(())
        for layer in range(self.num_layers):
            query = self.get_submodule(f"q{layer + 1}")(hidden[layer])[:, None]
            alpha = self.get_parameter(f"alpha{layer + 1}")
            scores = scores + alpha * (query @ key.transpose(1, 2)) / boxes.shape[-1] ** 0.5
        return (scores.softmax(dim=-1) @ value).squeeze(1)


class SpectralGate(nn.Module):
    """Filter on the spectrum of the folded embedding; the channel attention of the published code is 0.5."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.complex_weight = nn.Parameter(0.02 * torch.randn(grid[0], grid[1] // 2 + 1, 3, 2))
        self.conv1x1 = nn.Conv1d(1, 3, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        plane = self.conv1x1(x[:, None]).reshape(-1, *self.grid, 3)
        spectrum = torch.fft.rfft2(plane, dim=(1, 2), norm="ortho")
        spectrum = 0.5 * spectrum * torch.view_as_complex(self.complex_weight)
        filtered = torch.fft.irfft2(spectrum, s=self.grid, dim=(1, 2), norm="ortho")
        return filtered.reshape(*x.shape, 3).mean(dim=-1)


class WindowAttention(nn.Module):
    """One stack of attention over the window per GRU layer, one stack after the other."""

    def __init__(self, dim: int, num_stacks: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.num_stacks = num_stacks
        for stack in range(1, num_stacks + 1):
            parts = [part for _ in range(num_layers) for part in (SelfAttention(dim, num_heads), FeedForward(dim))]
            self.add_module(f"layer{stack}", nn.ModuleList(parts))
            self.register_parameter(f"weights{stack}", nn.Parameter(torch.randn(num_layers + 1)))

    def forward(self, window: Tensor) -> Tensor:
        """(K, L, B, D), the newest first -> (L, B, D)."""
        fused = []
        for stack in range(self.num_stacks):
            x = window[:, stack].transpose(0, 1)  # (B, K, D)
            means = [x.mean(dim=1)]
            parts = list(self.get_submodule(f"layer{stack + 1}").children())
            for attention, feed_forward in zip(parts[::2], parts[1::2], strict=True):
                attended = attention(x)
                x = feed_forward(attended) + attended
                means.append(x.mean(dim=1))
            weights = self.get_parameter(f"weights{stack + 1}").softmax(dim=0)
            fused.append(sum(weight * mean for weight, mean in zip(weights, means, strict=True)))
        return torch.stack(fused).softmax(dim=-1)


class SelfAttention(nn.Module):
    """Multi-head attention without output projection; the published ``fc`` is never used."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Softmax over the features of gelu(W x + b)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.intermediate = nn.ModuleDict({"v_dense": nn.Linear(dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, D)."""
        return F.gelu(self.intermediate["v_dense"](x)).softmax(dim=-1)


class Classifier(nn.Module):
    """Linear, ReLU, linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, 2)."""
        logits: Tensor = self.dense2(self.dense1(x).relu())
        return logits


class FrameGru(Classifier):
    """One step of the GRU and the classifier of its output."""

    def __init__(self, dim: int, num_layers: int, classifier_dim: int) -> None:
        super().__init__(dim, classifier_dim)
        self.gru = nn.GRU(3 * dim, dim, num_layers, batch_first=True)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(B, 3D), (L, B, D) -> (B, 2), (L, B, D)."""
        out, hidden = self.gru(x[:, None], hidden)
        return super().forward(out[:, -1]), hidden


class Aggregation(nn.Module):
    """Self-attention over time, then mean and maximum."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.Wq, self.Wk, self.Wv = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.dense = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, 2D)."""
        x = hidden + positional_encoding(*hidden.shape[1:]).to(hidden)
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.Wq, self.Wk, self.Wv)
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        out = self.dense((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return torch.cat([out.mean(dim=1), out.amax(dim=1)], dim=-1)
