"""The embedded detector: maps to boxes and back, and one step of its training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.errors import InputError
from mmattn.video.crash.perception.detector import (
    STRIDE,
    VALUES,
    CrashDetector,
    DetectorOutput,
    decode_boxes,
    detector_input,
    suppress,
)
from mmattn.video.crash.synthetic.world.clips import draw_clip
from mmattn.video.crash.training.detector_data import DetectorDataModule, DetectorFrames, mirrored_frame, targets
from mmattn.video.crash.training.detector_losses import detector_losses, focal_loss
from mmattn.video.crash.training.detector_task import CrashDetectorTask, lr_factor, match

TINY = [4, 6, 8, 8, 8]


def as_output(target: dict[str, torch.Tensor]) -> DetectorOutput:
    """Maps of a detector that says exactly what it should."""
    heat = torch.logit(target["heat"].clamp(1e-4, 1 - 1e-4))
    values = target["values"].clone()
    values[VALUES.index("lamp")] = 20 * (values[VALUES.index("lamp")] - 0.5)
    return DetectorOutput(heat[None], values[None], target["speed"][None])


@pytest.fixture(scope="module")
def clip():
    return draw_clip("val", 0)


def test_perfect_maps_give_back_boxes_places_headings_and_lamps(clip):
    frame = clip.accident - 12
    rows = clip.seen.at(frame)
    (found,) = decode_boxes(as_output(targets(clip.seen, frame, motion=True)))
    pairs = match(found.box, clip.seen.box[rows])
    assert len(pairs) >= 0.7 * (rows.stop - rows.start)  # what hides behind others has no peak of its own
    for i, j in pairs:
        row = rows.start + j
        np.testing.assert_allclose(found.box[i], clip.seen.box[row], atol=0.05)
        if clip.seen.place[row, 1] > 1.5:
            np.testing.assert_allclose(found.place[i], clip.seen.place[row], rtol=1e-3, atol=0.02)
        assert found.kind[i] == clip.seen.kind[row]
        assert (found.lamp[i] > 0.5) == clip.seen.braking[row]
        assert found.heading[i] @ [np.sin(clip.seen.heading[row]), np.cos(clip.seen.heading[row])] > 0.999


def test_every_road_user_has_a_centre_of_one_with_weight(clip):
    target = targets(clip.seen, 10, motion=False)
    rows = clip.seen.at(10)
    assert 0 < int((target["heat"] >= 1).sum()) <= rows.stop - rows.start
    assert (target["weight"][:, (target["heat"] >= 1).any(0)][:5] > 0).all()
    assert target["weight"][VALUES.index("vx") :].sum() == 0  # no motion without an earlier picture
    assert target["speed_weight"] == 0


def test_a_mirrored_frame_has_mirrored_boxes(clip):
    frame = clip.accident - 12
    target = targets(clip.seen, frame, motion=True)
    _, turned = mirrored_frame(torch.zeros(4, 180, 320), target)
    (found,), (other,) = (decode_boxes(as_output(each)) for each in (target, turned))
    back = other.box[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [320, 0, 320, 0]
    pairs = match(found.box, back)
    assert len(pairs) == len(found.box)
    for i, j in pairs:
        np.testing.assert_allclose(found.box[i], back[j], atol=0.05)
        np.testing.assert_allclose(found.place[i], other.place[j] * [-1, 1], atol=0.05)
        np.testing.assert_allclose(found.velocity[i], other.velocity[j] * [-1, 1], atol=1e-4)


def test_focal_loss_is_nearly_zero_for_the_right_maps_and_large_for_the_wrong_ones(clip):
    heat = targets(clip.seen, 10, motion=True)["heat"][None]
    right = torch.logit(torch.where(heat >= 1, 0.9999, 1e-4))
    assert focal_loss(right, heat) < 1e-3
    assert focal_loss(-right, heat) > 50


def test_losses_of_perfect_maps_are_nearly_zero(clip):
    target = targets(clip.seen, 10, motion=True)
    batch = {name: value[None] for name, value in target.items()}
    losses = detector_losses(as_output(target), batch)
    assert set(losses) == {"heat", "box", "distance", "heading", "velocity", "lamp", "speed"}
    assert all(value < 1e-3 for name, value in losses.items() if name != "heat")


def test_suppress_keeps_the_better_of_two_that_overlap():
    box = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [8, 0, 18, 10]])
    assert suppress(box).tolist() == [0, 2]


def test_match_pairs_by_overlap_of_at_least_half():
    true = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    found = np.array([[21.0, 0, 31, 10], [0, 0, 4, 10]])
    assert match(found, true) == [(0, 1)]


def test_maps_have_a_quarter_of_the_resolution_for_odd_sizes_too():
    network = CrashDetector(TINY, 8).eval()
    before = torch.randint(0, 255, (2, 180, 320, 3), dtype=torch.uint8)
    picture = detector_input(before, before)
    assert picture.shape == (2, 4, 180, 320)
    torch.testing.assert_close(picture[:, 3], picture[:, :3].permute(0, 2, 3, 1) @ torch.tensor([0.299, 0.587, 0.114]))
    output = network(picture)
    assert output.heat.shape == (2, 4, 180 // STRIDE, 320 // STRIDE)
    assert output.values.shape == (2, len(VALUES), 45, 80)
    assert output.speed.shape == (2,)


def test_the_learning_rate_rises_for_a_tenth_and_falls_to_a_hundredth():
    assert lr_factor(0, 100) == pytest.approx(0.1)
    assert lr_factor(9, 100) == 1.0
    assert lr_factor(100, 100) == pytest.approx(0.01)


def test_a_data_module_without_clips_is_refused():
    with pytest.raises(InputError, match="clips 0"):
        DetectorDataModule(clips=0)


@pytest.mark.slow
def test_one_step_trains_every_part_and_writes_a_folder(tmp_path: Path):
    data = DetectorDataModule(
        clips=1, val_clips=1, per_clip=2, val_per_clip=2, folder=str(tmp_path / "clips"), batch_size=2
    )
    task = CrashDetectorTask(widths=TINY, neck=8)
    before = {name: value.clone() for name, value in task.detector.named_parameters()}
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=CSVLogger(tmp_path, "", ""), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    moved = {name for name, value in task.detector.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before)
    assert 0 <= trainer.callback_metrics["val/recall"] <= 1
    tensors, config = load_checkpoint(tmp_path / "detector", "crash")
    assert config == {"widths": TINY, "neck": 8}
    assert set(tensors) == set(task.detector.state_dict())


@pytest.mark.slow
def test_frames_are_the_same_every_time(tmp_path: Path):
    data = DetectorDataModule(clips=1, val_clips=0, per_clip=3, folder=str(tmp_path))
    data.prepare_data()
    frames = DetectorFrames(tmp_path, "detector", range(1), 3, augment=True)
    first, again = frames[2], frames[2]
    assert len(frames) == 3
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert data.val_dataset() is None
