"""Crane's config goes through JSON and tells what does not belong in it."""

import json
from typing import Any

import pytest

from mmattn.vision.crane.config import CraneConfig
from tests.vision.crane.tiny import tiny_config


def test_a_config_survives_json() -> None:
    config = tiny_config()
    assert CraneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 3}, "no field colour"),
        ({"feature_layers": "last"}, "feature_layers is 'last', expected a list"),
        ({"image_size": "large"}, "image_size is 'large', expected a whole number"),
    ],
)
def test_what_does_not_belong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CraneConfig.from_dict(tiny_config().to_dict() | changes)
