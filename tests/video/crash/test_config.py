"""Configs as JSON, their recipes, and contradictions that are named."""

import json

import pytest

from mmattn.video.crash.config import TRAINING_SETTINGS, CrashConfig, CrashLossOptions


def test_a_config_survives_json() -> None:
    config = CrashConfig(
        **TRAINING_SETTINGS["from_scratch"], perception="timm", perception_options={"backbone": "resnet18"}
    )
    assert CrashConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_are_the_published_code_and_a_new_training_has_a_recipe_of_its_own() -> None:
    assert CrashConfig(**TRAINING_SETTINGS["published"]) == CrashConfig()
    published, new = CrashConfig(), CrashConfig(**TRAINING_SETTINGS["from_scratch"])
    assert (published.tfa_output, published.channel_attention, published.mask_empty_boxes) == (
        "softmax",
        "upstream",
        False,
    )
    assert (new.tfa_output, new.channel_attention, new.mask_empty_boxes) == ("residual", "bottleneck", True)
    assert not published.legacy_eval_dropout
    options = CrashLossOptions()
    assert (options.weighting, options.decay, options.aux_weight) == ("per_sample", 0.5, 15.0)


def test_unknown_fields_are_named() -> None:
    with pytest.raises(ValueError, match="no field colour, size; the file may be of a newer version"):
        CrashConfig.from_dict({"colour": 1, "size": 2})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_dim": 64}, r"grid \(32, 16\) holds 512, not hidden_dim 64"),
        ({"hidden_dim": 15, "grid": (5, 3)}, r"grid is \(5, 3\), expected an even second side"),
        ({"hidden_dim": 12, "grid": (3, 4)}, "hidden_dim 12 cannot be divided among tfa_heads 8"),
        ({"hidden_dim": 6, "grid": (3, 2), "tfa_heads": 2}, "hidden_dim 6 cannot be divided among aggregation_heads 4"),
        ({"window": 2}, "window is 2, expected at least 3"),
        ({"num_boxes": 0}, "num_boxes is 0, expected at least 1"),
        ({"dropout": 1.0}, r"dropout is 1.0, expected a number in \[0, 1\)"),
        ({"fps": 0.0}, "fps is 0.0, expected a positive number"),
        ({"fps": float("nan")}, "fps is nan, expected a positive number"),
    ],
)
def test_contradictions_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrashConfig(**fields)


def test_baselines_need_no_grid() -> None:
    assert CrashConfig(architecture="dsta", hidden_dim=30).hidden_dim == 30
    assert CrashConfig(architecture="gru", hidden_dim=20).hidden_dim == 20
    assert CrashConfig(use_cam=False, hidden_dim=24).hidden_dim == 24
