"""Risk models of a few thousand parameters with random weights, for tests that need the path but not the skill."""

from typing import Any

import torch
from torch import Tensor

from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.model import RiskModel, build_model


def tiny_config(**changes: Any) -> CrashConfig:
    """Four boxes of 12 features, width 16 folded to 4 x 4."""
    fields: dict[str, Any] = {
        "feature_dim": 12,
        "num_boxes": 4,
        "hidden_dim": 16,
        "grid": (4, 4),
        "classifier_dim": 8,
        "window": 5,
        "tfa_layers": 2,
        "tfa_heads": 4,
        "num_frames": 12,
        "perception": "none",
    }
    return CrashConfig(**{**fields, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> RiskModel:
    """A model whose biases are not zero, so that what they do can be seen."""
    torch.manual_seed(seed)
    return build_model(tiny_config(**changes))


def clips(batch: int = 2, frames: int = 8, seed: int = 1) -> Tensor:
    """Features (B, T, 5, 12), not negative, as those after a ReLU."""
    return torch.randn(batch, frames, 5, 12, generator=torch.Generator().manual_seed(seed)).relu()
