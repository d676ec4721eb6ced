import pytest
import torch
from torch import nn

from mmattn.core.weights.loading import check_fit, check_names, check_sizes, load_into
from mmattn.errors import CheckpointError


def test_tensors_are_loaded_in_the_type_of_the_module() -> None:
    layer = nn.Linear(2, 1).double()
    load_into(layer, {"weight": torch.tensor([[0.5, 0.25]], dtype=torch.float16), "bias": torch.tensor([3])})
    assert layer.weight.dtype == torch.float64
    assert layer.weight.tolist() == [[0.5, 0.25]]
    assert layer.bias.tolist() == [3.0]


def test_a_misfit_is_one_error_and_changes_nothing() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(CheckpointError) as caught:
        load_into(layer, {"weight": torch.zeros(2, 3), "w1": torch.zeros(1)}, what="'w.pth'", hint="Take another.")
    assert caught.value.message == (
        "'w.pth' does not fit the model: 1 missing (bias) and 1 unexpected (w1) tensors; it has weight of shape "
        "(2, 3), expected (2, 2) (1 of 1 tensors differ in shape)."
    )
    assert caught.value.hint == "Take another."
    assert torch.equal(layer.weight, before)


def test_ignored_names_are_left_out_and_counters_of_batches_may_be_missing() -> None:
    norm = nn.BatchNorm1d(2)
    state = {name: tensor for name, tensor in norm.state_dict().items() if name != "num_batches_tracked"}
    load_into(norm, {**state, "head.weight": torch.zeros(1)}, ignored=("head.",))
    with pytest.raises(CheckpointError, match=r"1 unexpected \(head\.weight\)"):
        load_into(norm, {**state, "head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"1 missing \(weight\)"):
        load_into(norm, state, ignored=("weight",))


def test_another_shape_is_reported_with_both_shapes() -> None:
    with pytest.raises(CheckpointError, match=r"w of shape \(2,\), expected \(3,\)"):
        check_fit({"w": torch.zeros(2)}, {"w": torch.zeros(3)})


def test_unknown_tensors_are_refused_and_optional_ones_are_not() -> None:
    expected = {"w": torch.zeros(2), "frozen": torch.zeros(1)}
    check_fit({"w": torch.zeros(2)}, expected, optional={"frozen"})
    check_fit({"w": torch.zeros(2), "frozen": torch.zeros(1)}, expected, optional={"frozen"})
    with pytest.raises(CheckpointError, match=r"1 missing \(w\) and 1 unexpected \(other\) tensors"):
        check_fit({"other": torch.zeros(1)}, expected, optional={"frozen"})


def test_names_are_counted_and_the_first_shown() -> None:
    check_names({"a": 1}, ["a"])
    with pytest.raises(CheckpointError, match=r"^prompts\.pth does not fit the model: 5 missing \(0, 1, 2, \.\.\.\)"):
        check_names([], [str(i) for i in range(5)], what="prompts.pth")
    with pytest.raises(CheckpointError, match=r"1 missing \(bias\) and 1 unexpected \(w1\) tensors"):
        check_names({"weight", "w1"}, {"weight", "bias"})


def test_sizes_beyond_every_tensor_are_refused() -> None:
    tensors = {"a": torch.zeros(2, 5), "b": torch.zeros(())}
    check_sizes({"dim": 5, "layers": 2}, tensors, what="The model")
    with pytest.raises(CheckpointError, match="dim makes a size of 6, and no tensor in the file is longer than 5"):
        check_sizes({"layers": 2, "dim": 6}, tensors, what="The model")
    with pytest.raises(CheckpointError, match="longer than 0"):
        check_sizes({"dim": 1}, {}, what="The model")
