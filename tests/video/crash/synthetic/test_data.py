"""Generated clips as data: made once, listed with their truth, read as the risk model wants them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.errors import InputError
from mmattn.video.crash.perception.detector import CrashDetector
from mmattn.video.crash.perception.features import FEATURES
from mmattn.video.crash.synthetic.data import SyntheticCrashDataModule, Wanted, clip_id, fill_features
from mmattn.video.crash.synthetic.world.clips import draw_clip, plan

COUNTS = {"detected": 0, "simulated": 4, "val": 2, "test": 1, "test_head_on": 1}


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    data = SyntheticCrashDataModule(root=str(folder / "exact"), exact=True, batch_size=2, workers=1, **COUNTS)
    data.prepare_data()
    return data


def test_items_are_clips_with_their_accident_frame_and_closest_moment(module):
    item = module.val_dataset()[0]
    clip = draw_clip("val", 0)
    assert item["features"].shape == (50, 13, FEATURES)
    assert item["valid"].shape == (50, 13)
    assert item["valid"][:, 0].all()
    assert (item["label"], item["toa"], item["reference"]) == (1, clip.accident, clip.ref)
    assert item["id"] == "val/rear_end_others/collision/000000"
    quiet = module.val_dataset()[1]
    assert (quiet["label"], quiet["toa"], quiet["reference"]) == (0, 51, draw_clip("val", 1).ref)


def test_splits_hold_the_clips_that_were_asked_for(module):
    assert [len(module.splits()[name]) for name in ("train", "val", "test")] == [4, 2, 2]
    assert [clip.dataset for clip in module.splits()["test"]] == ["generated test", "generated test_head_on"]
    assert len({clip.id for split in module.splits().values() for clip in split}) == 8


def test_a_batch_is_what_the_risk_model_reads(module):
    batch = next(iter(module.train_dataloader()))
    assert batch["features"].shape == (2, 50, 13, FEATURES)
    assert batch["features"].dtype == torch.float32
    assert torch.isfinite(batch["features"]).all()
    assert set(batch["label"].tolist()) <= {0, 1}


def test_a_filled_folder_is_left_as_it_is(module):
    folder = Path(module.root)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    module.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_the_name_of_a_clip_tells_its_type_and_outcome():
    _, kind, outcome = plan("test", 7)
    assert clip_id(Wanted("detected", "test", 7)) == f"test/{kind}/{outcome}/000007"


def test_no_training_clips_are_refused():
    with pytest.raises(InputError, match="some to train on"):
        SyntheticCrashDataModule(detected=0, simulated=0)


@pytest.mark.slow
def test_a_clip_is_drawn_and_looked_at_by_the_detector(tmp_path: Path):
    torch.manual_seed(0)
    widths = [4, 6, 8, 8, 8]
    state = CrashDetector(widths, 8).state_dict()
    save_checkpoint(tmp_path / "detector", state, system="crash", config={"widths": widths, "neck": 8}, card="# Test\n")
    wanted = [Wanted("detected", "val", 2)]
    folder = fill_features(tmp_path / "features", wanted, tmp_path / "detector", clips=tmp_path / "drawn", num_boxes=5)
    clip = folder.load(clip_id(wanted[0]), with_boxes=True)
    assert clip.features.shape == (50, 6, FEATURES)
    assert clip.boxes is not None
    assert clip.boxes.shape == (50, 5, 6)
    np.testing.assert_allclose(np.diff(clip.times), 0.1)
