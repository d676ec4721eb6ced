import os
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmattn.core.weights.torch_file import load_torch_file, read_entries, read_state
from mmattn.errors import CheckpointError


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


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 4},
        lambda state: {"model": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {"model": state}},
    ],
    ids=["bare", "state_dict", "model", "model-state_dict", "state_dict-model"],
)
def test_tensors_are_found_however_they_were_wrapped(tmp_path: Path, wrap: object) -> None:
    torch.save(wrap({"module.w": torch.ones(2), "b": torch.zeros(1)}), tmp_path / "w.pth")  # type: ignore[operator]
    assert set(read_entries(tmp_path / "w.pth")) == {"module.w", "b"}
    state = read_state(tmp_path / "w.pth")
    assert {name: tensor.tolist() for name, tensor in state.items()} == {"w": [1.0, 1.0], "b": [0.0]}


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3}, {}], ids=["list", "numbers", "empty"])
def test_a_file_without_named_tensors_is_no_state(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth' holds no CLIP weights: expected a table of named tensors"):
        read_state(tmp_path / "w.pth", what="CLIP weights")
