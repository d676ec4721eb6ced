from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.core.config_fields import from_plain
from mmattn.core.weights.checkpoint import load_checkpoint, save_checkpoint
from mmattn.core.weights.stored_model import StoredModel, cast_floating, split_part
from mmattn.errors import CheckpointError, WeightsUnavailableError

OWN = {"weight": torch.tensor([0.5, 0.25]), "partial": torch.tensor([3.0])}
PART = {"weight": torch.tensor([2.0]), "count": torch.tensor([7])}


@dataclass(frozen=True)
class Sizes:
    depth: int
    rate: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Sizes:
        return from_plain(cls, data, what="The config")


class Stored(StoredModel[Sizes]):
    SYSTEM, CONFIG, WHAT, PREFIX, HINT = "crash", Sizes, "a risk model", "part.", "Pass another."


def save(folder: Path, dtype: torch.dtype | None = None) -> Path:
    return Stored(Sizes(4), OWN, PART).save(folder, card="# Card\n", dtype=dtype)


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in tensors.items()}


def test_model_and_part_lie_in_one_file_and_come_back_apart(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    assert set(load_checkpoint(folder, "crash")[0]) == {"weight", "partial", "part.weight", "part.count"}
    found = Stored.load(folder)
    assert found.config == Sizes(4)
    assert plain(found.tensors) == {"weight": [0.5, 0.25], "partial": [3.0]}
    assert plain(found.part) == {"weight": [2.0], "count": [7]}
    assert found.folder == folder
    assert (folder / "README.md").read_text() == "# Card\n"


def test_the_model_comes_in_single_precision_and_the_part_as_it_is_stored(tmp_path: Path) -> None:
    found = Stored.load(save(tmp_path / "m", dtype=torch.float16))
    assert {name: tensor.dtype for name, tensor in found.tensors.items()} == dict.fromkeys(OWN, torch.float32)
    assert {name: tensor.dtype for name, tensor in found.part.items()} == {
        "weight": torch.float16,
        "count": torch.int64,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widths": [1]}, "The config has no field widths; the file may be of a newer version."),
        ({"depth": "four"}, "depth is 'four', expected a whole number."),
        ({"depth": 1, "rate": None}, "rate is None, expected a number."),
        ({"depth": []}, "depth is [], expected a whole number."),
        ({}, "Sizes.__init__() missing 1 required positional argument: 'depth'"),
    ],
)
def test_a_config_of_something_else_is_refused_with_the_reason_and_the_hint(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    folder = save_checkpoint(tmp_path / "m", OWN, system="crash", config=config, card="")
    with pytest.raises(CheckpointError) as caught:
        Stored.load(folder)
    assert caught.value.message == f"The config of '{folder}' is none of a risk model: {message}"
    assert caught.value.hint == "Pass another."


def test_a_folder_that_is_not_there_or_of_another_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="does not exist"):
        Stored.load(tmp_path / "nowhere")
    save_checkpoint(tmp_path / "other", OWN, system="lina", config={"depth": 1}, card="")
    with pytest.raises(CheckpointError, match="is a lina checkpoint, expected one of crash"):
        Stored.load(tmp_path / "other")


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
