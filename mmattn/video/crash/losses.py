"""CRASH's objective: every frame of a clip is classified, and an accident's early frames count less.

Source: arXiv 2407.17757 and ``_exp_loss`` of Petrichor625/CRASH. With ce_i(t) the cross-entropy of clip i at frame t
(counted from 0), y_i = 1 for an accident at frame toa_i (counted from 1),

    w_i(t) = exp(-d max(0, (toa_i - t - 1) / fps)),
    L_t    = mean_i [y_i w_i(t) + (1 - y_i)] ce_i(t) / rho_1^2,      L_frame = sum_t L_t,
    L_aux  = mean_i CE(aux_i, y_i) / rho_2^2,                        L_log = log(rho_1 rho_2),
    total  = u1/2 L_frame + u2/2 L_aux + L_log.

rho_1 and rho_2 are learned as they are, by the names of the published checkpoints. The published logarithm is undefined
once their product is not positive. The quotients know only the squares, so the sign is free: here it is the logarithm
of the absolute product, held at 1e-6 or more, which is the same wherever the published one exists.

Shapes: B clips, T frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.errors import InputError
from mmattn.video.crash.config import CrashLossOptions
from mmattn.video.crash.network.risk import CrashOutput

__all__ = ["CrashLosses", "crash_loss", "frame_losses", "time_weights"]

_SMALLEST_PRODUCT = 1e-6


class CrashLosses(NamedTuple):
    """The terms of one step.

    Attributes:
        total: What is minimised.
        frame: Sum over the frames, divided by rho_1^2, before u1/2.
        auxiliary: Divided by rho_2^2, before u2/2; 0 without an auxiliary head.
        log: log |rho_1 rho_2|, or log |rho_1| without an auxiliary head; 0 when they are not learned.
    """

    total: Tensor
    frame: Tensor
    auxiliary: Tensor
    log: Tensor


def crash_loss(
    output: CrashOutput,
    label: Tensor,
    toa: Tensor,
    fps: float | Tensor,
    options: CrashLossOptions | None = None,
    *,
    rho: tuple[Tensor, Tensor] | None = None,
) -> CrashLosses:
    """Returns the loss of one batch.

    Args:
        output: Of a risk model.
        label: (B,) int, 1 is an accident.
        toa: (B,) frame of the accident, counted from 1; for other clips it matters under "upstream_batch_mean" only,
            where the published code has T + 1.
        fps: Frames per second, of all clips or (B,).
        options: Weights and rules; None takes the published ones.
        rho: The model's ``rho_1`` and ``rho_2``; needed when they are learned.

    Raises:
        InputError: If the rhos are to be learned and none were given.
    """
    options = options or CrashLossOptions()
    frame = frame_losses(output.logits, label, toa, fps, options).sum()
    auxiliary = log = frame.new_zeros(())
    if output.aux_logits is not None:
        auxiliary = F.cross_entropy(_precise(output.aux_logits), label.long())
    if options.learn_rho:
        if rho is None:
            raise InputError("learn_rho is on, but no rho was given.", "Pass rho=(model.rho_1, model.rho_2).")
        frame, auxiliary = frame / rho[0] ** 2, auxiliary / rho[1] ** 2
        # Without the auxiliary term nothing would keep rho_2 from zero.
        product = rho[0] if output.aux_logits is None else rho[0] * rho[1]
        log = product.abs().clamp_min(_SMALLEST_PRODUCT).log()
    total = 0.5 * options.frame_weight * frame + 0.5 * options.aux_weight * auxiliary + log
    return CrashLosses(total, frame, auxiliary, log)


def frame_losses(logits: Tensor, label: Tensor, toa: Tensor, fps: float | Tensor, options: CrashLossOptions) -> Tensor:
    """Returns the loss (T,) of each frame, mean over the clips, not divided by rho.

    Args:
        logits: (B, T, 2).
        label: (B,).
        toa: (B,).
        fps: As in :func:`crash_loss`.
        options: Weights and rules.
    """
    batch, frames = logits.shape[:2]
    target = label.long()
    repeated = target[:, None].expand(batch, frames)
    entropy = F.cross_entropy(_precise(logits).transpose(1, 2), repeated, reduction="none")  # (B, T)
    weights = time_weights(frames, toa, fps, options.decay)
    if options.weighting == "upstream_batch_mean":
        weights = weights.mean(dim=0, keepdim=True)
    is_accident = target[:, None] == 1
    weights = torch.where(is_accident, weights, torch.ones_like(weights))
    if not options.after_accident:
        frame = torch.arange(frames, device=toa.device)
        weights = weights.masked_fill(is_accident & (frame >= toa[:, None]), 0.0)
    return (weights * entropy).mean(dim=0)


def time_weights(frames: int, toa: Tensor, fps: float | Tensor, decay: float) -> Tensor:
    """Returns ``exp(-decay * seconds from the frame to the accident)``, (B, T), 1 from the accident on.

    Args:
        frames: Frames T.
        toa: (B,), counted from 1.
        fps: Frames per second, a number or (B,).
        decay: Per second.

    >>> time_weights(3, torch.tensor([3.0]), 1.0, 0.0).tolist()
    [[1.0, 1.0, 1.0]]
    """
    frame = torch.arange(frames, device=toa.device, dtype=torch.float32)
    rate = torch.as_tensor(fps, dtype=torch.float32, device=toa.device).reshape(-1, 1)
    seconds = (toa.float()[:, None] - frame - 1.0) / rate
    return torch.exp(-decay * seconds.clamp_min(0.0))


def _precise(logits: Tensor) -> Tensor:
    """Returns the logits in float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
