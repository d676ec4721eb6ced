"""Shipping a trained checkpoint, its samples, and the test of the memory modes."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from mmattn.core.weights.checkpoint import embedded_path, load_checkpoint, save_checkpoint
from mmattn.media.image import read_image, read_mask
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.evaluation.baselines import TRUNK_PREFIX, embedded_trunk
from mmattn.vision.crane.evaluation.memory_task import MemoryTask
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk
from mmattn.vision.crane.synthetic.data import SyntheticDataModule
from mmattn.vision.crane.synthetic.samples import SAMPLES, describe, write_samples
from mmattn.vision.crane.weights.ship import main, ship


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    trunk = {TRUNK_PREFIX + name: tensor for name, tensor in EfficientNetLite0Trunk().state_dict().items()}
    tensors = {**trunk, "prompt_learner.ctx_pos": torch.full((1, 1, 2, 4), 0.1)}
    return save_checkpoint(tmp_path / "run", tensors, system="crane", config=CraneConfig().to_dict(), card="trained")


def test_shipping_halves_the_numbers_and_keeps_the_card(trained: Path, tmp_path: Path):
    target = save_checkpoint(tmp_path / "assets", {}, system="crane", config={}, card="the card")
    ship(trained, target, {"image_score": "mean"})
    tensors, config = load_checkpoint(target, "crane")
    assert tensors["prompt_learner.ctx_pos"].dtype == torch.float16
    assert tensors[TRUNK_PREFIX + "bn1.num_batches_tracked"].dtype == torch.int64
    assert config["image_score"] == "mean"
    assert (target / "README.md").read_text() == "the card"


def test_the_module_ships_from_the_command_line(trained: Path, tmp_path: Path):
    main([str(trained), str(tmp_path / "new")])
    tensors, _ = load_checkpoint(tmp_path / "new", "crane")
    assert torch.isfinite(embedded_trunk(tensors)(torch.zeros(1, 3, 32, 32))).all()


def test_samples_come_with_masks_sources_and_licences(tmp_path: Path):
    pytest.importorskip("skimage", reason="scikit-image is a development dependency")
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    write_samples(tmp_path)
    listed = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert len(listed) == len(SAMPLES)
    for entry in listed:
        assert entry["licence"]
        assert (tmp_path / entry["file"]).stat().st_size < 60_000
        picture = read_image(tmp_path / entry["file"])
        assert picture.shape == (256, 256, 3)
        assert (entry["mask"] is None) == ("flawless" in entry["file"])
        if entry["mask"]:
            assert 0 < read_mask(tmp_path / entry["mask"]).mean() < 0.06


def test_the_shipped_samples_are_the_ones_the_code_lists():
    listed = json.loads((embedded_path("crane") / "samples" / "samples.json").read_text())
    assert [entry["what"] for entry in listed] == [describe(choice)["what"] for choice in SAMPLES]
    assert all("CC BY" not in entry["licence"] for entry in listed)


def test_both_memories_score_the_pictures_of_a_class_alone_and_blended(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("skimage", reason="scikit-image is a development dependency")
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    task = MemoryTask(normals=2)
    data = SyntheticDataModule(test_splits=["photographs"], test_per_category=4, eval_batch_size=4)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, limit_test_batches=1
    )
    trainer.test(task, datamodule=data)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.startswith("photographs  brick")]
    assert [row[2:4] for row in rows] == [["4", "2"]] * 4
    titles = [line for line in printed.splitlines() if line.startswith(("few-shot", "mutual"))]
    assert titles == [
        "few-shot, memory alone",
        "few-shot, blended with the zero-shot map, weight 0.7",
        "mutual, memory alone",
        "mutual, blended with the zero-shot map, weight 0.7",
    ]
