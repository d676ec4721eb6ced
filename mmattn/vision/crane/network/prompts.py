"""Learned prompts, and the text tower that reads them.

Source: arXiv 2504.11055, section on prompts as in AnomalyCLIP (arXiv 2310.18961), and the public code
AlirezaSalehy/Crane at commit 39181f9. Two object-agnostic texts, "X ... X object." and "X ... X damaged object.", are
embedded with their X replaced by learned context vectors. In the first ``depth - 1`` blocks after the first one, the
tokens at positions 1 to ``t_n_ctx`` are replaced by further learned vectors (deep prompts). A normalised image feature
may be put into the prompts (five context types); then every image has texts of its own.

The text tower is causal and is read at the end-of-text token, so what follows that token cannot matter: the tower runs
on the first 18 of 77 positions with the same result.

Shapes: B images, T context length, n context vectors, W text width, E width of the shared space.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.vision.crane.config import ContextType, CraneConfig
from mmattn.vision.crane.network.clip import text_tower, tokenize

__all__ = ["PromptLearner", "encode_prompts", "encode_texts", "prompt_texts"]


def prompt_texts(config: CraneConfig) -> tuple[str, str]:
    """Returns the normal and the abnormal text, an X in the place of every context vector.

    >>> prompt_texts(CraneConfig(n_ctx=2))
    ('X X object.', 'X X damaged object.')
    """
    context = "X " * config.n_ctx
    return context + config.normal_text, context + config.abnormal_text


class PromptLearner(nn.Module):
    """The learned vectors, named as in the published checkpoints.

    Args:
        config: Its fields from ``n_ctx`` to ``context_prob`` and ``token_ids`` are read.
        text_width: Width W of the text tower.
        embed_dim: Width E of image features; a linear map to W is learned where they differ.
        context_length: Length T of a text.

    Raises:
        InputError: If a number is out of range or the texts do not fit into T tokens.
    """

    token_ids: Tensor

    def __init__(self, config: CraneConfig, *, text_width: int, embed_dim: int, context_length: int = 77) -> None:
        super().__init__()
        self.config = config
        n, length = config.n_ctx, config.t_n_ctx
        if n < 1 or config.depth < 1 or not 1 <= length < context_length:
            raise InputError(f"n_ctx {n}, depth {config.depth}, t_n_ctx {length}: each must be at least 1.")
        ids = tokenize(prompt_texts(config), context_length, config.token_ids)
        if length > int(ids.argmax(dim=1).min()) - 1:
            raise InputError(f"t_n_ctx is {length}; the prompts have only {int(ids.argmax(dim=1).min()) - 1} tokens.")
        self.register_buffer("token_ids", ids, persistent=False)
        self.ctx_pos = nn.Parameter(0.02 * torch.randn(1, 1, n, text_width))
        self.ctx_neg = nn.Parameter(0.02 * torch.randn(1, 1, n, text_width))
        self.compound_prompts_text = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(length, text_width)) for _ in range(config.depth - 1)
        )
        same = embed_dim == text_width
        self.image_projection: nn.Module = nn.Identity() if same else nn.Linear(embed_dim, text_width, bias=False)

    def forward(self, token_embedding: nn.Module, image_features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns prompts (2, B, T, W) and their token ids (2, B, T), order normal, abnormal.

        Args:
            token_embedding: Table of the text tower.
            image_features: (B, E), normalised here, that condition the prompts; None gives static prompts with B = 1.
                Whether to condition is the caller's choice, see :meth:`draw_conditioning`.
        """
        ids = self.token_ids[:, None]
        words = token_embedding(ids)
        context = torch.cat([self.ctx_pos, self.ctx_neg]).to(words.dtype)
        n = self.config.n_ctx
        start, rest = words[:, :, :1], words[:, :, 1 + n :]
        if image_features is None:
            return torch.cat([start, context, rest], dim=2), ids
        batch = len(image_features)
        image = self.image_projection(nn.functional.normalize(image_features, dim=-1))[None, :, None]
        start, context, rest, image = (x.expand(2, batch, -1, -1) for x in (start, context, rest, image))
        pieces = insert_image(self.config.context_type, start, context, rest, image)
        return torch.cat(pieces, dim=2), shift_ids(self.config.context_type, ids, n).expand(2, batch, -1)

    def draw_conditioning(self, generator: random.Random | None = None) -> bool:
        """Returns whether this training step conditions its prompts, True with probability ``context_prob``."""
        if self.config.context_prob >= 1:
            return True
        return (generator or random).random() < self.config.context_prob


def insert_image(
    context_type: ContextType, start: Tensor, context: Tensor, rest: Tensor, image: Tensor
) -> tuple[Tensor, ...]:
    """Returns the pieces of the prompts, (2, B, ., W) each, with the image token in its place.

    Raises:
        InputError: If the context type is unknown.
    """
    match context_type:
        case "none":
            return start, context, rest
        case "pad_suffix":
            return start, context, image, rest[:, :, :-1]
        case "pad_prefix":
            return start, image, context, rest[:, :, :-1]
        case "replace_prefix":
            return start, image, context[:, :, 1:], rest
        case "replace_suffix":
            return start, context[:, :, :-1], image, rest
    raise InputError(f"context_type is {context_type!r}, expected none, pad_* or replace_* with prefix or suffix.")


def shift_ids(context_type: ContextType, ids: Tensor, n_ctx: int) -> Tensor:
    """Returns token ids (..., T) with room for a padded-in image token: one id is repeated, the last one dropped.

    Only the position of the end-of-text token matters; which id is repeated follows the published code.
    """
    if not context_type.startswith("pad"):
        return ids
    at = n_ctx + 2 if context_type == "pad_suffix" else 2
    return torch.cat([ids[..., : at + 1], ids[..., at:-1]], dim=-1)


def encode_prompts(
    clip: nn.Module, prompts: Tensor, ids: Tensor, deep: Sequence[Tensor] = (), *, deep_fp16: bool = False
) -> Tensor:
    """Returns text features (..., E), not normalised.

    Args:
        clip: open_clip's ``CLIP`` or ``CustomTextCLIP``.
        prompts: (..., T, W) embedded tokens, positions not yet added.
        ids: (..., T) token ids; the largest one of a text marks where it is read.
        deep: (t_n_ctx, W) each; entry i replaces the tokens at positions 1 to t_n_ctx before block i + 1, from 0.
        deep_fp16: Round the deep prompts, and so their gradients, to float16 as the published code does.
    """
    tower = text_tower(clip)
    end = ids.argmax(dim=-1).flatten()
    length = ids.shape[-1] if torch.compiler.is_compiling() else int(end.max()) + 1
    x = prompts[..., :length, :].flatten(0, -3) + tower.positional_embedding[:length]
    mask = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
    for i, block in enumerate(tower.transformer.resblocks):
        if 1 <= i <= len(deep):
            tokens = deep[i - 1].half() if deep_fp16 else deep[i - 1]
            tokens = tokens.to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], tokens, x[:, 1 + tokens.shape[1] :]], dim=1)
        x = block(x, attn_mask=mask)
    read = tower.ln_final(x[torch.arange(len(x), device=x.device), end])
    return _project(tower, read).unflatten(0, ids.shape[:-1])


def encode_texts(clip: nn.Module, texts: Sequence[str], token_ids: Sequence[int] | None = None) -> Tensor:
    """Returns features (n, E), not normalised, of n plain texts without any learned vector.

    Raises:
        InputError: If the text tower does not know a word.
    """
    tower = text_tower(clip)
    ids = tokenize(texts, len(tower.positional_embedding), token_ids).to(tower.positional_embedding.device)
    return encode_prompts(clip, tower.token_embedding(ids), ids)


def _project(tower: Any, x: Tensor) -> Tensor:
    projection = tower.text_projection
    if projection is None:
        return x
    projected: Tensor = projection(x) if isinstance(projection, nn.Module) else x @ projection
    return projected
