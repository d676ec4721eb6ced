"""DeltaNet as a layer (arXiv 2406.06484, section 3.3): a linear attention that corrects what it stored, as in fla."""

from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.recurrent.parts import GatedHeadNorm
from mmattn.attention.recurrent.qkv_mixer import MixerState, QkvMixer, initialize
from mmattn.kernels.linear.delta_rule import delta_rule, delta_rule_step
from mmattn.kernels.linear.sequences import Mode

__all__ = ["DeltaNet"]


class DeltaNet(QkvMixer):
    """``S_t = S_{t-1} + k_t^T beta_t (v_t - k_t S_{t-1})``, ``o_t = q_t S_t / sqrt(K)``, RMS norm, projection.

    q, k and v pass a SiLU, with or without convolution; q and k then have unit length. ``beta = sigmoid(W x)`` per
    head. Time ``O(T K (V + C))`` per head in chunks of C.

    Arguments that all such layers have are those of ``QkvMixer``.

    Args:
        expand_k: total width of the keys over ``dim``.
        expand_v: total width of the values over ``dim``.
        use_gate: gate the output by ``swish(W x)``.
        allow_neg_eigval: beta in (0, 2) instead of (0, 1): the state transition may reflect (arXiv 2411.12537).
        norm_eps: of the RMS norm.

    Example:
        >>> import torch
        >>> layer = DeltaNet(8, num_heads=2)
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
        use_gate: bool = False,
        allow_neg_eigval: bool = False,
        norm_eps: float = 1e-5,
        mode: Mode = "auto",
        chunk_size: int = 32,
    ) -> None:
        super().__init__(
            dim, num_heads=num_heads, key_dim=int(dim * expand_k), value_dim=int(dim * expand_v),
            use_short_conv=use_short_conv, conv_size=conv_size, mode=mode, chunk_size=chunk_size,
        )  # fmt: skip
        self.beta_limit = 2.0 if allow_neg_eigval else 1.0
        self.b_proj = nn.Linear(dim, num_heads, bias=False)
        self.g_proj = nn.Linear(dim, self.value_dim, bias=False) if use_gate else None
        self.o_norm = GatedHeadNorm(self.value_dim // num_heads, eps=norm_eps)
        self.o_proj = nn.Linear(self.value_dim, dim, bias=False)
        initialize(self)

    def forward(
        self, x: Tensor, state: MixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, MixerState]:
        """Returns the output ``(B, T, dim)`` of ``x (B, T, dim)`` and the next state, see ``QkvMixer``."""
        x = self._prepare(x, mask)
        q, k, v, old = self._qkv(x, state)
        if not self.use_short_conv:
            q, k, v = functional.silu(q), functional.silu(k), functional.silu(v)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        beta = self.b_proj(x).sigmoid().transpose(1, 2) * self.beta_limit
        out, recurrent = self._recur(delta_rule, delta_rule_step, (q, k, v, beta), old.recurrent, mask)
        out = self._gated(self.o_norm, out, None if self.g_proj is None else self.g_proj(x))
        return self.o_proj(out), MixerState(recurrent, old.conv)
