"""Simple gated linear attention as a layer: one scalar gate per head (the RetNet and Mamba-2 family), as in fla."""

from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.recurrent.parts import GatedHeadNorm
from mmattn.attention.recurrent.qkv_mixer import MixerState, QkvMixer, initialize
from mmattn.kernels.linear.sequences import Mode
from mmattn.kernels.linear.simple_gla import simple_gla, simple_gla_step

__all__ = ["SimpleGatedLinearAttention"]


class SimpleGatedLinearAttention(QkvMixer):
    """``S_t = exp(g_t) S_{t-1} + k_t^T v_t``, ``o_t = q_t S_t / sqrt(K)``, RMS norm, swish gate, projection.

    ``g = logsigmoid(W x + b) / gate_logit_normalizer``, one number per head and token. Time ``O(T K V)`` per head.

    Arguments that all such layers have are those of ``QkvMixer``.

    Args:
        expand_k: total width of the keys over ``dim``.
        expand_v: total width of the values over ``dim``.
        gate_logit_normalizer: divides the log-gates.
        norm_eps: of the RMS norm.

    Example:
        >>> import torch
        >>> layer = SimpleGatedLinearAttention(8, num_heads=2)
        >>> layer(torch.randn(1, 5, 8))[0].shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 4,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        use_short_conv: bool = True,
        conv_size: int = 4,
        gate_logit_normalizer: float = 16.0,
        norm_eps: float = 1e-5,
        mode: Mode = "auto",
        chunk_size: int = 64,
    ) -> None:
        super().__init__(
            dim, num_heads=num_heads, key_dim=int(dim * expand_k), value_dim=int(dim * expand_v),
            use_short_conv=use_short_conv, conv_size=conv_size, mode=mode, chunk_size=chunk_size,
        )  # fmt: skip
        self.gate_logit_normalizer = gate_logit_normalizer
        self.gk_proj = nn.Linear(dim, num_heads)
        self.g_proj = nn.Linear(dim, self.value_dim, bias=False)
        self.g_norm_swish_gate = GatedHeadNorm(self.value_dim // num_heads, eps=norm_eps)
        self.o_proj = nn.Linear(self.value_dim, dim, bias=False)
        initialize(self)

    def forward(
        self, x: Tensor, state: MixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, MixerState]:
        """Returns the output ``(B, T, dim)`` of ``x (B, T, dim)`` and the next state, see ``QkvMixer``."""
        x = self._prepare(x, mask)
        q, k, v, old = self._qkv(x, state)
        g = functional.logsigmoid(self.gk_proj(x)).transpose(1, 2) / self.gate_logit_normalizer
        out, recurrent = self._recur(simple_gla, simple_gla_step, (q, k, v, g), old.recurrent, mask)
        out = self._gated(self.g_norm_swish_gate, out, self.g_proj(x))
        return self.o_proj(out), MixerState(recurrent, old.conv)
