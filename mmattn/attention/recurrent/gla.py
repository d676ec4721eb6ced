"""Gated linear attention as a layer (GLA, arXiv 2312.06635, section 4.4), with the names of fla and Lina-Speech."""

from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.recurrent.parts import GatedHeadNorm, split_heads
from mmattn.attention.recurrent.qkv_mixer import MixerState, QkvMixer, initialize
from mmattn.kernels.linear.gla import gated_linear_attention, gated_linear_attention_step
from mmattn.kernels.linear.sequences import Mode

__all__ = ["GatedLinearAttention"]

# Log-decay of a step that forgets the past: a factor of 2e-9.
_RESET = -20.0


class GatedLinearAttention(QkvMixer):
    """``S_t = diag(exp g_t) S_{t-1} + k_t^T v_t``, ``o_t = q_t S_t / sqrt(K)``, RMS norm, swish gate, projection.

    ``g = logsigmoid(W_2 W_1 x) / gate_logit_normalizer`` per key channel, ``W_1`` of rank ``gate_low_rank_dim``. The
    gates read x itself, also where q, k and v pass a short convolution. Time ``O(T K V)`` per head.

    Arguments that all such layers have are those of ``QkvMixer``.

    Args:
        expand_k: total width of the keys over ``dim``.
        expand_v: total width of the values over ``dim``.
        gate_low_rank_dim: rank of the forget gate's projection.
        gate_logit_normalizer: divides the log-gates, 16 in the paper: memory lasts longer.
        clamp_min: lower limit of the log-gates.
        norm_eps: of the RMS norm.

    Example:
        >>> import torch
        >>> layer = GatedLinearAttention(8, num_heads=2)
        >>> out, state = layer(torch.randn(1, 5, 8))
        >>> out.shape, state.recurrent.shape
        (torch.Size([1, 5, 8]), torch.Size([1, 2, 4, 8]))
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 4,
        expand_k: float = 1.0,
        expand_v: float = 2.0,
        use_short_conv: bool = False,
        conv_size: int = 4,
        gate_low_rank_dim: int = 16,
        gate_logit_normalizer: float = 16.0,
        clamp_min: float | None = None,
        norm_eps: float = 1e-5,
        mode: Mode = "auto",
        chunk_size: int = 64,
    ) -> None:
        super().__init__(
            dim, num_heads=num_heads, key_dim=int(dim * expand_k), value_dim=int(dim * expand_v),
            use_short_conv=use_short_conv, conv_size=conv_size, mode=mode, chunk_size=chunk_size,
        )  # fmt: skip
        self.gate_logit_normalizer, self.clamp_min = gate_logit_normalizer, clamp_min
        self.gk_proj = nn.Sequential(
            nn.Linear(dim, gate_low_rank_dim, bias=False), nn.Linear(gate_low_rank_dim, self.key_dim)
        )
        self.g_proj = nn.Linear(dim, self.value_dim, bias=False)
        self.g_norm_swish_gate = GatedHeadNorm(self.value_dim // num_heads, eps=norm_eps)
        self.o_proj = nn.Linear(self.value_dim, dim, bias=False)
        initialize(self)

    def forward(
        self,
        x: Tensor,
        state: MixerState | None = None,
        *,
        mask: Tensor | None = None,
        reset_mask: Tensor | None = None,
    ) -> tuple[Tensor, MixerState]:
        """Returns the output ``(B, T, dim)`` of ``x (B, T, dim)`` and the next state, see ``QkvMixer``.

        ``reset_mask``, bool ``(B, T)``, is True where the past is forgotten before the token.
        """
        x = self._prepare(x, mask)
        q, k, v, old = self._qkv(x, state)
        g = functional.logsigmoid(split_heads(self.gk_proj(x), self.num_heads)) / self.gate_logit_normalizer
        if self.clamp_min is not None:
            g = g.clamp(min=self.clamp_min)
        if reset_mask is not None:
            g = g.masked_fill(reset_mask[:, None, :, None], _RESET)
        out, recurrent = self._recur(
            gated_linear_attention, gated_linear_attention_step, (q, k, v, g), old.recurrent, mask
        )
        out = self._gated(self.g_norm_swish_gate, out, self.g_proj(x))
        return self.o_proj(out), MixerState(recurrent, old.conv)
