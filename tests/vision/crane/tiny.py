"""A Crane of a few thousand parameters with random weights, for tests that need the path but not the skill."""

from typing import Any

import torch

from mmattn.vision.crane.config import ClipArchitecture, CraneConfig
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.predictor import CranePredictor

TOKEN_IDS = (0, 269, 343, 13568, 14115, 49406, 49407)


def tiny_config(**changes: Any) -> CraneConfig:
    """48 x 48 pixels in 36 patches, three blocks of width 32, seven words."""
    architecture = ClipArchitecture(
        embed_dim=32,
        image_size=48,
        patch_size=8,
        vision_width=32,
        vision_layers=3,
        vision_heads=2,
        text_width=32,
        text_layers=3,
        text_heads=2,
        vocab_size=len(TOKEN_IDS),
    )
    fields: dict[str, Any] = {
        "clip_pretrained": None,
        "clip_architecture": architecture,
        "token_ids": TOKEN_IDS,
        "image_size": 48,
        "dual_layers": 2,
        "feature_layers": (3,),
        "depth": 3,
        "sigma": 1.0,
    }
    return CraneConfig(**{**fields, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> CraneModel:
    torch.manual_seed(seed)
    return CraneModel.from_config(tiny_config(**changes)).eval()


def tiny_predictor(seed: int = 0, **changes: Any) -> CranePredictor:
    return CranePredictor(tiny_model(seed, **changes), device=torch.device("cpu"))
