"""What gated linear attention, simple GLA and DeltaNet share: projections, short convolutions, heads and state.

Parameter names are those of flash-linear-attention, so that its checkpoints load. Letters: B batch, T tokens, H heads,
K key width and V value width of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmattn.attention.recurrent.parts import (
    GatedHeadNorm,
    Kernel,
    ShortConv,
    check_heads,
    check_input,
    merge_heads,
    recur,
    split_heads,
    without_padding,
)
from mmattn.kernels.linear.sequences import Mode
from mmattn.kernels.states import trainable

__all__ = ["MixerState", "QkvMixer", "initialize"]


class MixerState(NamedTuple):
    """Where a stream stands.

    Attributes:
        recurrent: the kernel's state ``(B, H, K, V)``, float32 or wider.
        conv: the last inputs ``(B, channels, kernel)`` of the q, k and v convolutions, newest last; None without them.
    """

    recurrent: Tensor
    conv: tuple[Tensor, Tensor, Tensor] | None = None


class QkvMixer(nn.Module):
    """Base of the layers: ``q, k, v = W x``, optionally each through a short convolution, split into heads.

    Layers map ``x (B, T, dim)`` and a ``MixerState``, None at the start of a stream, to outputs ``(B, T, dim)`` and the
    state after the last token; the one given is not changed. Padding, where the bool ``mask (B, T)`` is False, leaves
    the recurrent state as it is. Pad on the left where the stream goes on: the convolutions remember the last columns,
    whatever they are.

    Args:
        dim: width of the inputs.
        num_heads: H.
        key_dim: H times K.
        value_dim: H times V.
        use_short_conv: whether q, k and v pass a causal convolution of ``conv_size`` tokens.
        conv_size: its kernel.
        mode: of the kernel for more than one token.
        chunk_size: of the kernel.

    Raises:
        ValueError: heads do not divide the widths; when called, x is not ``(B, T, dim)`` or the mask not bool
            ``(B, T)``.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        use_short_conv: bool,
        conv_size: int = 4,
        mode: Mode = "auto",
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        check_heads(num_heads, key_dim, value_dim)
        self.dim, self.num_heads, self.mode, self.chunk_size = dim, num_heads, mode, chunk_size
        self.key_dim, self.value_dim = key_dim, value_dim
        self.q_proj = nn.Linear(dim, key_dim, bias=False)
        self.k_proj = nn.Linear(dim, key_dim, bias=False)
        self.v_proj = nn.Linear(dim, value_dim, bias=False)
        self.use_short_conv = use_short_conv
        if use_short_conv:
            self.q_conv1d = ShortConv(key_dim, conv_size)
            self.k_conv1d = ShortConv(key_dim, conv_size)
            self.v_conv1d = ShortConv(value_dim, conv_size)

    def _prepare(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the input with padding set to 0, so that no convolution carries it into the text."""
        check_input(x, self.dim)
        return without_padding(x, mask)

    def _qkv(self, x: Tensor, state: MixerState | None) -> tuple[Tensor, Tensor, Tensor, MixerState]:
        """Returns q, k ``(B, H, T, K)``, v ``(B, H, T, V)`` and the state so far with its new convolution caches."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        state, conv = trainable(state), None
        if self.use_short_conv:
            old = (None,) * 3 if state is None or state.conv is None else state.conv
            (q, q_cache), (k, k_cache), (v, v_cache) = (
                layer(t, cache)
                for layer, t, cache in zip((self.q_conv1d, self.k_conv1d, self.v_conv1d), (q, k, v), old, strict=True)
            )
            conv = (q_cache, k_cache, v_cache)
        recurrent = self._zeros(x) if state is None else state.recurrent
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        return q, k, v, MixerState(recurrent, conv)

    def _recur(
        self, kernel: Kernel, step: Kernel, tensors: tuple[Tensor, ...], state: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns output ``(B, H, T, V)`` and new state; see ``parts.recur``."""
        return recur(kernel, step, tensors, state, mode=self.mode, chunk_size=self.chunk_size, mask=mask)

    def _gated(self, norm: GatedHeadNorm, out: Tensor, gate: Tensor | None) -> Tensor:
        """Returns ``(B, T, H V)``: the output ``(B, H, T, V)`` normalised and gated by ``(B, T, H V)``, if it is."""
        return merge_heads(norm(out, None if gate is None else split_heads(gate, self.num_heads)))

    def _zeros(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], self.num_heads, self.key_dim // self.num_heads, self.value_dim // self.num_heads)
        return x.new_zeros(shape, dtype=torch.promote_types(x.dtype, torch.float32))


def initialize(module: nn.Module) -> None:
    """Sets every linear layer as flash-linear-attention does: Xavier-uniform with gain ``2^-2.5``, biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight, gain=2**-2.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
