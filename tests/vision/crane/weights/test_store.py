"""A Crane checkpoint folder comes back as the model it was, and a damaged one is told with its folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.errors import CheckpointError, InputError
from mmattn.vision.crane.predictor import CranePredictor
from mmattn.vision.crane.weights.store import StoredCrane
from tests.vision.crane.tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny_model(seed=3)
    return StoredCrane(model.config, model.tensors()).save(tmp_path / "model", card="# tiny\n")


def damage(folder: Path, **changes: Any) -> None:
    description = json.loads((folder / "config.json").read_text())
    config = description["config"]
    for name, value in changes.items():
        (config["clip_architecture"] if name in config["clip_architecture"] else config)[name] = value
    (folder / "config.json").write_text(json.dumps(description))


def test_a_model_comes_back_as_it_was_saved(folder: Path) -> None:
    stored = StoredCrane.load(folder)
    assert stored.config == tiny_model().config
    model, before = stored.build(), tiny_model(seed=3)
    assert not model.training
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": -1.0}, "is none of a Crane model: sigma is -1.0, expected 0 or more pixels"),
        ({"vision_layers": 0}, "is none of a Crane model: vision_layers is 0, expected at least 1"),
        ({"text_heads": 3}, "is none of a Crane model: text_width 32 cannot be divided among text_heads 3"),
        ({"text_width": "wide"}, "is none of a Crane model: text_width is 'wide', expected a whole number"),
        ({"attn_type": "xx"}, "is none of a Crane model: attn_type is 'xx', expected one of vv, kk"),
        ({"dual_layers": 9}, "describes no model: dual_layers is 9, expected 1 to 3"),
        ({"token_ids": [3, 1]}, "describes no model: token_ids must be sorted"),
    ],
)
def test_a_damaged_config_is_told_with_its_folder(folder: Path, changes: dict[str, Any], message: str) -> None:
    damage(folder, **changes)
    with pytest.raises(CheckpointError) as caught:
        StoredCrane.load(folder).build()
    assert caught.value.message.startswith(f"The config of '{folder}' {message}")
    assert caught.value.hint == StoredCrane.HINT


def test_a_size_of_no_picture_is_not_answered_with_another_one(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    fields["config"]["image_size"] = -3
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError) as caught:
        CranePredictor.from_pretrained(folder, device="cpu")
    assert caught.value.message == (
        f"The config of '{folder}' is none of a Crane model: image_size is -3, expected at least 1 pixel."
    )
    assert "Use -8" not in str(caught.value)
    assert "config.json was changed" in caught.value.hint


def test_sizes_beyond_the_tensors_are_refused_before_memory_is_asked_for(folder: Path) -> None:
    damage(folder, vision_width=2 * 10**12)
    with pytest.raises(CheckpointError, match="vision_width makes a size of 2000000000000"):
        StoredCrane.load(folder).build()


def test_a_config_that_somebody_chose_is_an_input_error(folder: Path) -> None:
    config = tiny_model().config
    with pytest.raises(InputError, match="dual_layers is 9"):
        StoredCrane.load(folder).build(type(config)(**{**vars(config), "dual_layers": 9}))
