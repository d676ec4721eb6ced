"""Crane's dual-path vision tower: CLIP's own stream, and beside it a stream of self-correlation attention (E-Attn).

Source: arXiv 2504.11055 and the public code AlirezaSalehy/Crane at commit 39181f9. With x the residual stream of CLIP,
h = ln_1(x) of a block and A(u, w) = softmax(u w^T / sqrt(d)) over all N + 1 tokens, every dual block computes

    o = out_proj(A(q, k) v)                              m = x + o,   x' = m + mlp(ln_2(m))         exactly CLIP
    s = out_proj((A(q, q) + A(k, k) + A(v, v)) v)        e' = e + s                                 E-Attn, no MLP

with q, k, v computed once from h. The maps are summed, not averaged, and the bias of ``out_proj`` is added once. The
e stream starts as x before the first dual block. No map of (N + 1) x (N + 1) per head is ever held.

Shapes: B images, N = h w patches, C vision width, E width of the shared space, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.errors import InputError
from mmattn.kernels import attention
from mmattn.vision.crane.config import AttentionType, CraneConfig
from mmattn.vision.crane.network.dattn import dattn, foundation_attention, resize_patches

__all__ = ["BlockStreams", "VisionFeatures", "VisionTower", "dual_attention", "dual_block", "resize_positions"]

_MLP_TOKENS = 512


class VisionFeatures(NamedTuple):
    """What the tower says about a batch of images.

    Attributes:
        image_features: (B, E), projected class token, not normalised; equal to plain CLIP's.
        patch_features: K sets of projected patch features (B, N, E), not normalised.
        grid: (h, w) of the patches, N = h w.
        counts: How often each set counts in sums and means over the sets; None means once each. With
            ``multilayer="aliased"`` one set stands for all of ``feature_layers``.
        memory: (B, F, h, w), features of the trunk or the foundation model that were computed on the way, or None.
    """

    image_features: Tensor
    patch_features: tuple[Tensor, ...]
    grid: tuple[int, int]
    counts: tuple[int, ...] | None = None
    memory: Tensor | None = None

    def repeats(self) -> tuple[int, ...]:
        """Returns ``counts``, or a one for each set."""
        return self.counts if self.counts is not None else (1,) * len(self.patch_features)


class BlockStreams(NamedTuple):
    """The streams after one block.

    Attributes:
        layer: Number of the block, from 1.
        ori: (B, N + 1, C), CLIP's residual stream.
        eattn: (B, N + 1, C), the E-Attn stream, or ``ori`` for ``attn_type="none"``; None before the first dual block
            and where it is not asked for.
        source: (B, N + 1, C), the stream that feeds D-Attn's values; None before the first dual block.
    """

    layer: int
    ori: Tensor
    eattn: Tensor | None
    source: Tensor | None


class VisionTower:
    """Runs the vision transformer of a CLIP along both paths.

    It holds no parameters of its own: those of ``visual`` stay where they are, so that state dicts, devices and
    optimizers see one CLIP. Gradients flow through both paths; callers decide about ``no_grad``.

    Args:
        visual: open_clip's ``VisionTransformer``.
        config: Its fields from ``attn_type`` to ``dattn_input`` are read.

    Raises:
        InputError: If ``dual_layers`` or ``feature_layers`` do not fit the number of blocks.
    """

    def __init__(self, visual: Any, config: CraneConfig) -> None:
        self.visual = visual
        self.config = config
        self.num_layers = len(visual.transformer.resblocks)
        if not 1 <= config.dual_layers <= self.num_layers:
            raise InputError(
                f"dual_layers is {config.dual_layers}, expected 1 to {self.num_layers}, the CLIP's blocks."
            )
        self.first_dual = self.num_layers - config.dual_layers + 1
        inside = [self.first_dual <= layer <= self.num_layers for layer in config.feature_layers]
        if not inside or not all(inside):
            raise InputError(
                f"feature_layers are {list(config.feature_layers)}, expected one or more of {self.first_dual} to "
                f"{self.num_layers}: earlier blocks have no E-Attn path."
            )

    def __call__(
        self, images: Tensor, foundation: Tensor | None = None, *, embeddable: Tensor | None = None
    ) -> VisionFeatures:
        """Returns the features of CLIP-normalised images.

        Args:
            images: (B, 3, H, W) float.
            foundation: (B, F, h', w') features that steer D-Attn, or None for E-Attn alone. On another grid than
                CLIP's, every patch feature is returned on that grid.
            embeddable: What ``visual.conv1`` is given in the place of the images, where it accepts something that is
                already known.
        """
        config, grid = self.config, self.grid_of(images)
        target, weights = grid, None
        if foundation is not None:
            target = (foundation.shape[2], foundation.shape[3])
            weights = foundation_attention(foundation, beta=config.beta, gamma=config.gamma, mean=config.dattn_mean)
        # Resized features are copies, so the published code aliases only on CLIP's own grid.
        aliased = config.multilayer == "aliased" and target == grid
        use_eattn = weights is None or config.both_eattn_dattn
        sets: list[tuple[Tensor, int]] = []
        for state in self.streams(images if embeddable is None else embeddable, use_eattn=use_eattn):
            wanted = config.feature_layers.count(state.layer)
            if wanted and weights is not None and state.source is not None:
                block = self.visual.transformer.resblocks[state.layer - 1]
                sets.append((dattn(block, state.source, weights, grid, target), wanted))
            if aliased:
                wanted = len(config.feature_layers) if state.layer == self.num_layers else 0
            if wanted and use_eattn and state.eattn is not None:
                sets.append((resize_patches(state.eattn[:, 1:], grid, target), wanted))
        return VisionFeatures(
            image_features=self.project(state.ori[:, 0]),
            patch_features=tuple(self.project(patches) for patches, _ in sets),
            grid=target,
            counts=tuple(times for _, times in sets),
        )

    def streams(self, images: Tensor, *, use_eattn: bool = True) -> Iterator[BlockStreams]:
        """Yields both streams after every block.

        Args:
            images: (B, 3, H, W) float.
            use_eattn: Run the E-Attn path in every dual block; False keeps only what the first one needs for D-Attn.
        """
        x, e = self.embed(images), None
        is_plain = self.config.attn_type == "none"
        for layer, block in enumerate(self.visual.transformer.resblocks, start=1):
            is_first = layer == self.first_dual
            with_eattn = not is_plain and (is_first or (use_eattn and layer > self.first_dual))
            entering = x
            x, middle, s = dual_block(block, x, self.config.attn_type if with_eattn else None)
            if s is not None:
                e = (entering if e is None else e) + s
            if layer < self.first_dual:
                yield BlockStreams(layer, x, None, None)
                continue
            source = entering if self.config.dattn_input == "pre_attn" else e if is_first and e is not None else middle
            yield BlockStreams(layer, x, x if is_plain else e, source)

    def embed(self, images: Tensor) -> Tensor:
        """Returns the tokens (B, N + 1, C) that enter the first block: class token, patches, positions, ``ln_pre``."""
        visual = self.visual
        patches = visual.conv1(images)
        grid = (patches.shape[2], patches.shape[3])
        first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
        table = resize_positions(visual.positional_embedding, visual.grid_size, grid)
        embedded: Tensor = visual.ln_pre(tokens + table.to(tokens.dtype))
        return embedded

    def project(self, tokens: Tensor) -> Tensor:
        """Returns ``ln_post(tokens) @ proj``, (..., E)."""
        projected: Tensor = self.visual.ln_post(tokens) @ self.visual.proj
        return projected

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Returns the rows and columns of patches of images (B, 3, H, W)."""
        height, width = self.visual.patch_size
        return images.shape[2] // height, images.shape[3] // width


def resize_positions(table: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Returns the positional table (1 + N, C) for ``grid``: the class row kept, the others interpolated bilinearly.

    The table itself is never changed, so that several sizes can follow each other.
    """
    if tuple(native) == grid:
        return table
    return torch.cat([table[:1], resize_patches(table[None, 1:], (native[0], native[1]), grid)[0]])


def dual_block(block: Any, x: Tensor, attn_type: AttentionType | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Runs one residual block on tokens x (B, T, C).

    Returns:
        ``(x', m, s)`` of the module's formulas, (B, T, C) each: CLIP's stream after the block, the same before the MLP,
        and what the block adds to the E-Attn stream, None without ``attn_type``.
    """
    o, s = dual_attention(block.attn, block.ln_1(x), attn_type)
    middle = x + block.ls_1(o)
    del o
    after = middle + block.ls_2(_feed_forward(block.mlp, block.ln_2(middle)))
    return after, middle, None if s is None else block.ls_1(s)


def _feed_forward(mlp: Any, x: Tensor) -> Tensor:
    """Runs the MLP, which is four times as wide as x, over runs of tokens: less memory where nothing is kept."""
    if torch.is_grad_enabled():
        wide: Tensor = mlp(x)
        return wide
    return torch.cat([mlp(run) for run in x.split(_MLP_TOKENS, dim=1)], dim=1)


def dual_attention(attn: Any, h: Tensor, attn_type: AttentionType | None) -> tuple[Tensor, Tensor | None]:
    """Returns ordinary self-attention and E-Attn of the same tokens, both after ``out_proj``.

    Args:
        attn: A packed ``nn.MultiheadAttention``.
        h: (B, T, C) tokens, already normalised.
        attn_type: Which self-correlation maps are summed; "(q+k+v)^2" is one softmax over the concatenation of q, k
            and v with scale 1 / sqrt(3 d). None and "none" skip E-Attn.

    Returns:
        ``(o, s)``, each (B, T, C); s is None without ``attn_type``. Time O(B T^2 C), memory O(B T C).
    """
    qkv = F.linear(h, attn.in_proj_weight, attn.in_proj_bias)
    # (B, T, 3 C) -> three of (B, H, T, d)
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
    ordinary = attn.out_proj(_join_heads(_attend(q, k, v)))
    if attn_type is None or attn_type == "none":
        return ordinary, None
    if attn_type == "(q+k+v)^2":
        joint = torch.cat([q, k, v], dim=-1)
        summed = _attend(joint, joint, v)
    else:
        parts = {"q": q, "k": k, "v": v}
        first, *others = ((parts[pair[0]], parts[pair[1]]) for pair in attn_type.split("+"))
        summed = _attend(*first, v)
        for u, w in others:
            summed = summed + _attend(u, w, v)
    return ordinary, attn.out_proj(_join_heads(summed))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention; exported graphs get the operator that other runtimes know."""
    if torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v)
    return attention(q, k, v)


def _join_heads(x: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, H d)."""
    return x.transpose(1, 2).flatten(2)
