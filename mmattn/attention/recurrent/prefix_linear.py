"""JRT (Just read twice, arXiv 2407.05483): prefix linear attention as a layer, and the repeated prompt.

Parameters are named as in HazyResearch's ``PrefixLinearAttention``, so that the released JRT checkpoints load.
"""

import torch
from torch import Tensor, nn

from mmattn.attention.recurrent.parts import check_input, merge_heads, split_heads
from mmattn.kernels.linear.feature_maps import taylor
from mmattn.kernels.linear.prefix import prefix_linear_attention, prefix_linear_attention_step
from mmattn.kernels.linear.sequences import Mode, check_mask

__all__ = ["PrefixLinearAttention", "repeat_context"]


def repeat_context(context: Tensor, question: Tensor | None = None, *, repeats: int = 2) -> Tensor:
    """Returns the prompt ``context, ..., context, question`` of JRT-Prompt for any recurrent model.

    What the model could not know to keep on the first pass it sees again with the first pass in its state. Feeding the
    context again from the state after it (``model(context, state)``) is the same without the longer prompt.

    Args:
        context: ids ``(..., T)``; put a separator at its end where the text needs one.
        question: ids ``(..., Q)``.
        repeats: how often the context is read; 2 in the paper.

    Raises:
        ValueError: ``repeats`` is below 1.

    Example:
        >>> repeat_context(torch.tensor([1, 2]), torch.tensor([9])).tolist()
        [1, 2, 1, 2, 9]
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    return torch.cat([context] * repeats + ([] if question is None else [question]), dim=-1)


class PrefixLinearAttention(nn.Module):
    """Linear attention with Taylor features whose first ``enc_length`` tokens are seen from both sides (JRT-RNN).

    The prefix is the first ``min(enc_length, T)`` tokens of the *first* call of a stream; later calls decode. Shorter
    prompts are padded on the left up to ``enc_length``. Time ``O(T (C + D) V)`` per head with ``D = 1 + f + f^2``.

    Args:
        dim: width of the inputs.
        num_heads: H.
        feature_dim: f, width of queries and keys before the feature map.
        enc_length: tokens of the prefix.
        eps: added to the normaliser.
        mask_after_feature_map: whether padding is taken out entirely. The published code sets padded keys to 0
            *before* the feature map, which leaves its constant feature in the sums; the released checkpoints saw that.
        mode: of the kernel for more than one token.
        chunk_size: of the kernel.

    Raises:
        ValueError: heads do not divide ``dim``.

    Example:
        >>> layer = PrefixLinearAttention(8, num_heads=2, feature_dim=3, enc_length=4)
        >>> out, state = layer(torch.randn(1, 6, 8))
        >>> out.shape, state.shape
        (torch.Size([1, 6, 8]), torch.Size([1, 2, 13, 5]))
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 16,
        feature_dim: int = 16,
        enc_length: int = 1024,
        eps: float = 1e-12,
        mask_after_feature_map: bool = False,
        mode: Mode = "auto",
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a model of width {dim}")
        self.dim, self.num_heads, self.enc_length, self.eps = dim, num_heads, enc_length, eps
        self.mask_after_feature_map, self.mode, self.chunk_size = mask_after_feature_map, mode, chunk_size
        features = num_heads * feature_dim
        self.proj_q = nn.Linear(dim, features, bias=False)
        self.proj_k = nn.Linear(dim, features, bias=False)
        self.proj_v = nn.Linear(dim, dim, bias=False)
        self.proj_k_enc = nn.Linear(dim, features, bias=False)
        self.proj_v_enc = nn.Linear(dim, dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: Tensor | None = None, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the output ``(B, T, dim)`` and the state ``(B, H, D, V + 1)`` after the last token.

        Args:
            x: ``(B, T, dim)``.
            state: the state to go on from, not changed; None starts a stream with its prefix.
            mask: bool ``(B, T)``, False at padding.

        Raises:
            ValueError: x is not ``(B, T, dim)`` or the mask not bool ``(B, T)``.
        """
        check_input(x, self.dim)
        if mask is not None:
            check_mask(mask, x.shape[0], x.shape[1])
        q, k = taylor(split_heads(self.proj_q(x), self.num_heads)), self._keys(self.proj_k, x, mask)
        v = split_heads(self.proj_v(x), self.num_heads)
        if state is not None and x.shape[1] == 1 and mask is None:
            out, state = prefix_linear_attention_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], state, eps=self.eps)
            return self.out_proj(out.flatten(1))[:, None], state
        k_prefix = v_prefix = prefix_mask = None
        if state is None:
            prefix = x[:, : self.enc_length]
            prefix_mask = None if mask is None else mask[:, : self.enc_length]
            k_prefix = self._keys(self.proj_k_enc, prefix, prefix_mask)
            v_prefix = split_heads(self.proj_v_enc(prefix), self.num_heads)
        out, state = prefix_linear_attention(
            q, k, v, k_prefix, v_prefix,
            eps=self.eps, initial_state=state, mode=self.mode, chunk_size=self.chunk_size,
            mask=mask if self.mask_after_feature_map else None,
            prefix_mask=prefix_mask if self.mask_after_feature_map else None,
        )  # fmt: skip
        return self.out_proj(merge_heads(out)), state

    def _keys(self, projection: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
        keys = split_heads(projection(x), self.num_heads)
        if mask is not None and not self.mask_after_feature_map:
            keys = keys.masked_fill(~mask[:, None, :, None], 0.0)
        return taylor(keys)
