import json
import os
from pathlib import Path

import pytest
import torch

from mmattn.core.weights import checkpoint
from mmattn.core.weights.checkpoint import (
    embedded_path,
    load_checkpoint,
    read_card,
    read_config,
    resolve,
    save_checkpoint,
)
from mmattn.errors import CheckpointError, WeightsUnavailableError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    return save_checkpoint(tmp_path / "model", tensors, system="crane", config={"depth": 9}, card="# Card\n")


def test_a_checkpoint_comes_back_as_it_was_saved(folder: Path) -> None:
    tensors, config = load_checkpoint(folder, "crane")
    assert config == {"depth": 9}
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert tensors["b"].dtype == torch.float16
    assert (folder / "README.md").read_text() == "# Card\n"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def test_tied_and_sliced_tensors_are_saved_as_separate_copies(tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    tensors = {"tied": weight, "same": weight, "row": weight[1], "turned": weight.T}
    save_checkpoint(tmp_path / "m", tensors, system="crane", config={}, card="")
    loaded, _ = load_checkpoint(tmp_path / "m", "crane")
    assert {name: value.tolist() for name, value in loaded.items()} == {k: v.tolist() for k, v in tensors.items()}


def test_saving_again_replaces_the_checkpoint_and_keeps_other_files(folder: Path) -> None:
    (folder / "samples").mkdir()
    (folder / "samples" / "x.png").write_bytes(b"picture")
    save_checkpoint(folder, {"c": torch.zeros(1)}, system="crane", config={"depth": 3}, card="new")
    tensors, config = load_checkpoint(folder, "crane")
    assert list(tensors) == ["c"]
    assert config == {"depth": 3}
    assert (folder / "samples" / "x.png").read_bytes() == b"picture"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def test_the_card_of_a_folder_is_read_and_a_missing_one_has_a_default(folder: Path) -> None:
    assert read_card(folder, "# New") == "# Card\n"
    assert read_card(folder / "nowhere", "# New") == "# New"


def test_a_save_that_fails_leaves_the_old_checkpoint_whole(folder: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(folder, {}, system="crane", config={"path": object()}, card="")
    assert read_config(folder, "crane") == {"depth": 9}
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def test_a_failed_rename_brings_the_old_checkpoint_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError("no rename today")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no rename today"):
        save_checkpoint(folder, {"c": torch.zeros(1)}, system="crane", config={}, card="")
    assert read_config(folder, "crane") == {"depth": 9}


def test_a_folder_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"has files in it and is not a checkpoint\. Choose a new folder"):
        save_checkpoint(tmp_path, {}, system="crane", config={}, card="")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(CheckpointError, match="is a file, expected a folder to write"):
        save_checkpoint(tmp_path / "model", {}, system="crane", config={}, card="")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"Checkpoint folder '{tmp_path}/no' does not exist"):
        load_checkpoint(tmp_path / "no", "crane")


def test_a_single_file_hints_at_convert(tmp_path: Path) -> None:
    file = tmp_path / "released.pth"
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a file, expected a checkpoint folder.*mmattn convert crane FILE"):
        load_checkpoint(file, "crane")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"system": "crane"}', '{"model_type": "clip", "config": {}}'])
def test_a_folder_without_our_config_is_no_checkpoint(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"is not an mmattn (checkpoint|config): .*mmattn convert crane"):
        load_checkpoint(tmp_path, "crane")


def test_a_checkpoint_of_another_system_says_which(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a crane checkpoint, expected one of crash\. Use it with: .*crane"):
        load_checkpoint(folder, "crash")


def test_a_newer_format_asks_for_an_update(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"format_version": 7}))
    with pytest.raises(CheckpointError, match=r"has format 7; mmattn .* reads up to 1\. Update with: pip install"):
        load_checkpoint(folder, "crane")


def test_weights_that_are_cut_off_or_missing_are_reported(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 5)
    with pytest.raises(CheckpointError, match=r"model\.safetensors' is damaged or no weights file"):
        load_checkpoint(folder, "crane")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has config\.json but no model\.safetensors"):
        load_checkpoint(folder, "crane")


def test_embedded_is_the_folder_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded_path("crane").parts[-3:] == ("mmattn", "assets", "crane")
    monkeypatch.setattr(checkpoint, "files", lambda package: tmp_path)
    folder = tmp_path / "assets" / "crane"
    folder.mkdir(parents=True)
    with pytest.raises(WeightsUnavailableError, match=r"no embedded crane model \(looked in .*--checkpoint PATH"):
        resolve("crane", "embedded")
    (folder / "model.safetensors").write_bytes(b"")
    assert resolve("crane", "embedded") == folder


def test_a_path_is_returned_and_a_missing_one_named(tmp_path: Path) -> None:
    assert resolve("crane", tmp_path) == tmp_path
    with pytest.raises(
        WeightsUnavailableError, match=r"Checkpoint '.*/no' does not exist\. The checkpoint can be embedded"
    ):
        resolve("crane", tmp_path / "no")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("crane", "~/model") == tmp_path / "model"
