"""``mmattn infer|calibrate|export crane`` from the command line, on good input and on all kinds of bad input."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.cli import main
from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.media.video_writer import VideoWriter
from mmattn.vision.crane.config import CraneInferOptions
from mmattn.vision.crane.predictor import CranePredictor
from tests.vision.crane.tiny import tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = tiny_model()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(folder, model.tensors(), system="crane", config=model.config.to_dict(), card="# tiny")
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, name in enumerate(["a/x.png", "b/x.png", "y.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def infer(*arguments: object, checkpoint: str) -> int:
    return main(["infer", "crane", *map(str, arguments), "--checkpoint", checkpoint, "--device", "cpu"])


def records(output: Path) -> dict[str, dict]:
    lines = (output / "results.jsonl").read_text().splitlines()
    return {Path(r["input"]).relative_to(output.parent / "photos").as_posix(): r for r in map(json.loads, lines)}


def test_a_folder_becomes_scores_maps_overlays_and_a_page(photos: Path, tmp_path: Path, checkpoint: str):
    out = tmp_path / "out"
    assert infer(photos, "--output", out, "--batch-size", 2, checkpoint=checkpoint) == 0
    found = records(out)
    assert set(found) == {"a/x.png", "b/x.png", "y.jpg"}
    assert found["a/x.png"]["outputs"] == ["a/x.png.overlay.png", "a/x.png.map.png", "a/x.png.picture.jpg"]
    assert found["a/x.png"]["score"] != found["b/x.png"]["score"]
    page = (out / "index.html").read_text()
    assert all(f"{name}.overlay.png" in page for name in found)


def test_the_page_is_sorted_by_score(photos: Path, tmp_path: Path, checkpoint: str):
    out = tmp_path / "out"
    infer(photos, "--output", out, checkpoint=checkpoint)
    page = (out / "index.html").read_text()
    best = sorted(records(out).items(), key=lambda pair: -pair[1]["score"])
    positions = [page.index(f"{name}.overlay.png") for name, _ in best]
    assert positions == sorted(positions)


def test_the_threshold_decides_the_label(photos: Path, tmp_path: Path, checkpoint: str):
    infer(photos, "--output", tmp_path / "low", "--threshold", 0, checkpoint=checkpoint)
    infer(photos, "--output", tmp_path / "high", "--threshold", 1, checkpoint=checkpoint)
    assert {r["label"] for r in records(tmp_path / "low").values()} == {"anomalous"}
    assert {r["label"] for r in records(tmp_path / "high").values()} == {"normal"}


def test_bad_files_are_reported_and_the_rest_goes_on(photos: Path, tmp_path: Path, checkpoint: str):
    (photos / "text.png").write_text("no picture")
    whole = (photos / "y.jpg").read_bytes()
    (photos / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").write_bytes(b"")
    nan = np.full((20, 20), np.nan, np.float32)
    Image.fromarray(nan, mode="F").save(photos / "nan.tiff")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(photos / "dot.png")
    out = tmp_path / "out"
    assert infer(photos, "--output", out, checkpoint=checkpoint) == 1
    errors = {Path(e["input"]).name: e["error"] for e in map(json.loads, (out / "errors.jsonl").open())}
    assert set(errors) == {"text.png", "half.jpg", "empty.png", "nan.tiff"}
    assert all(name in message for name, message in errors.items())
    assert set(records(out)) == {"a/x.png", "b/x.png", "y.jpg", "dot.png"}
    assert "nan.tiff" in (out / "index.html").read_text()


def test_a_picture_of_twenty_thousand_pixels_is_scored(photos: Path, tmp_path: Path, checkpoint: str):
    Image.new("RGB", (20_000, 600), (120, 90, 60)).save(photos / "wide.jpg")
    assert infer(photos / "wide.jpg", "--output", tmp_path / "out", checkpoint=checkpoint) == 0
    record = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    assert record["image_size"] == [600, 20_000]
    with Image.open(tmp_path / "out" / "wide.jpg.overlay.png") as overlay:
        assert max(overlay.size) <= 1600


def test_a_video_gets_overlay_and_curve(tmp_path: Path, checkpoint: str):
    with VideoWriter(tmp_path / "line.mp4", fps=8.0) as writer:
        for i in range(16):
            writer.write(np.full((64, 80, 3), 15 * i, np.uint8))
    assert infer(tmp_path / "line.mp4", "--output", tmp_path / "out", "--video-fps", 4, checkpoint=checkpoint) == 0
    record = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    assert record["seconds_of_frames"] == pytest.approx([i / 4 for i in range(8)], abs=0.01)
    assert "line.mp4.overlay.mp4" in (tmp_path / "out" / "index.html").read_text()


def test_normal_pictures_and_mutual_scoring_change_the_scores(photos: Path, tmp_path: Path, checkpoint: str):
    infer(photos, "--output", tmp_path / "zero", checkpoint=checkpoint)
    infer(photos, "--output", tmp_path / "few", "--normal-images", photos / "a", checkpoint=checkpoint)
    infer(photos, "--output", tmp_path / "mutual", "--mutual", checkpoint=checkpoint)
    zero, few, mutual = (records(tmp_path / name) for name in ("zero", "few", "mutual"))
    share = 1 - CraneInferOptions().memory_weight  # the picture is in the memory, which adds nothing
    assert few["a/x.png"]["score"] == pytest.approx(share * zero["a/x.png"]["score"], abs=1e-3)
    assert few["y.jpg"]["score"] > few["a/x.png"]["score"]
    assert all(mutual[name]["score"] != zero[name]["score"] for name in zero)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "1.5"], "threshold is 1.5, expected a number in [0, 1]"),
        (["--threshold", "nan"], "threshold is nan"),
        (["--sigma", "-2"], "sigma is -2"),
        (["--recipe", "best"], "best"),
        (["--mutual", "--normal-images", "x"], "exclude each other"),
        (["--normal-images", "nowhere"], "nowhere"),
        (["--device", "quantum"], "quantum"),
        (["--clip-pretrained", "openai"], "holds its own CLIP"),
    ],
)
def test_wrong_options_end_with_one_message(
    arguments: list[str],
    message: str,
    photos: Path,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
):
    out = photos.parent / "out"
    try:
        code = main(["infer", "crane", str(photos), "--output", str(out), "--checkpoint", checkpoint, *arguments])
    except SystemExit as error:  # argparse's own way out
        code = error.code
    shown = capsys.readouterr().err
    assert code == 2
    assert message in shown
    assert "Traceback" not in shown
    assert not (out / "results.jsonl").exists()


def test_an_empty_folder_and_a_missing_file_are_named(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "nothing").mkdir()
    assert infer(tmp_path / "nothing", "--output", tmp_path / "out", checkpoint=checkpoint) == 2
    assert "nothing" in capsys.readouterr().err
    assert infer(tmp_path / "gone.png", "--output", tmp_path / "out", checkpoint=checkpoint) == 2
    assert "gone.png" in capsys.readouterr().err


def test_an_output_that_cannot_be_made_is_named(photos: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]):
    assert infer(photos, "--output", photos / "y.jpg" / "out", checkpoint=checkpoint) == 2
    assert "y.jpg" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_unreadable_input_and_unwritable_output_are_named(photos: Path, tmp_path: Path, checkpoint: str):
    (photos / "y.jpg").chmod(0)
    assert infer(photos, "--output", tmp_path / "out", checkpoint=checkpoint) == 1
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert infer(photos, "--output", locked / "out", checkpoint=checkpoint) == 2


def test_another_systems_checkpoint_and_a_damaged_one_are_refused(
    photos: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
):
    import torch

    save_checkpoint(tmp_path / "crash", {"w": torch.zeros(1)}, system="crash", config={}, card="#")
    assert infer(photos, "--output", tmp_path / "out", checkpoint=str(tmp_path / "crash")) == 2
    assert "is a crash checkpoint" in capsys.readouterr().err
    model = tiny_model()
    tensors = {**model.tensors(), "extra.weight": torch.zeros(1)}
    save_checkpoint(tmp_path / "odd", tensors, system="crane", config=model.config.to_dict(), card="#")
    assert infer(photos, "--output", tmp_path / "out", checkpoint=str(tmp_path / "odd")) == 2
    assert "extra.weight" in capsys.readouterr().err


def test_weights_that_are_not_there_are_named_with_the_flag_that_takes_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from mmattn.vision.crane.config import CraneConfig

    config = CraneConfig(image_size=336)
    save_checkpoint(tmp_path / "released", {}, system="crane", config=config.to_dict(), card="#")
    assert infer(photos, "--output", tmp_path / "out", checkpoint=str(tmp_path / "released")) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "ViT-L-14-336-quickgelu" in shown
    assert "--clip-pretrained" in shown


def test_calibration_prints_a_threshold_that_infer_takes(
    photos: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
):
    arguments = ["calibrate", "crane", str(photos), "--checkpoint", checkpoint, "--output", str(tmp_path / "cal")]
    assert main([*arguments, "--false-alarm-rate", "0.25"]) == 0
    found = json.loads((tmp_path / "cal" / "calibration.json").read_text())
    assert found["guaranteed"]
    assert found["threshold"] == max(found["scores"])
    assert f"--threshold {found['threshold']:.4f}" in capsys.readouterr().out
    assert main([*arguments, "--false-alarm-rate", "2"]) == 2


def test_calibration_leaves_broken_pictures_out_and_scores_as_the_predictor_does(
    photos: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
):
    predictor = CranePredictor.from_pretrained(checkpoint)
    expected = sorted(predictor.predict(photos / name).score for name in ("a/x.png", "b/x.png", "y.jpg"))
    (photos / "empty.png").write_bytes(b"")
    arguments = ["calibrate", "crane", str(photos), "--checkpoint", checkpoint, "--output", str(tmp_path / "cal")]
    assert main(arguments) == 1
    assert json.loads((tmp_path / "cal" / "calibration.json").read_text())["scores"] == expected
    printed = capsys.readouterr()
    assert f"left out: {photos / 'empty.png'}" in printed.err
    assert f"Wrote {tmp_path / 'cal' / 'calibration.json'}" in printed.out


def test_export_writes_both_files(tmp_path: Path, checkpoint: str):
    assert main(["export", "crane", "--checkpoint", checkpoint, "--output", str(tmp_path / "e")]) == 0
    assert {p.name for p in (tmp_path / "e").iterdir()} == {"crane.pt2", "crane.onnx", "export.json"}
