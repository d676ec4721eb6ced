"""RWKV6 time mixing as a layer (Finch, arXiv 2404.05892, section 4), parameters named as in fla."""

from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.recurrent.parts import check_heads, check_input, merge_heads, recur, split_heads, without_padding
from mmattn.attention.recurrent.qkv_mixer import initialize
from mmattn.kernels.linear.rwkv6 import rwkv6, rwkv6_step
from mmattn.kernels.linear.sequences import Mode
from mmattn.kernels.states import trainable

__all__ = ["Rwkv6", "Rwkv6State"]

_STREAMS = 5  # r, w, k, v, g


class Rwkv6State(NamedTuple):
    """Where a stream stands: the kernel's state ``(B, H, K, V)`` and the last input ``(B, dim)``."""

    recurrent: Tensor
    last: Tensor


class _Projection(nn.Module):
    """A linear layer, or a low-rank network with tanh in the middle, under fla's name ``linear``."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class _LowRank(nn.Module):
    def __init__(self, dim: int, out: int, rank: int) -> None:
        super().__init__()
        self.lora = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Tanh(), nn.Linear(rank, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.lora(x)


class _Shifted(nn.Module):
    """A linear layer of ``x + delta mu``, which mixes each token with the one before it."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(dim))
        self.linear = nn.Linear(dim, out, bias=False)

    def forward(self, x: Tensor, delta: Tensor) -> Tensor:
        return self.linear(x + delta * self.mu)


class Rwkv6(nn.Module):
    """``o_t = r_t (S_{t-1} + diag(u) k_t^T v_t)``, ``S_t = diag(exp w_t) S_{t-1} + k_t^T v_t``, group norm, gate.

    Every projection reads the token mixed with the one before it, by shares that depend on both (a low-rank network);
    ``w = -exp(.)`` per key channel. Time ``O(T K V)`` per head.

    Args:
        dim: width of the inputs.
        num_heads: H.
        expand_k: total width of the keys over ``dim``.
        expand_v: total width of the values over ``dim``.
        proj_low_rank_dim: rank of each of the five mixing shares.
        gate_low_rank_dim: rank of the decay's network.
        norm_eps: of the group norm, one group per head.
        mode: of the kernel for more than one token.
        chunk_size: of the kernel.

    Raises:
        ValueError: heads do not divide the widths.

    Example:
        >>> layer = Rwkv6(8, num_heads=2)
        >>> out, state = layer(torch.randn(1, 5, 8))
        >>> out.shape, state.recurrent.shape
        (torch.Size([1, 5, 8]), torch.Size([1, 2, 2, 4]))
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 4,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        proj_low_rank_dim: int = 32,
        gate_low_rank_dim: int = 64,
        norm_eps: float = 1e-5,
        mode: Mode = "auto",
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        key_dim, value_dim = int(dim * expand_k), int(dim * expand_v)
        check_heads(num_heads, key_dim, value_dim)
        self.dim, self.num_heads, self.mode, self.chunk_size = dim, num_heads, mode, chunk_size
        packed = _STREAMS * proj_low_rank_dim
        self.x_proj = nn.Sequential(_Shifted(dim, packed), nn.Tanh(), nn.Linear(packed, dim, bias=False))
        self.x_bias = nn.Parameter(torch.zeros(_STREAMS, dim))
        self.r_proj = _Projection(nn.Linear(dim, key_dim, bias=False))
        self.w_proj = _Projection(_LowRank(dim, key_dim, gate_low_rank_dim))
        self.k_proj = _Projection(nn.Linear(dim, key_dim, bias=False))
        self.v_proj = _Projection(nn.Linear(dim, value_dim, bias=False))
        self.g_proj = _Projection(nn.Linear(dim, value_dim, bias=False))
        self.bonus = nn.Parameter(torch.zeros(num_heads, key_dim // num_heads))
        self.g_norm = nn.GroupNorm(num_heads, value_dim, eps=norm_eps)
        self.o_proj = nn.Linear(value_dim, dim, bias=False)
        initialize(self)

    def forward(
        self, x: Tensor, state: Rwkv6State | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, Rwkv6State]:
        """Returns the output ``(B, T, dim)`` and the state after the last token.

        Args:
            x: ``(B, T, dim)``.
            state: the state to go on from, not changed; None starts a stream.
            mask: bool ``(B, T)``, False at padding, which leaves the recurrent state as it is and counts as 0 for the
                token after it. Pad on the left where the stream goes on.

        Raises:
            ValueError: x is not ``(B, T, dim)`` or the mask not bool ``(B, T)``.
        """
        check_input(x, self.dim)
        x = without_padding(x, mask)
        state = trainable(state)
        before = torch.cat([x.new_zeros(x.shape[0], 1, self.dim) if state is None else state.last[:, None], x], dim=1)
        r, w, k, v, gate = self._streams(x, before[:, :-1] - x)
        kernel, step = (partial(function, u=self.bonus, scale=1.0) for function in (rwkv6, rwkv6_step))
        initial = None if state is None else state.recurrent
        out, recurrent = recur(
            kernel, step, (r, k, v, w), initial, mode=self.mode, chunk_size=self.chunk_size, mask=mask
        )
        flat = merge_heads(out)
        normed = self.g_norm(flat.flatten(0, 1)).reshape(flat.shape)
        return self.o_proj(normed * functional.silu(gate)), Rwkv6State(recurrent, before[:, -1].clone())

    def _streams(self, x: Tensor, delta: Tensor) -> tuple[Tensor, ...]:
        """Returns r, w, k ``(B, H, T, K)``, v ``(B, H, T, V)`` and the gate ``(B, T, H V)``."""
        hidden = self.x_proj[1](self.x_proj[0](x, delta)).unflatten(2, (_STREAMS, -1))  # (B, T, 5, rank)
        weight = cast(nn.Linear, self.x_proj[2]).weight.unflatten(1, (_STREAMS, -1))  # (dim, 5, rank)
        shares = torch.einsum("btsr,dsr->sbtd", hidden, weight) + self.x_bias[:, None, None]
        r, w, k, v, g = (x + delta * share for share in shares)
        decay = -self.w_proj(w).exp()
        heads = (self.r_proj(r), decay, self.k_proj(k), self.v_proj(v))
        return *(split_heads(t, self.num_heads) for t in heads), self.g_proj(g)
