"""``mmattn infer|convert|calibrate|data|info crash`` from the command line, on good input and on bad."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.cli import main
from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.media.video import open_video
from mmattn.video.crash.datasets.feature_folder import FeatureFolder
from mmattn.video.crash.datasets.layouts import read_clips
from mmattn.video.crash.model import build_model
from mmattn.video.crash.weights.convert import to_published
from mmattn.video.crash.weights.store import StoredCrash
from tests.video.crash.fake_datasets import write_a3d, write_ccd, write_dad_batches
from tests.video.crash.tiny import tiny_config
from tests.video.crash.tiny_door import save_embedded, write_drive


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_embedded(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    for name, count in (("a/x.mp4", 12), ("b/x.mp4", 6)):
        write_drive(tmp_path / "drives" / name, count)
    return tmp_path / "drives"


def infer(*arguments: object, model: str) -> int:
    return main(["infer", "crash", *map(str, arguments), "--checkpoint", model])


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def test_a_folder_becomes_curves_alerts_overlays_and_a_page(drives: Path, tmp_path: Path, model: str):
    out = tmp_path / "out"
    words = ["--alert-threshold", 0.0, "--persistence", 3, "--cooldown", 1]
    assert infer(drives, "--output", out, *words, model=model) == 0
    found = {Path(r["input"]).relative_to(drives).as_posix(): r for r in records(out)}
    assert set(found) == {"a/x.mp4", "b/x.mp4"}
    record = found["a/x.mp4"]
    kinds = ["overlay.mp4", "risk.json", "risk.csv", "curve.png", "result.npz", "peak.png"]
    assert record["outputs"] == [f"a/x.mp4.{kind}" for kind in kinds]
    assert all((out / path).is_file() for path in record["outputs"])
    assert (record["label"], len(record["risk"]), [alert["frame"] for alert in record["alerts"]]) == ("alert", 12, [2])
    page = (out / "index.html").read_text()
    assert "a/x.mp4.overlay.mp4" in page
    assert "Advisory only" in page
    assert "x.mp4.curve.png" in page
    with open_video(out / "b/x.mp4.overlay.mp4") as video:
        assert len(video) == 6


def test_a_second_run_skips_and_other_options_are_refused(drives: Path, tmp_path: Path, model: str, capsys):
    out = tmp_path / "out"
    infer(drives, "--output", out, "--no-overlay", model=model)
    assert all(not path.endswith(".mp4") for record in records(out) for path in record["outputs"])
    capsys.readouterr()
    assert infer(drives, "--output", out, "--no-overlay", model=model) == 0
    assert "0 done, 2 done before" in capsys.readouterr().err
    assert infer(drives, "--output", out, "--no-overlay", "--persistence", 5, model=model) == 2
    assert "persistence was 3, is 5" in capsys.readouterr().err


def test_bad_files_are_reported_and_the_rest_goes_on(drives: Path, tmp_path: Path, model: str):
    whole = (drives / "a/x.mp4").read_bytes()
    (drives / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (drives / "empty.mp4").write_bytes(b"")
    np.savez(drives / "wrong.npz", data=np.zeros((5, 2, 3)))
    write_drive(drives / "one.mp4", 1)
    out = tmp_path / "out"
    assert infer(drives, "--output", out, "--no-overlay", model=model) == 1
    errors = {Path(e["input"]).name: e["error"] for e in map(json.loads, (out / "errors.jsonl").open())}
    assert set(errors) == {"half.mp4", "empty.mp4", "wrong.npz"}
    assert all(name in message for name, message in errors.items())
    assert len(records(out)) == 3
    assert "half.mp4" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alert-threshold", "1.5"], "alert_threshold is 1.5, expected a number in [0, 1]"),
        (["--persistence", "0"], "persistence is 0"),
        (["--cooldown", "-1"], "cooldown is -1"),
        (["--boxes", "nowhere.csv"], "finds road users itself"),
        (["--mc-samples", "0"], "mc_samples is 0"),
        (["--device", "quantum"], "quantum"),
    ],
)
def test_wrong_options_end_with_one_message_and_no_folder(
    drives: Path, tmp_path: Path, model: str, arguments: list[str], message: str, capsys
):
    assert infer(drives, "--output", tmp_path / "out", *arguments, model=model) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_calibration_gives_a_threshold_that_keeps_the_rate(drives: Path, tmp_path: Path, model: str, capsys):
    words = [
        "calibrate",
        "crash",
        str(drives),
        "--checkpoint",
        model,
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "c"),
    ]
    assert main([*words, "--false-alarms-per-hour", "0", "--persistence", "2"]) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "c/calibration.json").read_text())
    assert f"threshold {found['threshold']:.3f}: 0 false alarms in 0.00 h of 2 videos" in out
    assert "--alert-threshold" in out
    assert (found["alerts"], found["persistence"], found["videos"]) == (0, 2, 2)
    flags = ["--alert-threshold", found["threshold"], "--persistence", 2, "--no-overlay"]
    infer(drives, "--output", tmp_path / "out", *flags, model=model)
    assert [record["label"] for record in records(tmp_path / "out")] == ["no alert", "no alert"]
    lower = ["--alert-threshold", found["threshold"] - 0.001, "--persistence", 2, "--no-overlay"]
    infer(drives, "--output", tmp_path / "lower", *lower, model=model)
    assert "alert" in {record["label"] for record in records(tmp_path / "lower")}


def test_calibration_leaves_broken_videos_out(drives: Path, model: str, capsys):
    (drives / "empty.mp4").write_bytes(b"")
    assert main(["calibrate", "crash", str(drives), "--checkpoint", model, "--device", "cpu"]) == 1
    assert "left out" in capsys.readouterr().err


def test_a_published_checkpoint_is_converted_and_used(tmp_path: Path, capsys):
    config = tiny_config(tfa_output="softmax", use_aux=False)
    torch.manual_seed(0)
    tensors = build_model(config).state_dict()
    torch.save({"epoch": 3, "model": to_published(tensors, config)}, tmp_path / "model.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmattn.video.crash.weights.convert.DATASETS", {"ccd": {
            name: getattr(config, name) for name in ("num_boxes", "window", "tfa_heads", "perception")}})  # fmt: skip
        code = main(
            ["convert", "crash", str(tmp_path / "model.pth"), "--output", str(tmp_path / "m"), "--dataset", "ccd"]
        )
    assert code == 0
    assert "mmattn infer crash VIDEOS --checkpoint" in capsys.readouterr().out
    stored = StoredCrash.load(tmp_path / "m")
    torch.testing.assert_close(stored.tensors["phi_x.weight"], tensors["phi_x.weight"])


def test_each_target_can_be_named(tmp_path: Path, capsys):
    dad, a3d = write_dad_batches(tmp_path / "dad"), write_a3d(tmp_path / "a3d")
    words = ["convert", "crash"]
    assert main([*words, str(dad), "--output", str(tmp_path / "split"), "--to", "clips"]) == 0
    assert f"Wrote 12 clips below {tmp_path / 'split'}." in capsys.readouterr().out
    assert main([*words, str(a3d), "--output", str(a3d), "--to", "boxes"]) == 0
    assert f"Wrote 8 clips to {a3d}." in capsys.readouterr().out
    assert main([*words, str(a3d), "--output", str(tmp_path / "features"), "--to", "features"]) == 0
    assert len(read_clips("features", tmp_path / "features")) == 8


def test_a_conversion_names_what_failed(tmp_path: Path, capsys):
    root = write_ccd(tmp_path / "ccd")
    file = root / "vgg16_features/positive/000001.npz"
    file.write_bytes(b"PK")
    assert main(["convert", "crash", str(root), "--output", str(tmp_path / "features"), "--layout", "ccd"]) == 1
    out, err = capsys.readouterr()
    assert f"failed: positive/000001: '{file}' is damaged or no npz file" in err
    assert err.endswith("1 clips failed.\n")
    assert out == f"Wrote 7 clips to {tmp_path / 'features'}.\n"


def test_a_conversion_refuses_unknown_targets(tmp_path: Path, capsys):
    assert main(["convert", "crash", str(tmp_path), "--output", str(tmp_path / "out"), "--to", "shards"]) == 2
    assert "invalid choice: 'shards'" in capsys.readouterr().err


def test_datasets_are_converted_by_what_they_are(tmp_path: Path, capsys):
    ccd, a3d, dad = write_ccd(tmp_path / "ccd"), write_a3d(tmp_path / "a3d"), write_dad_batches(tmp_path / "dad")
    assert main(["convert", "crash", str(ccd), "--output", str(tmp_path / "features")]) == 0
    assert "Wrote 8 clips to" in capsys.readouterr().out
    assert FeatureFolder.open(tmp_path / "features").manifest.fps == 10
    assert main(["data", "check", "crash", str(tmp_path / "features"), "--layout", "features"]) == 0
    assert main(["convert", "crash", str(a3d), "--output", str(a3d)]) == 0
    assert list(a3d.glob("detections/*/*.npz"))
    assert main(["convert", "crash", str(dad), "--output", str(tmp_path / "split")]) == 0
    assert len(list((tmp_path / "split").rglob("*.npz"))) == 12


def test_features_of_ones_own_videos_are_made_by_a_models_perception(drives: Path, tmp_path: Path, model: str, capsys):
    words = ["convert", "crash", str(drives), "--output", str(tmp_path / "features"), "--checkpoint", model]
    assert main(words) == 0
    folder = FeatureFolder.open(tmp_path / "features")
    assert folder.load("a/x").features.shape[0] == 12
    capsys.readouterr()
    assert main(words) == 0
    assert "Wrote 0 clips" in capsys.readouterr().out


def test_generated_clips_are_written_as_a_dataset_of_videos(tmp_path: Path, capsys):
    assert main(["data", "make", "crash", str(tmp_path / "set"), "--split", "val", "--clips", "2"]) == 0
    rows = list(csv.DictReader((tmp_path / "set/annotations.csv").open()))
    assert [row["label"] for row in rows] == ["1", "0"]
    with open_video(tmp_path / "set" / rows[0]["file"]) as video:
        assert (len(video), video.size) == (50, (180, 320))
    capsys.readouterr()
    main(["data", "check", "crash", str(tmp_path / "set"), "--layout", "videos"])
    out = capsys.readouterr().out
    assert "val: 1 accidents, 1 other clips" in out
    assert "ok" in out
    assert main(["data", "make", "crash", str(tmp_path / "x"), "--split", "none"]) == 2
    assert main(["data", "make", "crash", str(tmp_path / "x"), "--clips", "0"]) == 2


def test_info_names_the_system(capsys):
    assert main(["info", "--json"]) == 0
    assert "crash" in json.loads(capsys.readouterr().out)["embedded_models"]


def test_the_help_of_every_command_has_an_example_of_the_system(capsys):
    for words in (["infer"], ["convert"], ["calibrate"], ["data", "make"], ["data", "check"]):
        assert main([*words, "crash", "--help"]) == 0
        out = capsys.readouterr().out
        assert f"example:\n  mmattn {' '.join(words)} crash " in out
    main(["infer", "crash", "--help"])
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--alert-threshold", "--persistence", "--cooldown", "--live", "--boxes"))


def test_a_checkpoint_of_features_alone_reads_public_files(tmp_path: Path):
    ccd = write_ccd(tmp_path / "ccd")
    config = tiny_config(feature_dim=6, num_boxes=3)
    torch.manual_seed(0)
    StoredCrash(config, build_model(config).state_dict(), {}).save(tmp_path / "m", card="#")
    out = tmp_path / "out"
    assert infer(ccd / "vgg16_features/positive", "--output", out, model=str(tmp_path / "m")) == 0
    assert [len(record["risk"]) for record in records(out)] == [50] * 4
    assert (out / "000001.npz.result.npz").is_file()
    save_checkpoint(tmp_path / "other", {"x": torch.zeros(1)}, system="crane", config={}, card="#")
    assert infer(ccd, "--output", tmp_path / "no", model=str(tmp_path / "other")) == 2
