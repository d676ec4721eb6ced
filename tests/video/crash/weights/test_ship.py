"""Shipping the trained model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mmattn.errors import CheckpointError
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.weights.ship import main, ship
from mmattn.video.crash.weights.store import StoredCrash
from tests.video.crash.tiny import tiny_config, tiny_model
from tests.video.crash.tiny_door import drive, save_embedded


def test_what_ships_is_half_as_large_and_predicts_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = save_embedded(tmp_path / "trained")
    (tmp_path / "assets").mkdir()
    StoredCrash(tiny_config(), tiny_model().state_dict(), {}).save(tmp_path / "assets", card="# The card\n")
    (tmp_path / "assets" / "samples").mkdir()
    main([source, str(tmp_path / "assets")])
    assert str(tmp_path / "assets") in capsys.readouterr().out
    assert (tmp_path / "assets/README.md").read_text() == "# The card\n"
    assert (tmp_path / "assets/samples").is_dir()
    with safe_open(tmp_path / "assets/model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118
    frames = np.stack(drive(4))
    before, after = (
        CrashPredictor.from_pretrained(p, device="cpu").predict(frames) for p in (source, tmp_path / "assets")
    )
    np.testing.assert_allclose(after.risk, before.risk, atol=5e-3)


def test_a_model_that_cannot_read_videos_is_not_shipped(tmp_path: Path):
    StoredCrash(tiny_config(), tiny_model().state_dict(), {}).save(tmp_path / "m", card="#")
    with pytest.raises(CheckpointError, match="holds no detector"):
        ship(tmp_path / "m", tmp_path / "assets")
