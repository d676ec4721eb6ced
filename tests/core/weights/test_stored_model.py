from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.core.weights.stored_model import (
    StoredModel,
    cast_floating,
    check_sizes,
    load_stored,
    save_stored,
    split_part,
)
from mmattn.errors import CheckpointError, WeightsUnavailableError

OWN = {"weight": torch.tensor([0.5, 0.25]), "partial": torch.tensor([3.0])}
PART = {"weight": torch.tensor([2.0]), "count": torch.tensor([7])}


def depth(stored: dict[str, Any]) -> int:
    if set(stored) != {"depth"}:
        raise ValueError("no depth.")
    return 10 * int(stored["depth"])


def save(folder: Path, config: dict[str, Any] | None = None, dtype: torch.dtype | None = None) -> Path:
    config = config or {"depth": 4}
    return save_stored(folder, OWN, PART, system="crash", prefix="part.", config=config, card="# Card\n", dtype=dtype)


def load(folder: Path) -> StoredModel[int]:
    return load_stored("crash", folder, depth, prefix="part.", what="a risk model", hint="Pass another.")


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in tensors.items()}


def test_model_and_part_lie_in_one_file_and_come_back_apart(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    assert set(load_checkpoint(folder, "crash")[0]) == {"weight", "partial", "part.weight", "part.count"}
    found = load(folder)
    assert found.config == 40
    assert plain(found.tensors) == {"weight": [0.5, 0.25], "partial": [3.0]}
    assert plain(found.part) == {"weight": [2.0], "count": [7]}
    assert found.folder == folder
    assert (folder / "README.md").read_text() == "# Card\n"


def test_the_model_comes_in_single_precision_and_the_part_as_it_is_stored(tmp_path: Path) -> None:
    found = load(save(tmp_path / "m", dtype=torch.float16))
    assert {name: tensor.dtype for name, tensor in found.tensors.items()} == dict.fromkeys(OWN, torch.float32)
    assert {name: tensor.dtype for name, tensor in found.part.items()} == {
        "weight": torch.float16,
        "count": torch.int64,
    }


def test_a_config_of_something_else_is_refused_with_the_reason_and_the_hint(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", {"widths": [1]})
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.message == f"The config of '{folder}' is none of a risk model: no depth."
    assert caught.value.hint == "Pass another."
    with pytest.raises(CheckpointError, match="is none of a risk model"):
        load(save(tmp_path / "text", {"depth": []}))  # a TypeError


@dataclass
class Sizes:
    depth: int
    rate: float = 1.0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Sizes:
        return cls(**data)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"depth": "four"}, "depth is 'four', expected a whole number"),
        ({"depth": 1, "rate": None}, "rate is None, expected a number"),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = save(tmp_path / "m", config)
    with pytest.raises(CheckpointError, match=message):
        load_stored("crash", folder, Sizes.from_dict, prefix="part.", what="a risk model")
    good = load_stored(
        "crash", save(tmp_path / "good", {"depth": 3}), Sizes.from_dict, prefix="part.", what="a risk model"
    )
    assert good.config == Sizes(3)


def test_sizes_beyond_every_tensor_are_refused() -> None:
    tensors = {"a": torch.zeros(2, 5), "b": torch.zeros(())}
    check_sizes({"dim": 5, "layers": 2}, tensors, what="The model")
    with pytest.raises(CheckpointError, match="dim makes a size of 6, and no tensor in the file is longer than 5"):
        check_sizes({"layers": 2, "dim": 6}, tensors, what="The model")
    with pytest.raises(CheckpointError, match="longer than 0"):
        check_sizes({"dim": 1}, {}, what="The model")


def test_a_folder_that_is_not_there_or_of_another_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="does not exist"):
        load(tmp_path / "nowhere")
    save_stored(tmp_path / "other", OWN, {}, system="lina", prefix="part.", config={"depth": 1}, card="")
    with pytest.raises(CheckpointError, match="is a lina checkpoint, expected one of crash"):
        load(tmp_path / "other")


def test_a_prefix_is_taken_off_once_and_only_at_the_start() -> None:
    one, two, three = torch.tensor(1), torch.tensor(2), torch.tensor(3)
    own, part = split_part({"a.codec.w": one, "codec.w": two, "codec.codec.w": three}, "codec.")
    assert own == {"a.codec.w": one}
    assert part == {"w": two, "codec.w": three}


def test_only_floating_tensors_are_cast() -> None:
    cast = cast_floating({"w": torch.tensor([0.1]), "n": torch.tensor([3]), "b": torch.tensor([True])}, torch.float16)
    assert {name: tensor.dtype for name, tensor in cast.items()} == {
        "w": torch.float16,
        "n": torch.int64,
        "b": torch.bool,
    }
    assert cast["n"].tolist() == [3]
