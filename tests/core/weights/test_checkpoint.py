import json
import os
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmattn.core.weights.checkpoint import (
    check_keys,
    load_checkpoint,
    load_torch_file,
    read_card,
    read_config,
    save_checkpoint,
)
from mmattn.errors import CheckpointError


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


def test_check_keys_counts_and_names_the_first() -> None:
    model = nn.Linear(2, 2)
    result = model.load_state_dict({"weight": torch.zeros(2, 2), "w1": torch.zeros(1)}, strict=False)
    with pytest.raises(CheckpointError, match=r"1 missing \(bias\) and 1 unexpected \(w1\) tensors"):
        check_keys(result.missing_keys, result.unexpected_keys)
    with pytest.raises(CheckpointError, match=r"^prompts\.pth does not fit the model: 5 missing \(0, 1, 2, \.\.\.\)"):
        check_keys([str(i) for i in range(5)], [], what="prompts.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_torch_file_of_tensors_is_read(tmp_path: Path, legacy: bool) -> None:
    state = {"state_dict": {"w": torch.arange(3.0)}, "epoch": 4}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_torch_file(tmp_path / "w.pth")
    assert loaded["epoch"] == 4
    assert loaded["state_dict"]["w"].tolist() == [0, 1, 2]


def test_a_safetensors_file_is_read_the_same_way(tmp_path: Path) -> None:
    save_file({"w": torch.arange(3.0)}, tmp_path / "w.safetensors")
    assert load_torch_file(tmp_path / "w.safetensors")["w"].tolist() == [0, 1, 2]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("content", [Namespace(lr=1), Bomb()], ids=["namespace", "code"])
def test_pickled_objects_are_refused_and_never_run(
    tmp_path: Path, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"args": content}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds pickled objects, not only tensors.*torch\.save\(model"):
        load_torch_file("w.pth")
    assert not (tmp_path / "exploded").exists()


def test_a_torchscript_archive_says_how_to_get_its_tensors(tmp_path: Path) -> None:
    archive = tmp_path / "clip.pt"
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.script(nn.Linear(1, 1)).save(archive)
    with pytest.raises(CheckpointError, match=r"is a TorchScript archive, expected a file of tensors"):
        load_torch_file(archive)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<html>404</html>", b"PK\x03\x04cut off", b"junk", b"\x00\x00", b"}q\x00.", b"0", b"hello, text\n",
        pickle.dumps({"a": 1}, protocol=2), pickle.dumps({"a": 1}, protocol=0), b"PK\x05\x06" + bytes(range(18)),
    ],
)  # fmt: skip
def test_a_file_that_is_no_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"w\.pth' is damaged or no weights file: .+\. Download or copy"
    ) as caught:
        load_torch_file(tmp_path / "w.pth")
    assert "weights_only" not in str(caught.value)  # torch advises to run code from the file
    with pytest.raises(CheckpointError, match=r"Weights file '.*x\.pth' does not exist"):
        load_torch_file(tmp_path / "x.pth")
