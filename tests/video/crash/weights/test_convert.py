"""Checkpoints in the published layout, and files that are not what they should be."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmattn.bench.peers.crash import PerStepCrash
from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.video.crash.config import TRAINING_SETTINGS, CrashConfig
from mmattn.video.crash.model import RiskModel, build_model
from mmattn.video.crash.network.heads import positional_encoding
from mmattn.video.crash.weights.convert import convert, from_published, read_published, to_published
from mmattn.video.crash.weights.names import joins
from tests.video.crash.tiny import tiny_config, tiny_model

BASE = CrashConfig(num_boxes=4, window=5, fps=20.0)
SIZES: dict[str, Any] = {"window": 5, "tfa_layers": 3, "tfa_heads": 8, "num_layers": 2}


def published(dim: int = 16, grid: tuple[int, int] = (4, 4), feature_dim: int = 12, **sizes: Any) -> dict[str, Tensor]:
    """A state dict as the published code saves it, with values of its own."""
    torch.manual_seed(0)
    options = SIZES | sizes
    state = dict(PerStepCrash(feature_dim, dim, grid, **options).state_dict())
    for stack in range(1, options["num_layers"] + 1):
        for layer in range(options["tfa_layers"]):
            state[f"RSD.layer{stack}.{2 * layer}.fc.weight"] = torch.randn(dim, dim)
            state[f"RSD.layer{stack}.{2 * layer}.fc.bias"] = torch.randn(dim)
    state["fftblock.channel_attention.fc1.weight"] = torch.zeros(0, 12)
    state["fftblock.channel_attention.fc2.weight"] = torch.zeros(6, 0)
    state["self_aggregation.pos_encoder.pos_encoding"] = positional_encoding(100, dim)[None]
    return state


def save(content: object, tmp_path: Path, name: str = "output/dad/model_EE.pth") -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


def load(folder: Path) -> RiskModel:
    tensors, config = load_checkpoint(folder, "crash")
    model = build_model(CrashConfig.from_dict(config))
    model.load_tensors(tensors)
    return model


@pytest.mark.parametrize(
    ("grid", "feature_dim", "layers"),
    [((4, 4), 12, 3), ((8, 2), 7, 2), ((2, 8), 20, 1)],
    ids=["square", "tall", "wide"],
)
@torch.no_grad()
def test_sizes_are_read_off_the_tensors_and_scores_are_the_same(
    grid: tuple[int, int], feature_dim: int, layers: int, tmp_path: Path
) -> None:
    state = published(16, grid, feature_dim, tfa_layers=layers)
    model = load(convert(save({"model": state}, tmp_path), tmp_path / "out", base=BASE))
    assert (model.config.hidden_dim, model.config.grid, model.config.feature_dim) == (16, grid, feature_dim)
    assert (model.config.tfa_layers, model.config.num_layers, model.config.architecture) == (layers, 2, "crash")
    assert (model.config.channel_attention, model.config.tfa_output) == ("upstream", "softmax")
    peer = PerStepCrash(feature_dim, 16, grid, **(SIZES | {"tfa_layers": layers}))
    peer.load_state_dict(state, strict=False)
    features = torch.rand(2, 9, 5, feature_dim)
    ours, theirs = model(features), peer(features)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.aux_logits, theirs.aux_logits, atol=1e-6, rtol=1e-5)


LAYOUTS = {
    "published": lambda state: {"epoch": 7, "model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}},
    "bare": lambda state: state,
    "parallel": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    "lightning": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 1},
    "both": lambda state: {"state_dict": {f"model.module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_outer_layout_gives_the_same_checkpoint(layout: str, tmp_path: Path) -> None:
    state = published()
    folder = convert(save(LAYOUTS[layout](state), tmp_path), tmp_path / "out", base=BASE)
    tensors, config = load_checkpoint(folder, "crash")
    expected_config, expected = from_published(state, BASE)
    assert CrashConfig.from_dict(config) == expected_config
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        assert torch.equal(tensors[name], value), name


def test_names_go_both_ways() -> None:
    state = published()
    config, tensors = from_published(state, BASE)
    back = to_published(tensors, config)
    dropped = {name for name in state if name not in back}
    assert all(re.search(r"\.fc\d?\.|pos_encoding|\.wk\.bias", name) for name in dropped)
    for name, value in back.items():
        assert torch.equal(value, state[name]), name


def test_every_tensor_of_the_model_stands_in_the_table_once() -> None:
    for options in (
        {},
        {"architecture": "dsta", "num_layers": 1},
        {"channel_attention": "bottleneck"},
        {"use_aux": False},
    ):
        model = tiny_model(**options)
        names = [name for join in joins(model.config) for name in join.ours]
        rhos = {"rho_1", "rho_2"} if model.config.architecture == "dsta" else set()
        assert sorted(names) == sorted(set(model.state_dict()) - rhos)


def test_a_bottleneck_is_recognised_by_its_shape() -> None:
    state = published()
    for units, reduction in ((1, 6), (2, 3), (3, 2)):
        state["fftblock.channel_attention.fc1.weight"] = torch.randn(units, 12)
        state["fftblock.channel_attention.fc2.weight"] = torch.randn(6, units)
        config, tensors = from_published(state, BASE)
        assert (config.channel_attention, config.channel_reduction) == ("bottleneck", reduction)
        build_model(config).load_tensors(tensors)


@pytest.mark.parametrize("missing", [("self_aggregation",), ("predictor_aux",), ("self_aggregation", "predictor_aux")])
def test_a_checkpoint_without_the_auxiliary_branch_converts(missing: tuple[str, ...], tmp_path: Path) -> None:
    state = {name: value for name, value in published().items() if not name.startswith(missing)}
    state = {name: value for name, value in state.items() if value.numel() > 0}
    model = load(convert(save(state, tmp_path), tmp_path / "out", base=BASE))
    assert not model.config.use_aux
    assert model(torch.rand(1, 3, 5, 12)).aux_logits is None


@pytest.mark.parametrize(
    ("name", "dataset", "fps", "frames", "perception"),
    [
        ("output/dad/model_EE.pth", None, 20.0, 100, "none"),
        ("CRASH_dad.pth", None, 20.0, 100, "none"),
        ("runs/a3d/final_model.pth", None, 20.0, 100, "released"),
        ("final_model_CCD.pth", None, 10.0, 50, "released"),
        ("dad/final_model.pth", "ccd", 10.0, 50, "released"),
    ],
)
def test_the_dataset_sets_rate_and_perception(
    name: str, dataset: Any, fps: float, frames: int, perception: str, tmp_path: Path
) -> None:
    folder = convert(save(published(), tmp_path, name), tmp_path / "out", dataset=dataset)
    _, config = load_checkpoint(folder, "crash")
    assert (config["fps"], config["num_frames"], config["perception"]) == (fps, frames, perception)
    assert f"{fps:g} frames per second" in (folder / "README.md").read_text()


def test_a_path_that_says_nothing_needs_a_dataset(tmp_path: Path) -> None:
    file = save(published(), tmp_path / "a" / "b" / "c", "granddad.pth")
    with pytest.raises(InputError, match="does not say what the weights were trained on") as caught:
        convert(file, tmp_path / "out")
    assert "--dataset dad" in caught.value.hint
    with pytest.raises(InputError, match="dataset is 'kitti', expected one of dad, ccd, a3d"):
        convert(file, tmp_path / "out", dataset="kitti")  # type: ignore[arg-type]


def refuse(state: object, tmp_path: Path, message: str) -> CheckpointError:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(save(state, tmp_path), tmp_path / "out", base=BASE)
    assert not (tmp_path / "out").exists()
    return caught.value


def test_other_systems_are_named_by_what_they_hold(tmp_path: Path) -> None:
    message = r"no CRASH checkpoint: expected phi_x.0.weight and RSD.weights1, found conv.weight"
    refuse({"model": {"conv.weight": torch.ones(1)}}, tmp_path, message)
    refuse([1, 2], tmp_path, "found no table of tensors")
    ustring = {"phi_x.0.weight": torch.ones(2, 2), "graph_layers.0.weight": torch.ones(1)}
    assert "UString" in refuse({"model": ustring}, tmp_path, "no CRASH checkpoint").hint


def test_pickled_modules_are_refused(tmp_path: Path) -> None:
    refuse({"model": Path("x")}, tmp_path, "holds pickled objects")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    state = published()
    state["gru_net.dense1.weight"][0, 0] = value
    refuse(state, tmp_path, "has numbers in gru_net.dense1.weight that are not finite")


def test_missing_and_unexpected_names_are_counted(tmp_path: Path) -> None:
    state = published()
    state["sp_attention.query"] = state.pop("sp_attention.q2.weight")
    refuse(state, tmp_path, r"1 missing \(sp_attention.q2.weight\) and 1 unexpected \(sp_attention.query\) tensors")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("phi_x.0.weight", (20, 12), r"grid \(4, 4\) holds 16, not hidden_dim 20"),
        ("phi_x.0.weight", (16,), "contradict each other"),
        ("RSD.weights1", (), "contradict each other"),
        ("gru_net.gru.weight_hh_l1", (48, 15), r"weight_hh_l1 \(48, 15\), which does not fit hidden width 16"),
        ("sp_attention.q1.weight", (16, 17), r"sp_attention.q1.weight \(16, 17\), which does not fit hidden width 16"),
        ("gru_net.gru.weight_ih_l0", (48, 32), "does not fit hidden width 16"),
        ("RSD.layer1.0.key.weight", (8, 16), "does not fit hidden width 16"),
        ("fftblock.complex_weight", (3, 3, 2), "contradict each other"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(
    name: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    refuse(published() | {name: torch.ones(shape)}, tmp_path, message)


def test_a_width_the_heads_do_not_divide_is_named(tmp_path: Path) -> None:
    state = published(12, (6, 2), tfa_heads=4)
    refuse(state, tmp_path, "hidden_dim 12 cannot be divided among tfa_heads 8")


def test_learned_positions_are_refused(tmp_path: Path) -> None:
    state = published()
    state["self_aggregation.pos_encoder.pos_encoding"] += 0.5
    refuse(state, tmp_path, "positions other than the usual sines and cosines")


def dsta_state(with_attention: bool) -> dict[str, Tensor]:
    model = tiny_model(architecture="dsta", num_layers=1, num_frames=9)
    state = to_published(model.state_dict(), model.config)
    return {name: value for name, value in state.items() if with_attention or "weights_att_" not in name}


@torch.no_grad()
def test_dsta_checkpoints_convert_and_say_what_they_lack(tmp_path: Path) -> None:
    whole = load(convert(save(dsta_state(True), tmp_path), tmp_path / "whole", base=BASE))
    original = tiny_model(architecture="dsta", num_layers=1, num_frames=9)
    features = torch.rand(2, 9, 5, 12)
    assert torch.equal(whole(features).logits, original(features).logits)
    assert (whole.config.num_frames, whole.config.num_layers) == (9, 1)
    assert "random" not in (tmp_path / "whole" / "README.md").read_text()
    file = save({"model": dsta_state(False)}, tmp_path)
    first, second = (load(convert(file, tmp_path / name, base=BASE)) for name in ("a", "b"))
    assert torch.equal(first(features).logits, second(features).logits)
    assert "neither trains nor saves DSTA's attention" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize(
    "options", [{"architecture": "gru"}, {"use_oam": False}, {"use_tfa": False}, TRAINING_SETTINGS["from_scratch"]]
)
def test_architectures_the_published_code_lacks_have_no_published_names(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="published code has no such architecture"):
        to_published({}, tiny_config(**options))


def test_read_names_have_no_prefix_and_no_empty_tensors(tmp_path: Path) -> None:
    file = save({"model": {f"module.{name}": value for name, value in published().items()}}, tmp_path)
    names = set(read_published(file))
    assert names == {name for name in published() if "channel_attention" not in name}
