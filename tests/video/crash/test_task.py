"""Training and testing with Lightning."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import average_precision_score

from mmattn.core.config_fields import changed
from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.metrics.accident import far_threshold, lead_time
from mmattn.video.crash.config import CrashLossOptions
from mmattn.video.crash.data import CrashDataModule
from mmattn.video.crash.evaluation.baselines import BaselineTask, chance, danger, growth, time_to_collision
from mmattn.video.crash.evaluation.report import validation_point
from mmattn.video.crash.evaluation.scores import (
    CrashEvaluation,
    OperatingPoint,
    choose_operating_point,
    scenario_of,
    score,
)
from mmattn.video.crash.losses import crash_loss
from mmattn.video.crash.perception.features import BOX_FEATURES, FEATURES, FRAME_FEATURES
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.task import CrashTask
from mmattn.video.crash.weights.store import StoredCrash
from tests.video.crash.fake_datasets import BOXES, WIDTH, write_features
from tests.video.crash.tiny import tiny_config
from tests.video.crash.tiny_door import NECK, WIDTHS, drive, tiny_detector


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("data") / "toy", per_kind=4, splits=("train", "val", "test"))


def data_of(root: Path, **options: Any) -> CrashDataModule:
    return CrashDataModule(**{"layout": "features", "root": str(root), "batch_size": 4, "num_workers": 0, **options})


def make_task(**options: Any) -> CrashTask:
    torch.manual_seed(0)
    config = tiny_config(feature_dim=WIDTH, num_boxes=BOXES, num_frames=30, dropout=0.0, tfa_output="residual",
                         mask_empty_boxes=True, **options.pop("fields", {}))  # fmt: skip
    return CrashTask(**{"config": config, "lr": 3e-3, **options})


def trainer_of(folder: Path, **options: Any) -> Trainer:
    seed_everything(3, verbose=False)
    settings = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    return Trainer(
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        log_every_n_steps=1, **settings,
    )  # fmt: skip


def fit(task: CrashTask, folder: Path, data: CrashDataModule, **options: Any) -> Trainer:
    trainer = trainer_of(folder, **options)
    trainer.fit(task, datamodule=data)
    return trainer


def test_the_optimizer_is_published_adam_and_the_schedule_halves_on_a_plateau():
    made = make_task(lr=1.2e-4).configure_optimizers()
    assert type(made["optimizer"]) is torch.optim.Adam
    assert made["optimizer"].param_groups[0]["lr"] == 1.2e-4
    plateau = made["lr_scheduler"]["scheduler"]
    assert (plateau.factor, plateau.patience, plateau.mode) == (0.5, 5, "min")
    assert made["lr_scheduler"]["monitor"] == "train/epoch_loss"
    assert CrashTask(config=tiny_config()).lr == 1.2e-4
    assert type(make_task(weight_decay=0.1, schedule="constant").configure_optimizers()) is torch.optim.AdamW


def test_training_moves_by_the_loss_of_the_batch(root: Path, tmp_path: Path):
    task, data = make_task(schedule="constant"), data_of(root)
    batch = next(iter(data.train_dataloader()))
    rho = (task.model.rho_1, task.model.rho_2)
    loss = crash_loss(task.model(batch["features"], batch["valid"]), batch["label"], batch["toa"], 10.0, rho=rho).total
    parameters = dict(task.model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    trainer = fit(task, tmp_path, data, limit_train_batches=1)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        assert gradient is not None, name
        # Adam's first step is -lr g / (|g| + 1e-8)
        expected = before[name] - 3e-3 * gradient / (gradient.abs() + 1e-8)
        far = gradient.abs() > 1e-5
        torch.testing.assert_close(parameter.detach()[far], expected[far], atol=2e-4, rtol=0, msg=name)


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(root: Path, tmp_path: Path):
    task = make_task(lr=3e-2, schedule="one_cycle", loss=CrashLossOptions(learn_rho=False, aux_weight=1.0))
    data = data_of(root, batch_size=8, seed=1)
    trainer = fit(task, tmp_path, data, max_epochs=70, limit_val_batches=0)
    assert trainer.callback_metrics["train/frame"].item() < 0.5 * 30 * math.log(2)
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        risk = task.risks(batch)[:, 25]
    assert risk[batch["label"] == 1].min() > risk[batch["label"] == 0].max()


def test_dropout_is_on_in_training_and_off_in_testing(root: Path, tmp_path: Path):
    modes: list[bool] = []
    task = make_task()
    task.model.head.register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer = fit(task, tmp_path, data_of(root), limit_train_batches=1, limit_val_batches=0)
    assert modes == [True]
    trainer.test(task, datamodule=data_of(root), verbose=False)
    assert not any(modes[1:])


def test_one_cycle_warms_up_and_ends_near_zero(root: Path, tmp_path: Path):
    rates: list[float] = []

    class Watched(CrashTask):
        def on_train_batch_end(self, *_: Any) -> None:
            rates.append(self.optimizers().param_groups[0]["lr"])

    torch.manual_seed(0)
    task = Watched(config=make_task().config, lr=1e-2, schedule="one_cycle", warmup=0.4)
    fit(task, tmp_path, data_of(root), max_epochs=5)
    assert int(np.argmax(rates)) in (2, 3, 4)
    assert max(rates) == pytest.approx(1e-2, rel=0.05)
    assert rates[-1] < 0.1 * max(rates)


def test_validation_logs_the_metrics_of_its_clips(root: Path, tmp_path: Path):
    task, data = make_task(), data_of(root)
    metrics = fit(task, tmp_path, data).callback_metrics
    batch = next(iter(data.loader(data.val_dataset(), 8)))
    with torch.no_grad():
        risk = task.risks(batch).numpy()
    largest = [row[: int(toa)].max() for row, toa in zip(risk, batch["toa"].clamp(max=30), strict=True)]
    assert metrics["val/video_ap"].item() == pytest.approx(average_precision_score(batch["label"], largest), abs=1e-6)
    assert {"val/loss", "val/legacy_ap", "val/legacy_mtta", "val/frame"} <= set(metrics)


def test_every_epoch_leaves_a_checkpoint_folder_that_predicts_the_same(root: Path, tmp_path: Path):
    task, data = make_task(), data_of(root)
    fit(task, tmp_path, data, max_epochs=2, enable_checkpointing=True)
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_1", "epoch_2"]
    predictor = CrashPredictor.from_pretrained(tmp_path / "epoch_2", device="cpu")
    item = data.test_dataset()[0]
    with torch.no_grad():
        expected = task.model(item["features"][None], item["valid"][None]).logits.softmax(-1)[0, :, 1]
    result = predictor.predict_features(item["features"].numpy(), item["valid"].numpy())
    np.testing.assert_allclose(result.risk, expected, atol=1e-5)
    card = (tmp_path / "epoch_2" / "README.md").read_text()
    assert "train/loss" in card
    assert "Advisory only" in card


def test_an_embedded_model_is_saved_with_its_detector_and_runs_on_pictures(tmp_path: Path):
    detector = tmp_path / "detector"
    save_checkpoint(
        detector, tiny_detector().state_dict(), system="crash", config={"widths": WIDTHS, "neck": NECK}, card="#"
    )
    config = tiny_config(feature_dim=FEATURES, num_boxes=3, perception="embedded")
    task = CrashTask(config=config, detector=str(detector))
    task.stored().save(tmp_path / "model", card="#")
    result = CrashPredictor.from_pretrained(tmp_path / "model", device="cpu").predict(np.stack(drive(2)))
    assert len(result.risk) == 2
    # and a model trained on from there keeps it
    again = CrashTask(initial_checkpoint=str(tmp_path / "model"))
    assert set(again.stored().part) == set(tiny_detector().state_dict())
    with pytest.raises(CheckpointError):
        CrashTask(config=config, detector=str(tmp_path / "none")).stored()


def test_a_test_prints_and_writes_every_metric(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    task, data = make_task(examples=1), data_of(root)
    trainer = trainer_of(tmp_path, logger=CSVLogger(tmp_path, name="", version="run"))
    (numbers,) = trainer.test(task, datamodule=data, verbose=False)
    folder = tmp_path / "run" / "test"
    table = json.loads((folder / "metrics.json").read_text())
    row, *streams = table["datasets"]
    assert (row["dataset"], row["clips"], row["accidents"]) == ("toy", 8, 4)
    assert [stream["dataset"] for stream in streams] == ["toy, 4 clips long", "toy, 20 clips long"]
    batch = next(iter(data.loader(data.test_dataset(), 8)))
    validation = next(iter(data.loader(data.val_dataset(), 8)))
    with torch.no_grad():
        risk, before = task.risks(batch).double().numpy(), task.risks(validation).double().numpy()
    threshold = far_threshold(before[validation["label"] == 0].max(1), 0.1)
    assert table["threshold"] == pytest.approx(threshold)
    assert table["source"] == "8 validation clips"
    lead = lead_time(risk, batch["label"], batch["toa"], 10.0, threshold=threshold)
    assert row["lead_time_far10"] == pytest.approx(lead.mean, abs=1e-6)
    assert row["recall_far10"] == pytest.approx(lead.recall)
    assert numbers["test/toy/video_ap"] == pytest.approx(row["video_ap"])
    shown = capsys.readouterr().out
    assert f"{row['video_ap']:.3f}" in shown
    assert "threshold" in shown
    names = next(iter(csv.DictReader((folder / "metrics.csv").open())))
    assert float(names["video_ap"]) == pytest.approx(row["video_ap"])
    assert 0 <= row["ece"] <= 1
    assert 0 <= row["ece_scaled"] <= 1
    assert (folder / "reliability_toy.png").is_file()
    assert len(list((folder / "curves").glob("toy_*.png"))) == 2


def test_without_validation_or_accidents_numbers_are_not_available(root: Path, tmp_path: Path, capsys):
    data = data_of(root)
    for name in ("val", "test"):
        data.splits()[name] = [clip for clip in data.splits()[name] if not clip.label and name == "test"]
    trainer_of(tmp_path).test(make_task(), datamodule=data, verbose=False)
    shown = capsys.readouterr().out
    assert "from no validation clips" in shown
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith(("video_ap", "lead_time"))] == [
        "n/a"
    ] * 2
    assert "4 (0)" in shown


def test_choosing_on_the_test_clips_is_said_so(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trainer_of(tmp_path).test(make_task(), datamodule=data_of(root, select_on_test=True), verbose=False)
    assert "from the test clips themselves (select_on_test)" in capsys.readouterr().out


def test_a_test_alone_takes_the_test_checkpoint_and_named_weights_come_first(root: Path, tmp_path: Path):
    shipped, mine = make_task(), make_task()
    shipped.model.head.dense2.bias.data += 5.0
    shipped.stored().save(tmp_path / "shipped", card="#")
    mine.stored().save(tmp_path / "mine", card="#")
    bias = {}
    for name, start in (("shipped", None), ("mine", str(tmp_path / "mine"))):
        task = make_task(test_checkpoint=str(tmp_path / "shipped"), initial_checkpoint=start)
        trainer_of(tmp_path).test(task, datamodule=data_of(root), verbose=False)
        bias[name] = task.model.head.dense2.bias.detach()
    assert torch.equal(bias["shipped"], shipped.model.head.dense2.bias.detach())
    assert torch.equal(bias["mine"], mine.model.head.dense2.bias.detach())
    untouched = make_task(test_checkpoint=str(tmp_path / "missing"))
    fit(untouched, tmp_path, data_of(root), limit_train_batches=1)


def test_a_lightning_checkpoint_round_trip_gives_the_same_risks(root: Path, tmp_path: Path):
    task, data = make_task(), data_of(root)
    trainer = fit(task, tmp_path, data, limit_train_batches=1)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = CrashTask.load_from_checkpoint(tmp_path / "x.ckpt")
    batch = next(iter(data.loader(data.test_dataset(), 4)))
    with torch.no_grad():
        torch.testing.assert_close(again.eval().risks(batch), task.eval().risks(batch))


def test_overrides_and_checkpoints_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="overrides names width"):
        make_task(overrides={"width": 3})
    with pytest.raises(InputError, match="overrides do not fit"):
        changed(tiny_config(), {"grid": [3, 3]})
    assert make_task(overrides={"grid": [2, 8]}).model.config.grid == (2, 8)
    make_task().stored().save(tmp_path / "m", card="#")
    with pytest.raises(CheckpointError, match=r"Its config\.json belongs to other weights"):
        make_task(initial_checkpoint=str(tmp_path / "m"), fields={"hidden_dim": 32, "grid": (8, 4)})
    assert StoredCrash.load(tmp_path / "m").config == make_task().model.config
    with pytest.raises(InputError, match="expected lr above 0"):
        make_task(lr=0.0)


def generated_batch() -> dict[str, Any]:
    """Two clips of three frames with two boxes: a car that comes nearer, and one that does not."""
    features = torch.zeros(2, 3, 3, FEATURES)
    at = {name: i for i, name in enumerate(BOX_FEATURES)}
    steps = [name for name in BOX_FEATURES if name.startswith("ego_steady_") and name[-1].isdigit()]
    for frame in range(3):
        box = features[0, frame, 1]
        box[at["width_rate"]] = 0.5 * (frame + 1)
        box[at["log_width"]] = math.log(0.2) / 2 + 1
        for name in steps:
            gap = 4.0 - 4.0 * float(name.rpartition("_")[2]) - frame
            box[at[name]] = math.tanh(gap / 4)
        features[0, frame, 0, len(BOX_FEATURES) + FRAME_FEATURES.index("pair_danger")] = 0.2 * frame
    features[1, :, 1, at["width_rate"]] = 0.5
    features[1, :, 1, at["u"]] = 0.9
    features[1, :, 1, at["log_width"]] = math.log(0.05) / 2 + 1
    features[1, :, 1, at["u_rate"]] = 1.0
    for name in steps:
        features[1, :, 1, at[name]] = 0.9
    valid = torch.tensor([True, True, False]).expand(2, 3, 3)
    features[:, :, 2, at["width_rate"]] = 9.0  # a slot that holds nothing
    return {"features": features, "valid": valid, "id": ["a", "b"]}


def test_the_growth_rule_is_the_inverse_time_of_what_grows_towards_the_middle():
    torch.testing.assert_close(growth(generated_batch())[0], torch.exp(-torch.tensor([2.0, 1.0, 2 / 3])))
    assert growth(generated_batch())[1].tolist() == [0, 0, 0]


def test_the_time_to_collision_rule_finds_the_moment_of_contact():
    found = time_to_collision(generated_batch())
    torch.testing.assert_close(found[0], torch.exp(-torch.tensor([1.0, 0.75, 0.5])), atol=0.02, rtol=0)
    assert found[1].tolist() == [0, 0, 0]


def test_danger_is_the_larger_of_both_kinds_and_chance_knows_the_name_alone():
    batch = generated_batch()
    torch.testing.assert_close(danger(batch)[0], torch.tensor([0.0, 0.2, 0.4]))
    first, second = chance(batch), chance({**batch, "features": batch["features"] + 1})
    assert torch.equal(first, second)
    assert not torch.equal(chance(batch, seed=1), first)
    assert ((first >= 0) & (first <= 1)).all()


def test_rules_need_the_features_of_the_embedded_perception(root: Path, tmp_path: Path, capsys):
    with pytest.raises(InputError, match="these clips have 6"):
        trainer_of(tmp_path).test(BaselineTask(), datamodule=data_of(root), verbose=False)
    trainer_of(tmp_path).test(BaselineTask(rules=False), datamodule=data_of(root), verbose=False)
    assert "chance" in capsys.readouterr().out


def clip_batch(ids: list[str], labels: list[int], frames: int = 40) -> dict[str, Any]:
    count = len(ids)
    return {
        "id": ids, "dataset": ["generated test"] * count, "label": labels, "fps": [10.0] * count,
        "toa": [30.0 if label else frames + 1.0 for label in labels],
        "reference": [30.0] * count,
    }  # fmt: skip


def test_alarms_are_counted_by_type_and_by_whose_accident_it_is(capsys):
    ids = [f"test/{kind}/{outcome}/{i:06d}" for i, (kind, outcome) in enumerate(
        [("cut_in", "collision"), ("cut_in", "collision"), ("crossing_others", "collision"), ("cut_in", "near"),
         ("normal", "clear")])]  # fmt: skip
    risk = np.full((5, 40), 0.1)
    risk[[0, 2], 20:] = 0.8
    risk[3, 20:] = 0.7
    evaluation = CrashEvaluation()
    evaluation.update(clip_batch(ids, [1, 1, 1, 0, 0]), risk)
    table, _ = score(evaluation.clips(), OperatingPoint(0.5, 1.0, "a test"))
    (row,) = table.rows
    kinds = {(kind.type, kind.outcome): (kind.clips, kind.alarms) for kind in row.types}
    assert kinds == {
        ("cut_in", "collision"): (2, 0.5), ("crossing_others", "collision"): (1, 1.0), ("cut_in", "near"): (1, 1.0),
        ("normal", "clear"): (1, 0.0),
    }  # fmt: skip
    assert (row.scores()["recall_ego"], row.scores()["recall_others"]) == (0.5, 1.0)
    assert "crossing_others" in str(table)
    assert table.to_json()["datasets"][0]["recall_others"] == 1.0
    assert scenario_of("toy", ids[0]) is None


def test_clips_that_cannot_be_scored_together_are_refused():
    evaluation = CrashEvaluation()
    with pytest.raises(InputError, match="No clip was scored"):
        evaluation.clips()
    with pytest.raises(InputError, match="The risk of clip 'a' is not a finite number"):
        evaluation.update(clip_batch(["a"], [0]), np.full((1, 40), np.nan))
    evaluation.update(clip_batch(["a"], [0]), np.zeros((1, 40)))
    evaluation.update(clip_batch(["b"], [0]), np.zeros((1, 30)))
    with pytest.raises(InputError, match="Clips of 30 to 40 frames"):
        evaluation.clips()


def test_the_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 1.5, 600)
    label = (rng.random(600) < 1 / (1 + np.exp(-margin))).astype(int)
    evaluation = CrashEvaluation()
    risk = (1 / (1 + np.exp(-3 * margin)))[:, None].repeat(40, 1)
    evaluation.update(clip_batch([str(i) for i in range(600)], label.tolist()), risk)
    point = choose_operating_point(evaluation.clips(), "a test")
    assert point.temperature == pytest.approx(3.0, rel=0.2)
    table, _ = score(evaluation.clips(), point)
    assert table.rows[0].ece_scaled < 0.06 < table.rows[0].ece


def test_a_data_module_of_another_kind_gives_no_operating_point(tmp_path: Path):
    task = make_task()
    task.trainer = trainer_of(tmp_path)
    assert math.isnan(validation_point(task, task.risks).threshold)
