import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.cli import main
from mmattn.core.weights.checkpoint import save_checkpoint
from tests.vision.crane.tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny Crane checkpoint ``model`` and pictures ``photos``, one of them broken."""
    model = tiny_model()
    save_checkpoint(tmp_path / "model", model.state_dict(), system="crane", config=model.config.to_dict(), card="")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for name in ("x.png", "a/x.png", "b/x.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnope")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_goes_in_and_results_errors_and_a_page_come_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "crane", "photos", "--output", "out", "--checkpoint", "model", "--device", "cpu"]
    assert main(command) == 1
    records = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [Path(r["input"]).relative_to(folder / "photos").as_posix() for r in records] == [
        "x.png",
        "a/x.png",
        "b/x.jpg",
    ]
    assert all((folder / "out" / output).is_file() for record in records for output in record["outputs"])
    assert all(0 <= record["score"] <= 1 for record in records)
    assert records[0]["score"] == records[1]["score"]
    (error,) = [json.loads(line) for line in Path("out/errors.jsonl").read_text().splitlines()]
    assert error["input"] == str(folder / "photos" / "b" / "broken.png")
    assert error["error"].endswith("broken.png is not a picture that can be read.")
    assert Path("out/index.html").is_file()
    assert "3 done, 1 failed (see errors.jsonl)" in capsys.readouterr().err

    (folder / "photos" / "b" / "broken.png").unlink()
    assert main(command) == 0
    assert "0 done, 3 done before" in capsys.readouterr().err
    assert main([*command, "--sigma", "2"]) == 2
    assert "holds results of other options: sigma was unset, is 2.0." in capsys.readouterr().err


def test_a_missing_embedded_model_names_the_flag_and_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmattn.core.weights.checkpoint.files", lambda package: folder)
    assert main(["infer", "crane", "photos", "--output", "out"]) == 2
    err = capsys.readouterr().err
    assert "This installation has no embedded crane model" in err
    assert "--checkpoint PATH" in err
    assert not Path("out").exists()
