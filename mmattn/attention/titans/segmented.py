"""The attention beside the memory: windows of a fixed length with learned keys and values that all queries see.

After titans-pytorch's ``SegmentedAttention``. Letters: B batch, H heads, T tokens, P persistent tokens, D head width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.rotary import RotaryEmbedding
from mmattn.kernels import BlockIndex, attention
from mmattn.kernels.states import own_storage, trainable

__all__ = ["SegmentedAttention", "WindowCache"]


class WindowCache(NamedTuple):
    """Keys and values ``(B, H, n, D)`` that later tokens still see, and how many tokens came before.

    Without sliding, n is the part of the running window already seen; with it, at most the window.
    """

    k: Tensor
    v: Tensor
    position: int


class SegmentedAttention(nn.Module):
    """Causal softmax attention inside windows of ``window`` tokens, plus P persistent keys and values.

    Windows are disjoint, or with ``sliding`` each token sees the ``window`` tokens before it. Time ``O(T window D)``.

    Args:
        dim: width of the inputs.
        window: tokens per window.
        dim_head: D, even because of the rotary embedding.
        heads: H.
        num_persist_mem_tokens: P.
        sliding: overlapping windows.
        accept_value_residual: blend values with those of the first layer, per token and head.

    Raises:
        ValueError: the window is empty or ``dim_head`` odd.

    Example:
        >>> out, values, cache = SegmentedAttention(8, 4, dim_head=4, heads=2)(torch.randn(1, 6, 8))
        >>> out.shape, values.shape, cache.k.shape
        (torch.Size([1, 6, 8]), torch.Size([1, 2, 6, 4]), torch.Size([1, 2, 2, 4]))
    """

    def __init__(
        self,
        dim: int,
        window: int,
        *,
        dim_head: int = 64,
        heads: int = 8,
        num_persist_mem_tokens: int = 0,
        sliding: bool = False,
        accept_value_residual: bool = False,
    ) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window must be at least 1 token, got {window}")
        self.window, self.heads, self.sliding = window, heads, sliding
        inner = dim_head * heads
        self.norm = nn.RMSNorm(dim)
        self.rotary_emb = RotaryEmbedding(dim_head)
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.to_learned_v_mix = nn.Sequential(nn.Linear(dim, heads)) if accept_value_residual else None
        self.persistent_memory = nn.Parameter(torch.zeros(2, heads, num_persist_mem_tokens, dim_head))

    def forward(
        self, x: Tensor, cache: WindowCache | None = None, *, first_values: Tensor | None = None
    ) -> tuple[Tensor, Tensor, WindowCache]:
        """Returns the output ``(B, T, dim)``, the layer's own values ``(B, H, T, D)`` and the cache after the tokens.

        Args:
            x: ``(B, T, dim)``.
            cache: that of the tokens before; None starts a sequence.
            first_values: the own values of the first layer, for layers built to accept them.

        Raises:
            ValueError: ``first_values`` and ``accept_value_residual`` do not go together.
        """
        if (first_values is None) != (self.to_learned_v_mix is None):
            raise ValueError("first_values go with accept_value_residual, and only with it")
        x = self.norm(x)
        q, k, own = self.to_qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        v = own
        if self.to_learned_v_mix is not None and first_values is not None:
            v = own.lerp(first_values, self.to_learned_v_mix(x).sigmoid().transpose(1, 2)[..., None])
        cache = WindowCache(k[:, :, :0], v[:, :, :0], 0) if cache is None else trainable(cache)
        q, k = self.rotary_emb(q, cache.position), self.rotary_emb(k, cache.position)
        out = self._sliding(q, k, v, cache) if self.sliding else self._disjoint(q, k, v, cache)
        return self.to_out(out.transpose(1, 2).flatten(2)), own, self._remember(k, v, cache)

    def _disjoint(self, q: Tensor, k: Tensor, v: Tensor, cache: WindowCache) -> Tensor:
        head = min(q.shape[2], -cache.position % self.window) if cache.k.shape[2] else 0
        outs = []
        if head:
            seen = (torch.cat([old, new[:, :, :head]], dim=2) for old, new in ((cache.k, k), (cache.v, v)))
            outs.append(self._attend(q[:, :, :head], *seen))
        rest = q.shape[2] - head
        if rest:
            # Whole windows side by side in the batch; what pads the last one comes after all queries that count.
            pad = -rest % self.window
            folded = (
                functional.pad(t[:, :, head:], (0, 0, 0, pad)).unflatten(2, (-1, self.window)).transpose(1, 2)
                for t in (q, k, v)
            )
            out = self._attend(*(t.flatten(0, 1) for t in folded))
            out = out.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3)
            outs.append(out[:, :, :rest])
        return torch.cat(outs, dim=2) if outs else q

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention; persistent keys come first, so bottom-right alignment shows them to every query."""
        return attention(q, *self._with_persistent(k, v), causal=True)

    def _sliding(self, q: Tensor, k: Tensor, v: Tensor, cache: WindowCache) -> Tensor:
        k, v = self._with_persistent(torch.cat([cache.k, k], dim=2), torch.cat([cache.v, v], dim=2))
        if q.shape[2] <= 1:
            return attention(q, k, v)  # the cache holds just the window
        sinks = self.persistent_memory.shape[2]
        blocks = BlockIndex.sliding_window(self.window + 1, q.shape[2], k.shape[2], sinks=sinks, device=q.device)
        return attention(q, k, v, blocks)

    def _with_persistent(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        first_k, first_v = self.persistent_memory[:, None].expand(-1, k.shape[0], -1, -1, -1)
        return torch.cat([first_k, k], dim=2), torch.cat([first_v, v], dim=2)

    def _remember(self, k: Tensor, v: Tensor, cache: WindowCache) -> WindowCache:
        position = cache.position + k.shape[2]
        k, v = torch.cat([cache.k, k], dim=2), torch.cat([cache.v, v], dim=2)
        keep = min(self.window, k.shape[2]) if self.sliding else position % self.window
        start = k.shape[2] - keep
        return own_storage(WindowCache(k[:, :, start:], v[:, :, start:], position))
