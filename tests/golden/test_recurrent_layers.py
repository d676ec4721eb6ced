"""Recurrent layers against the published code: fla's layers, prefix linear attention and Titans, streaming included.

The convention is written in ``fixtures.py``. The other entries of ``layers*`` are parts of Lina-Speech's network and
are compared with its tests.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.attention.recurrent.prefix_linear import PrefixLinearAttention
from mmattn.attention.recurrent.rwkv6 import Rwkv6
from mmattn.attention.recurrent.simple_gla import SimpleGatedLinearAttention
from mmattn.attention.titans import MacOptions, MemoryAsContext, MemoryOptions, NeuralMemory
from mmattn.kernels.linear.feature_maps import taylor
from mmattn.kernels.memory import Memory, neural_memory
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_tensors, metadata

FOLDER = "lina"
OUTPUT, GRADIENT = Tolerance(atol=1e-5, rtol=1e-4), Tolerance(rtol=1e-3, of_max=1e-5)
# Where a softmax does not notice a bias, its gradient is rounding noise: hence an absolute part.
TITANS, TITANS_GRADIENT = Tolerance(atol=1e-4, rtol=1e-4), Tolerance(atol=1e-5, rtol=1e-3, of_max=1e-4)
FORMULA = Tolerance(atol=1e-9, rtol=1e-9)
INPUTS = ("in", "weights", "cotangent")
LINA_PARTS = ("cross_attention", "text_encoder", "sinpos")
# Chunks of one token, of a length that does not divide the text, and of all of it.
MODES = [("naive", 64), ("chunk", 1), ("chunk", 7), ("chunk", 64)]
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "gla_layer": GatedLinearAttention,
    "simple_gla_layer": SimpleGatedLinearAttention,
    "rwkv6_layer": Rwkv6,
}


def kind_of(file: str) -> str | None:
    """Tells the kinds of files apart; None for those of other test modules."""
    kinds = ("titans_linear_formula", "titans", "prefix_linear_attention", "layers")
    return next((kind for kind in kinds if file.startswith(kind)), None)


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``fixtures.py``."""
    kind = kind_of(file)
    case, _, name = key.partition("/")
    part = name.partition("/")[0]
    if kind is None or case.startswith(LINA_PARTS) or part in INPUTS or name == "masked/mask":
        return None
    if kind == "titans_linear_formula":
        return FORMULA
    if kind == "titans":
        return TITANS_GRADIENT if part == "grad" else TITANS
    return GRADIENT if part == "grad" else OUTPUT


class Case:
    """The entries of one case of a file, and its options."""

    def __init__(self, file: str, name: str) -> None:
        path = golden_dir(FOLDER) / file
        self.file, self.name = file, name
        self.options: dict[str, Any] = json.loads(metadata(path)["config"])[name]
        self.tensors = {
            key.removeprefix(f"{name}/"): tensor
            for key, tensor in tensors_of(path).items()
            if key.startswith(f"{name}/")
        }

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")}

    def check(self, actual: Tensor, key: str) -> None:
        tolerance = expected_tolerance(self.file, f"{self.name}/{key}")
        check(actual.reshape(self[key].shape), self[key], tolerance, name=f"{self.file}:{self.name}/{key}")

    def check_all(self, actual: dict[str, Tensor], prefix: str) -> None:
        """Compares every stored entry under a prefix, and fails on one that was not computed."""
        stored = self.under(prefix)
        assert stored, f"{self.name} has no {prefix}"
        assert set(stored) <= set(actual), f"not understood: {sorted(set(stored) - set(actual))}"
        for name in stored:
            self.check(actual[name], f"{prefix}/{name}")


@cache
def tensors_of(path: Path) -> dict[str, Tensor]:
    return load_tensors(path)


def cases(kind: str) -> Iterator[tuple[str, str, set[str]]]:
    """Yields file, case and the first parts of its entries, of all files of a kind."""
    for path in golden_files(FOLDER):
        if kind_of(path.name) == kind:
            names = {key.partition("/")[0] for key in tensors_of(path)}
            for name in sorted(name for name in names if not name.startswith(LINA_PARTS)):
                entries = {key.split("/")[1] for key in tensors_of(path) if key.startswith(f"{name}/")}
                yield path.name, name, entries - set(INPUTS)


def parameters(kind: str) -> list[object]:
    """Returns a pytest parameter (case, entries) for every group of entries of every case."""
    return [
        pytest.param(file, name, entries, id=f"{Path(file).stem}-{name}-{entries}")
        for file, name, groups in cases(kind)
        for entries in sorted(groups)
    ]


def leaves(module: nn.Module, case: Case) -> Tensor:
    """Loads a case's weights and returns its input, ready for gradients."""
    module.load_state_dict(case.under("weights"))
    return case["in/x"].clone().requires_grad_()


def gradients(out: Tensor, x: Tensor, module: nn.Module, cotangent: Tensor) -> dict[str, Tensor]:
    (out * cotangent).sum().backward()
    parameters = {f"weights/{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"x": x.grad, **parameters}


def in_pieces(layer: Callable[..., tuple[Tensor, Any]], x: Tensor, cuts: list[int]) -> Tensor:
    """Returns the outputs of a layer that is called piece by piece with its own state."""
    state, outs = None, []
    for start, stop in pairwise([0, *cuts, x.shape[1]]):
        out, state = layer(x[:, start:stop], state)
        outs.append(out)
    return torch.cat(outs, dim=1)


@pytest.mark.parametrize("mode", ["naive", "chunk"])
@pytest.mark.parametrize(("file", "name", "entries"), parameters("titans_linear_formula"))
def test_linear_memory(file: str, name: str, entries: str, mode: str) -> None:
    case = Case(file, name)
    inputs = {key: tensor.clone().requires_grad_() for key, tensor in case.under("in").items()}
    q, k, v, theta, alpha, eta = (inputs[key][:, None] for key in ("q", "k", "v", "theta", "alpha", "eta"))
    start = Memory((inputs["M0"][:, None],))
    out, state = neural_memory(
        q, k, v, theta, alpha, eta, initial_state=start, chunk_size=case.options["chunk"], mode=mode
    )
    results = {"o": out[:, 0], "M_final": state.memory.weights[0][:, 0], "S_final": state.momentum.weights[0][:, 0]}
    if entries == "out":
        case.check_all(results, "out")
        return
    assert entries == "grad"
    loss = sum((results[key] * cotangent).sum() for key, cotangent in case.under("cotangent").items())
    found = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    case.check_all({key: g for key, g in zip(inputs, found, strict=True) if g is not None}, "grad")


def memory_options(options: dict[str, Any]) -> MemoryOptions:
    """Translates titans-pytorch's options; one that neither knows fails."""
    options = {key: value for key, value in options.items() if key not in ("dim", "B", "T", "seq_index")}
    options |= options.pop("default_model_kwargs", {})
    if "default_step_transform_max_lr" in options:
        options["max_lr"] = options.pop("default_step_transform_max_lr")
    if isinstance(options.get("chunk_size"), list):
        options["chunk_size"] = tuple(options["chunk_size"])
    return MemoryOptions(**options)


def named(memory: Memory) -> dict[str, Tensor]:
    """Returns a memory's tensors under their published names."""
    prefix = "" if memory.gamma is None else "model."
    found = {f"{prefix}weights.{i}": weight for i, weight in enumerate(memory.weights)}
    return found if memory.gamma is None else {"norm.gamma": memory.gamma, **found}


@pytest.mark.parametrize(("file", "name", "entries"), parameters("titans"))
def test_titans(file: str, name: str, entries: str) -> None:
    case = Case(file, name)
    if name.startswith("mac"):
        check_language_model(case, entries)
    else:
        assert name.startswith("nm"), f"unknown case {name}"
        check_memory(case, entries)


def check_memory(case: Case, entries: str) -> None:
    layer = NeuralMemory(case.options["dim"], memory_options(case.options))
    x = leaves(layer, case)
    out, state = layer(x)
    if entries == "out":
        case.check_all({"retrieved": out, "retrieved_stepwise": in_pieces(layer, x, list(range(1, x.shape[1])))}, "out")
    elif entries == "state":
        assert state.seq_index == case.options["seq_index"]
        stored = {f"last_update/{key}": tensor for key, tensor in named(state.last_update).items()}
        stored |= {f"updates/{key}": tensor for key, tensor in named(state.updates).items()}
        if state.last_momentum:
            orders = [named(order) for order in state.last_momentum]
            stored |= {f"last_momentum/{key}": torch.stack([order[key] for order in orders]) for key in orders[0]}
        case.check_all(stored, "state")
    else:
        assert entries == "grad"
        case.check_all(gradients(out, x, layer, case["cotangent/retrieved"]), "grad")


def check_language_model(case: Case, entries: str) -> None:
    options = dict(case.options)
    assert options.pop("num_residual_streams", 1) == 1, "hyper-connections are not part of this model"
    memory = options.pop("neural_memory_kwargs", {})
    if "memory_mlp_depth" in options:
        memory = {"depth": options.pop("memory_mlp_depth"), "expansion_factor": expansion(case), **memory}
    if options.get("neural_memory_layers") is not None:
        options["neural_memory_layers"] = tuple(options["neural_memory_layers"])
    model = MemoryAsContext(MacOptions(**options, memory=memory_options(memory)))
    model.load_state_dict(case.under("weights"))
    ids = case["in/ids"]
    logits, _ = model(ids)
    if entries == "grad":
        (logits * case["cotangent/logits"]).sum().backward()
        found = {f"weights/{key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
        case.check_all(found, "grad")
        return
    assert entries == "out"
    loss = functional.cross_entropy(model(ids[:, :-1])[0].transpose(1, 2), ids[:, 1:])
    case.check_all({"logits": logits, "loss": loss}, "out")
    for cuts in (list(range(1, ids.shape[1])), [ids.shape[1] // 2]):
        case.check(in_pieces(model, ids, cuts), "out/logits")


def expansion(case: Case) -> float:
    """Reads the hidden width of the memory networks off their first matrices."""
    shapes = [
        tuple(t.shape) for key, t in case.under("weights").items() if key.endswith("memory_model.model.weights.0")
    ]
    return shapes[0][1] / shapes[0][0]


def mode_id(mode: tuple[str, int]) -> str:
    return mode[0] if mode[0] == "naive" else f"chunk{mode[1]}"


@pytest.mark.parametrize("mode", MODES, ids=mode_id)
@pytest.mark.parametrize(("file", "name", "entries"), parameters("layers"))
def test_layers(file: str, name: str, entries: str, mode: tuple[str, int]) -> None:
    case = Case(file, name)
    known = [kind for kind in LAYERS if name.startswith(kind)]
    assert known, f"unknown layer {name}"
    options = {"dim" if key == "hidden_size" else key: value for key, value in case.options.items()}
    layer = LAYERS[known[0]](**options, mode=mode[0], chunk_size=mode[1])
    extra = {key: value for key, value in case.under("in").items() if key != "x"}
    assert set(extra) <= {"reset_mask"}, f"unknown inputs {sorted(extra)}"
    x = leaves(layer, case)
    out, _ = layer(x, **extra)
    if entries == "grad":
        case.check_all(gradients(out, x, layer, case["cotangent/y"]), "grad")
        return
    assert entries == "out"
    case.check_all({"y": out}, "out")
    for cuts in (list(range(1, x.shape[1])), [x.shape[1] // 2], [1, 2, x.shape[1] - 1]):
        state, outs = None, []
        for start, stop in pairwise([0, *cuts, x.shape[1]]):
            part = {key: mask[:, start:stop] for key, mask in extra.items()}
            out, state = layer(x[:, start:stop], state, **part)
            outs.append(out)
        case.check(torch.cat(outs, dim=1), "out/y")


def prefix_layer(case: Case, mode: tuple[str, int], enc_length: int) -> PrefixLinearAttention:
    names = {"embed_dim": "dim", "T": None, "B": None, "prefill": None, "enc_length": None}
    options = {names.get(key, key): value for key, value in case.options.items()}
    options.pop(None)
    layer = PrefixLinearAttention(**options, enc_length=enc_length, mode=mode[0], chunk_size=mode[1])
    layer.load_state_dict(case.under("weights"))
    return layer


@pytest.mark.parametrize("mode", MODES, ids=mode_id)
@pytest.mark.parametrize(("file", "name", "entries"), parameters("prefix_linear_attention"))
def test_prefix_linear_attention(file: str, name: str, entries: str, mode: tuple[str, int]) -> None:
    case = Case(file, name)
    layer = prefix_layer(case, mode, case.options["enc_length"])
    x = case["in/x"].clone().requires_grad_()
    if entries == "out":
        queries = layer.proj_q(x).unflatten(2, (layer.num_heads, -1)).transpose(1, 2)
        case.check_all({"y": layer(x)[0], "feature_map_of_q": taylor(queries)}, "out")
    elif entries == "grad":
        case.check_all(gradients(layer(x)[0], x, layer, case["cotangent/y"]), "grad")
    elif entries == "masked":
        mask = case["masked/mask"]
        case.check(layer(x[:, : mask.shape[1]], mask=mask)[0], "masked/y")
    else:
        assert entries == "decode"
        check_decoding(case, layer, prefix_layer(case, mode, case.options["prefill"]), x)


def check_decoding(case: Case, layer: PrefixLinearAttention, same_prefix: PrefixLinearAttention, x: Tensor) -> None:
    prefill = case.options["prefill"]
    first, state = layer(x[:, :prefill])
    rest = in_pieces(
        lambda part, s: layer(part, state if s is None else s), x[:, prefill:], list(range(1, x.shape[1] - prefill))
    )
    results = {
        "prefill_y": first,
        "prefill_kv_state": state[..., :-1].transpose(-1, -2),
        "prefill_k_state": state[..., -1],
        "step_y": rest,
        "parallel_y": same_prefix(x)[0],
    }
    case.check_all(results, "decode")
    at_once, _ = layer(x[:, prefill:], state)
    case.check(at_once, "decode/step_y")
