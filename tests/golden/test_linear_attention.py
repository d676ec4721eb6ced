"""Linear attention, GLA, RWKV-6 and the delta rule against upstream's recurrences, in every mode, with gradients."""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.bench.peers.linear import gla_recurrence
from mmattn.kernels import linear
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_tensors

FOLDER = "lina"
OUTPUT, GRADIENT = Tolerance(atol=1e-5, rtol=1e-4), Tolerance(rtol=1e-3, of_max=1e-5)
INPUTS = ("in", "cotangent")
# Chunks of one token, of a length that divides no text here, of all tokens, and the usual ones.
CHUNKS = {"chunk_1": 1, "chunk_7": 7, "chunk_48": 48, "chunk_64": 64, "chunk_all": None}
MODES = ["naive", "peer", "step", *CHUNKS, "pieces", "packed"]

Run = Callable[..., tuple[Tensor, Tensor]]


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``fixtures.py``."""
    part = key.split("/")[1] if file.startswith("ops_") else INPUTS[0]
    return None if part in INPUTS else GRADIENT if part == "grad" else OUTPUT


@cache
def tensors_of(file: str) -> dict[str, Tensor]:
    return load_tensors(golden_dir(FOLDER) / file)


def cases() -> list[object]:
    """Returns a pytest parameter (file, case, group, mode) for outputs and gradients of every case in every mode."""
    groups = {
        (path.name, *key.split("/")[:2]) for path in golden_files(FOLDER, "ops_*") for key in tensors_of(path.name)
    }
    return [
        pytest.param(*group, mode, id="-".join([Path(group[0]).stem, *group[1:], mode]))
        for group in sorted(groups)
        for mode in MODES
        if group[2] not in INPUTS and (mode != "peer" or group[1].startswith("gla"))
    ]


def kernel_of(name: str, inputs: set[str]) -> tuple[Run, Run, tuple[str, ...], str]:
    """Returns kernel, step, argument names and layout of a case, by the inputs it has."""
    inputs = inputs - {"h0", "z0"}
    if name.startswith("linear_attn"):
        assert inputs == {"q", "k", "v"}
        normalize = "normalized" in name
        kernel = partial(linear.linear_attention, normalize=normalize)
        return kernel, partial(linear.linear_attention_step, normalize=normalize), ("q", "k", "v"), "bthd"
    if name.startswith("rwkv6"):
        assert inputs == {"q", "k", "v", "w", "u"}
        step = partial(linear.rwkv6_step, scale=1.0)
        return partial(linear.rwkv6, scale=1.0), step, ("q", "k", "v", "w", "u"), "bhtd"
    if name.startswith("delta_rule"):
        assert inputs == {"q", "k", "v", "beta"}
        return linear.delta_rule, linear.delta_rule_step, ("q", "k", "v", "beta"), "bhtd"
    assert inputs == {"q", "k", "v", "g"}, f"{name} is not understood"
    if name.startswith("simple_gla"):
        return linear.simple_gla, linear.simple_gla_step, ("q", "k", "v", "g"), "bthd"
    assert name.startswith("gla"), f"{name} is not understood"
    return linear.gated_linear_attention, linear.gated_linear_attention_step, ("q", "k", "v", "g"), "bthd"


class Case:
    """The entries of one case, and its kernel."""

    def __init__(self, file: str, name: str) -> None:
        self.file, self.name = file, name
        self.tensors = {
            key.removeprefix(f"{name}/"): tensor
            for key, tensor in tensors_of(file).items()
            if key.startswith(f"{name}/")
        }
        self.inputs = {name: x.clone().requires_grad_() for name, x in self.under("in").items()}
        self.kernel, self.step, self.arguments, self.layout = kernel_of(name, set(self.inputs))
        self.time = self.layout.index("t")

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")}

    def run(self, mode: str, *, initial: bool = True) -> tuple[Tensor, Tensor]:
        tensors = [self.inputs[name] for name in self.arguments]
        state = self.initial_state() if initial else None
        if mode == "naive":
            return self.kernel(*tensors, initial_state=state, mode="naive", layout=self.layout)
        if mode == "peer":
            # The slow side of the benchmark computes the same.
            q, k, v, g = (x.transpose(1, 2) for x in tensors)
            out, state = gla_recurrence(q, k, v, g, state)
            return out.transpose(1, 2), state
        if mode == "step":
            return self.run_steps(tensors, state)
        if mode == "pieces":
            return self.run_pieces(tensors, state)
        if mode == "packed":
            return self.run_packed(tensors, state)
        size = CHUNKS[mode] or tensors[0].shape[self.time]
        return self.kernel(*tensors, initial_state=state, mode="chunk", chunk_size=size, layout=self.layout)

    def initial_state(self) -> Tensor | None:
        h0 = self.inputs.get("h0")
        if "normalized" not in self.name or h0 is None:
            return h0
        return torch.cat([h0, self.inputs["z0"][:, 0, :, :, None]], dim=-1)  # z (B, 1, H, K) is the last column

    def run_steps(self, tensors: list[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
        state = torch.zeros(self.tensors["cotangent/ht"].shape) if state is None else state
        outs = []
        for t in range(tensors[0].shape[self.time]):
            out, state = self.step(*(x.select(self.time, t) if x.ndim > 2 else x for x in tensors), state)
            outs.append(out)
        return torch.stack(outs, dim=self.time), state

    def run_pieces(self, tensors: list[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
        T, outs = tensors[0].shape[self.time], []
        state = torch.zeros(self.tensors["cotangent/ht"].shape) if state is None else state
        for start, stop in pairwise(sorted([0, min(1, T), T // 3, T // 3, max(0, T - 5), T])):
            part = [x.narrow(self.time, start, stop - start) if x.ndim > 2 else x for x in tensors]
            out, state = self.kernel(*part, initial_state=state, chunk_size=16, layout=self.layout)
            outs.append(out)
        return torch.cat(outs, dim=self.time), state

    def run_packed(self, tensors: list[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The batch as sequences behind each other, with an empty one between."""
        B, T = tensors[0].shape[0], tensors[0].shape[self.time]
        packed = [torch.cat([*x], dim=self.time - 1)[None] if x.ndim > 2 else x for x in tensors]
        borders = torch.tensor([0, T] + [T * n for n in range(1, B + 1)])
        if state is not None:
            state = torch.cat([state[:1], torch.zeros_like(state[:1]), state[1:]])
        out, state = self.kernel(
            *packed, initial_state=state, mode="chunk", chunk_size=16, layout=self.layout, cu_seqlens=borders
        )
        out = torch.stack(out[0].split(T, dim=self.time - 1))
        return out, torch.cat([state[:1], state[2:]])

    def named(self, out: Tensor, state: Tensor) -> dict[str, Tensor]:
        if "normalized" not in self.name:
            return {"o": out, "ht": state}
        return {"o": out, "ht": state[..., :-1], "zt": state[..., -1][:, None]}

    def check_all(self, actual: dict[str, Tensor], prefix: str) -> None:
        stored = self.under(prefix)
        assert stored
        assert set(stored) <= set(actual), f"not understood: {sorted(set(stored) - set(actual))}"
        for name, expected in stored.items():
            key = f"{self.name}/{prefix}/{name}"
            check(actual[name], expected, expected_tolerance(self.file, key), name=key)


@pytest.mark.parametrize(("file", "name", "group", "mode"), cases())
def test_kernel_equals_upstream(file: str, name: str, group: str, mode: str) -> None:
    case = Case(file, name)
    results = case.named(*case.run(mode))
    if group == "grad":
        cotangents = case.under("cotangent")
        grads = torch.autograd.grad(
            [results[key] for key in cotangents], [*case.inputs.values()], [*cotangents.values()]
        )
        case.check_all(dict(zip(case.inputs, grads, strict=True)), "grad")
        return
    assert group == "out", f"{group} is not understood"
    variants = {key: key.split("_") for key in case.under("out") if key.startswith("o_")}
    for key, (_, *options) in variants.items():
        # Upstream's own chunk form is one more witness of the same numbers.
        known = {"noinit"} | {option for option in options if option.startswith("chunk")}
        assert set(options) <= known, f"{key} is not understood"
        results[key] = case.run(mode, initial="noinit" not in options)[0] if "noinit" in options else results["o"]
    case.check_all(results, "out")
