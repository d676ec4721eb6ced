import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import default_collate

from mmattn.core.weights.checkpoint import load_checkpoint, save_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.losses import crane_loss
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.preprocess import Preprocess
from mmattn.vision.crane.task import CraneTask, as_picture
from tests.vision.crane.tiny import tiny_config, tiny_model
from tests.vision.crane.toy_data import ToyDataModule


def make_task(**options: Any) -> CraneTask:
    torch.manual_seed(0)
    return CraneTask(**{"config": tiny_config(), **options})


def fit(
    task: CraneTask,
    folder: Path,
    data: ToyDataModule | None = None,
    *,
    ckpt_path: Path | None = None,
    masks: bool = True,
    **options: Any,
) -> Trainer:
    seed_everything(3, verbose=False)
    settings = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    trainer = Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(task, datamodule=data or ToyDataModule(str(folder / "toy"), masks=masks), ckpt_path=ckpt_path)
    return trainer


def test_only_the_prompts_are_trained() -> None:
    trained = {name for name, p in make_task().model.named_parameters() if p.requires_grad}
    assert trained == {
        f"prompt_learner.{name}"
        for name in ("ctx_pos", "ctx_neg", "compound_prompts_text.0", "compound_prompts_text.1")
    }


def test_optimizer_is_adam_with_the_published_settings() -> None:
    optimizer = make_task().configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.6, 0.999), 0)


def test_one_step_moves_every_prompt_by_adams_rule_and_nothing_else(tmp_path: Path) -> None:
    task = make_task()
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    batch = next(iter(ToyDataModule(str(tmp_path / "toy")).train_dataloader()))
    vision = task.model.encode_image(batch["img"])
    text = task.model.encode_text(vision.image_features)  # conditioned on the picture, as context_prob is 1
    loss = crane_loss(vision, text, batch["label"], batch["mask"], task.model.config).total
    prompts = dict(task.model.prompt_learner.named_parameters())
    gradients = torch.autograd.grad(loss, list(prompts.values()))

    fit(task, tmp_path)
    for (name, parameter), gradient in zip(prompts.items(), gradients, strict=True):
        # Adam's first step is -lr g / (|g| + 1e-8), whatever the betas
        expected = before[f"model.prompt_learner.{name}"] - 1e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, atol=2e-6, rtol=0, msg=name)
    for name, parameter in task.named_parameters():
        if not name.startswith("model.prompt_learner."):
            assert torch.equal(parameter, before[name]), name


def test_one_batch_can_be_learned_by_heart(tmp_path: Path) -> None:
    task = make_task(lr=1e-2)
    trainer = fit(task, tmp_path, max_epochs=40)
    assert trainer.global_step == 40
    assert trainer.callback_metrics["train/loss"].item() < 2e-3
    batch = next(iter(ToyDataModule(str(tmp_path / "toy")).test_dataloader()))
    vision = task.model.encode_image(batch["img"])
    scores = task.model.score(vision, task.model.encode_text(vision.image_features)).score
    assert scores[batch["label"] == 1].min() > scores[batch["label"] == 0].max()


def test_pictures_without_masks_train_the_score_alone(tmp_path: Path) -> None:
    task = make_task()
    trainer = fit(task, tmp_path, masks=False)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert (metrics["train/focal"], metrics["train/dice"]) == (0, 0)
    assert metrics["train/loss"] == pytest.approx(0.2 * metrics["train/cross_entropy"], rel=1e-6)


def test_model_stays_in_evaluation_mode_while_training(tmp_path: Path) -> None:
    task = make_task()
    fit(task, tmp_path)
    assert task.train().training
    assert not any(module.training for module in task.model.modules())


def test_every_epoch_leaves_a_checkpoint_folder_that_builds_the_same_model(tmp_path: Path) -> None:
    task = make_task()
    trainer = fit(task, tmp_path, max_epochs=2, enable_checkpointing=True)
    assert trainer.log_dir == str(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_1", "epoch_2"]
    tensors, config = load_checkpoint(tmp_path / "epoch_2", "crane")
    model = CraneModel.from_config(CraneConfig.from_dict(config))
    model.load_tensors(tensors)
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected, got = task.model(images), model(images)
    # frozen or not, torch picks another attention path for the text tower
    torch.testing.assert_close(got.anomaly_map, expected.anomaly_map, rtol=0, atol=5e-6)
    torch.testing.assert_close(got.score, expected.score, rtol=0, atol=5e-6)
    assert "train/loss" in (tmp_path / "epoch_2" / "README.md").read_text()


def test_checkpoint_of_a_named_clip_holds_the_prompts_alone(tmp_path: Path) -> None:
    # a name stands for the weights; they are random here, nothing is fetched
    task = make_task(config=tiny_config(clip_pretrained="openai"), pretrained=False)
    fit(task, tmp_path, enable_checkpointing=True)
    tensors, _ = load_checkpoint(tmp_path / "epoch_1", "crane")
    assert {name.split(".")[0] for name in tensors} == {"prompt_learner"}
    assert len(tensors) == 4


def test_lightning_checkpoint_round_trip_gives_the_same_output(tmp_path: Path) -> None:
    save_tiny(tmp_path / "start")
    task = CraneTask(initial_checkpoint=str(tmp_path / "start"), lr=0.01)
    trainer = fit(task, tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert len(checkpoint["state_dict"]) == 4

    loaded = CraneTask.load_from_checkpoint(tmp_path / "a.ckpt")
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(images), task.model(images), rtol=0, atol=0)
    assert loaded.lr == 0.01


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    save_tiny(tmp_path / "start")
    whole = CraneTask(initial_checkpoint=str(tmp_path / "start"))
    fit(whole, tmp_path, max_epochs=2)
    first = CraneTask(initial_checkpoint=str(tmp_path / "start"))
    fit(first, tmp_path, max_epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    second = CraneTask(initial_checkpoint=str(tmp_path / "start"))
    fit(second, tmp_path, max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    for name, tensor in whole.model.prompt_state_dict().items():
        torch.testing.assert_close(second.model.prompt_state_dict()[name], tensor, rtol=0, atol=1e-6)


def save_tiny(folder: Path, **changes: Any) -> CraneModel:
    model = tiny_model(seed=5, **changes)
    save_checkpoint(folder, model.tensors(), system="crane", config=model.config.to_dict(), card="")
    return model


def test_initial_checkpoint_brings_its_config_and_overrides_change_it(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "start")
    task = CraneTask(initial_checkpoint=str(tmp_path / "start"), overrides={"sigma": 3.0})
    assert task.model.config == tiny_config(sigma=3.0)
    assert torch.equal(task.model.prompt_learner.ctx_pos, model.prompt_learner.ctx_pos)


def test_initial_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "start")
    with pytest.raises(CheckpointError, match="ctx_"):
        CraneTask(tiny_config(n_ctx=3), initial_checkpoint=str(tmp_path / "start"))


def test_unknown_override_is_named() -> None:
    with pytest.raises(InputError, match="overrides names sigmaa"):
        make_task(overrides={"sigmaa": 1.0})


def test_static_prompts_are_trained_when_context_prob_is_zero(tmp_path: Path) -> None:
    task = make_task(config=tiny_config(context_prob=0.0))
    batch = next(iter(ToyDataModule(str(tmp_path / "toy")).train_dataloader()))
    with torch.no_grad():
        vision = task.model.encode_image(batch["img"])
        static = crane_loss(vision, task.model.encode_text(), batch["label"], batch["mask"], task.model.config).total
    trainer = fit(task, tmp_path)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(static.item(), abs=1e-5)


def test_test_loop_scores_the_model_as_it_is_and_keeps_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_task()
    data = ToyDataModule(str(tmp_path / "toy"), batch_size=3)
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(task, datamodule=data, verbose=False)

    batch = default_collate([data.items[i] for i in range(8)])
    with torch.no_grad():
        output = task.model(batch["img"])
    labels = batch["label"].numpy()
    expected = {
        "image_auroc": roc_auc_score(labels, output.score),
        "image_ap": average_precision_score(labels, output.score),
        "pixel_auroc": roc_auc_score(batch["mask"].flatten() > 0, output.anomaly_map.flatten()),
    }
    table = json.loads((tmp_path / "run/test/metrics.json").read_text())
    (row,) = table["classes"]
    assert (row["cls_name"], row["pictures"], row["anomalous"]) == ("toy", 8, 4)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-5), name
        assert trainer.callback_metrics[f"test//{name}"].item() == pytest.approx(value, abs=1e-5)
    assert f"{100 * row['image_auroc']:.1f}" in capsys.readouterr().out
    lines = (tmp_path / "run/test/metrics.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["cls_name", "toy", "mean"]


def test_examples_are_the_first_pictures_of_each_label(tmp_path: Path) -> None:
    task = make_task(examples=2)
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(task, datamodule=ToyDataModule(str(tmp_path / "toy"), batch_size=3), verbose=False)
    overlays = sorted(path.relative_to(tmp_path / "run/test/examples") for path in tmp_path.rglob("*.overlay.png"))
    assert [str(path) for path in overlays] == [
        "toy/anomalous/1.png.overlay.png",
        "toy/anomalous/3.png.overlay.png",
        "toy/normal/0.png.overlay.png",
        "toy/normal/2.png.overlay.png",
    ]


def test_examples_of_a_class_with_an_odd_name_stay_in_their_folder(tmp_path: Path) -> None:
    data = ToyDataModule(str(tmp_path / "toy"), count=1)
    data.items.cls_name = "../../outside/01 cup"
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(make_task(), datamodule=data, verbose=False)
    (overlay,) = tmp_path.rglob("*.overlay.png")
    assert overlay == tmp_path / "run/test/examples/_outside_01_cup/normal/0.png.overlay.png"


def test_picture_of_an_image_is_what_was_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    assert np.array_equal(as_picture(Preprocess(48)(pixels)), pixels)


def test_testing_on_several_devices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "world_size", 2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(InputError, match=r"Test with --trainer\.devices 1"):
        trainer.test(make_task(), datamodule=ToyDataModule(str(tmp_path / "toy")), verbose=False)


def test_validation_uses_the_prompts_of_testing(tmp_path: Path) -> None:
    task = make_task()
    data = ToyDataModule(str(tmp_path / "toy"))
    data.val_dataset = data.train_dataset  # type: ignore[method-assign]
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.validate(task, datamodule=data, verbose=False)
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        vision = task.model.encode_image(batch["img"])
        loss = crane_loss(vision, task.model.encode_text(), batch["label"], batch["mask"], task.model.config).total
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss.item(), abs=1e-5)


def test_prediction_gives_scores_and_maps(tmp_path: Path) -> None:
    task = make_task()
    data = ToyDataModule(str(tmp_path / "toy"))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (output,) = trainer.predict(task, datamodule=data) or []
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        torch.testing.assert_close(output.score, task.model(batch["img"]).score)
    assert output.anomaly_map.shape == (8, 48, 48)
