"""Crane's attention, D-Attn and the memory of one dual block, beside their straightforward forms.

Sizes are those of CLIP ViT-L/14-336 at 518 pixels: 37 x 37 patches and the class token, width 1024, 16 heads. Weights
and inputs are random; the time does not depend on their values.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmattn.bench.peers.crane import dattn_per_head, dual_attention_maps, dual_block_maps
from mmattn.bench.report import Measure, Report
from mmattn.bench.timer import Options, Peer, Run, peak_extra_bytes
from mmattn.vision.crane.network.dattn import dattn as apply_dattn
from mmattn.vision.crane.network.dattn import foundation_attention
from mmattn.vision.crane.network.tower import dual_attention, dual_block

__all__ = ["attention", "block_memory", "dattn"]

_MEGABYTE = 1e6


def attention(options: Options) -> Report:
    """One layer's ordinary attention and E-Attn (three self-correlation maps), projections included."""
    report = Report("crane_attention")
    block, tokens, _ = _layer(options.quick)
    maps = Peer(lambda: dual_attention_maps(block.attn, tokens), target=2.5)
    with torch.inference_mode():
        report.compare(
            f"E-Attn layer {tuple(tokens.shape)}",
            lambda: _both(dual_attention(block.attn, tokens, "qq+kk+vv")),
            {"explicit maps": maps},
            options,
        )
    return report


def dattn(options: Options) -> Report:
    """D-Attn of one image: similarities of 768-channel foundation features, softmax, values, projection."""
    report = Report("dattn")
    block, tokens, side = _layer(options.quick)
    features = torch.randn(1, 768, side, side)
    grid = (side, side)
    per_head = Peer(lambda: dattn_per_head(block, tokens, features, grid), target=2.0)
    with torch.inference_mode():
        report.compare(
            f"D-Attn {side}x{side} patches",
            lambda: apply_dattn(block, tokens, foundation_attention(features), grid, grid),
            {"one mask per head": per_head},
            options,
        )
    return report


def block_memory(options: Options) -> Report:
    """Memory that one dual block adds at its highest point, inputs and weights not counted."""
    report = Report("crane_block_memory")
    ours = peak_extra_bytes(partial(_build_block, options.quick, False)) / _MEGABYTE
    theirs = peak_extra_bytes(partial(_build_block, options.quick, True)) / _MEGABYTE
    report.measures.append(Measure("dual block", ours, "MB", target=110.0, note="float32, one image, one thread"))
    report.measures.append(Measure("dual block, explicit maps", theirs, "MB"))
    return report


def _layer(quick: bool) -> tuple[Any, Tensor, int]:
    """Returns a residual block of the vision tower, its input (1, N + 1, C) and the side of the grid."""
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    torch.manual_seed(0)
    width, side = (64, 6) if quick else (1024, 37)
    block = ResidualAttentionBlock(width, width // 64, act_layer=QuickGELU).eval().requires_grad_(False)
    return block, torch.randn(1, side * side + 1, width), side


def _both(outputs: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    return [output for output in outputs if output is not None]


def _build_block(quick: bool, explicit: bool) -> Run:
    """Returns the closure of one dual block; runs in a process of its own."""
    block, x, _ = _layer(quick)
    e = torch.randn_like(x)
    run = partial(_run_block, block, x, e, explicit)
    # Libraries allocate their buffers on first use; they are no part of the block.
    small = partial(_run_block, block, x[:, :8], e[:, :8], explicit)
    small()
    return run


@torch.inference_mode()
def _run_block(block: Any, x: Tensor, e: Tensor, explicit: bool) -> tuple[Tensor, Tensor]:
    if explicit:
        return dual_block_maps(block, x, e)
    after, _, s = dual_block(block, x, "qq+kk+vv")
    return after, e if s is None else e + s
