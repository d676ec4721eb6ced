"""Sparse-attention kernels against golden fixtures: block attention with gradients, merging, the mask zoo."""

import os
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.kernels import BlockIndex, attention, merge
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_tensors

FOLDER = "sparse_attention"

FORWARD = Tolerance(atol=2e-5, rtol=1e-4)
GRADIENT = Tolerance(of_max=1e-4)

# Every backend that claims lse and gradients. Triton runs on the CPU only if its interpreter was asked for.
BACKENDS = ["reference", "cpu", *(["triton"] if os.environ.get("TRITON_INTERPRET") == "1" else [])]


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``tests/golden/fixtures.py``."""
    name = key.rsplit(".", 1)[-1]
    if file.startswith("core_"):
        return (GRADIENT if name.startswith("grad_") else FORWARD) if "." in key else None
    if file.startswith("merge_"):
        return FORWARD if key in ("out", "lse") else None
    if file.startswith("masks_"):
        # A mask too large to be stored is defined by its key ranges.
        stored = name == "dense"
        return 0.0 if stored or (name == "k_ranges" and f"{key.split('.')[0]}.dense" not in _entries(file)) else None
    return None


def _entries(file: str) -> dict[str, Tensor]:
    return load_tensors(golden_dir(FOLDER) / file)


def _groups(pattern: str, suffixes: tuple[str, ...]) -> list:
    """Returns a pytest parameter (path, group) for every ``group.suffix`` entry of the matching files."""
    return [
        pytest.param(path, group, id=f"{path.stem}-{group}")
        for path in golden_files(FOLDER, pattern)
        for group in sorted({key.rsplit(".", 1)[0] for key in load_tensors(path) if key.endswith(suffixes)})
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("path", "case"), _groups("core_*.safetensors", (".out", ".lse")))
def test_block_attention_and_its_gradients(path: Path, case: str, backend: str) -> None:
    tensors = load_tensors(path)
    q, k, v, tau = (tensors[name].requires_grad_() for name in ("q", "k", "v", "tau"))
    q_block, k_block, window, offset = tensors["params"].tolist()
    assert offset == k.shape[2] - q.shape[2], f"only bottom-right alignment is defined, got offset {offset}"
    kind, *options = case.split("_")
    assert kind == "block", f"unknown case {case}"
    assert set(options) <= {"causal", "window"}, f"unknown options in {case}"
    blocks = BlockIndex.from_mask(
        tensors["block_mask"],
        q.shape[2],
        k.shape[2],
        q_block=q_block,
        k_block=k_block,
        causal="causal" in options,
        window=window if "window" in options else None,
    )
    out, lse = attention(q * tau[..., None], k, v, blocks, return_lse=True, backend=backend)
    loss = (out * tensors["grad_out"]).sum() + (lse.masked_fill(lse == -torch.inf, 0.0) * tensors["grad_lse"]).sum()
    grads = torch.autograd.grad(loss, (q, k, v, tau))
    results = {"out": out, "lse": lse, **dict(zip(("grad_q", "grad_k", "grad_v", "grad_tau"), grads, strict=True))}
    stored = {key.removeprefix(f"{case}.") for key in tensors if key.startswith(f"{case}.")}
    assert stored <= set(results), f"unknown entries {sorted(stored - set(results))}"
    for name in sorted(stored):
        key = f"{case}.{name}"
        check(results[name], tensors[key], expected_tolerance(path.name, key), name=key)


@pytest.mark.parametrize("order", ["at_once", "one_by_one"])
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem) for path in golden_files(FOLDER, "merge_*.safetensors")]
)
def test_partials_merge(path: Path, order: str) -> None:
    tensors = load_tensors(path)
    partials = list(zip(tensors["partial_out"], tensors["partial_lse"], strict=True))
    out, lse = merge(partials) if order == "at_once" else reduce(lambda a, b: merge([a, b]), partials)
    check(out, tensors["out"], expected_tolerance(path.name, "out"), name="out")
    check(lse, tensors["lse"], expected_tolerance(path.name, "lse"), name="lse")


def _documents(q_ranges: Tensor, causal: bool) -> BlockIndex:
    return BlockIndex.documents(torch.cat([q_ranges[:1, 0], q_ranges[:, 1]]), causal=causal, q_block=32, k_block=16)


def _lengths(q_ranges: Tensor) -> list[int]:
    return (q_ranges[:, 1] - q_ranges[:, 0]).tolist()


# Patterns that have a constructor of their own, built from the query ranges alone.
CONSTRUCTORS: dict[str, Callable[[Tensor], BlockIndex]] = {
    "full": lambda ranges: BlockIndex.dense(int(ranges.max()), q_block=32, k_block=16),
    "causal": lambda ranges: BlockIndex.causal(int(ranges.max()), q_block=32, k_block=16),
    "full_document": lambda ranges: _documents(ranges, causal=False),
    "causal_document": lambda ranges: _documents(ranges, causal=True),
    "block_causal_document": lambda ranges: BlockIndex.scales(_lengths(ranges), q_block=64, k_block=64),
}


@pytest.mark.parametrize(("path", "pattern"), _groups("masks_*.safetensors", (".q_ranges",)))
def test_mask_pattern(path: Path, pattern: str) -> None:
    tensors = load_tensors(path)
    slices = [tensors[f"{pattern}.{name}"] for name in ("q_ranges", "k_ranges", "types")]
    built = [BlockIndex.from_slices(*slices, q_block=32, k_block=16).dense()[0, 0]]
    if pattern in CONSTRUCTORS:
        built.append(CONSTRUCTORS[pattern](slices[0]).dense()[0, 0])
    # A mask that is not stored must at least be one that two independent constructions agree on.
    key = f"{pattern}.dense"
    assert key in tensors or len(built) == 2, f"nothing to compare {pattern} with"
    expected = tensors[key] if key in tensors else built.pop()
    for mask in built:
        check(mask, expected, 0.0, name=key)
