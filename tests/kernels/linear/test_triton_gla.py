"""Triton's gated linear attention without a GPU: interpreted, compiled ahead of time for three GPU generations."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmattn.kernels.backends import resolve_chunks, triton_gla, triton_gla_gradients, triton_gla_kernels
from mmattn.kernels.backends.triton_gla import tile_options, warps
from mmattn.kernels.linear.token_by_token import gated_recurrence
from tests.kernels.linear.kernels import KERNELS, assert_same, initial_state, inputs, with_gradients

HERE = Path(__file__).parent
SHARED_MEMORY = 99_000  # bytes a program may use on the smallest of the chips
# Kernel -> what its programs share out.
TILES = {
    triton_gla_kernels.states_kernel: "states",
    triton_gla_kernels.scores_kernel: "leaves",
    triton_gla_kernels.outputs_kernel: "values",
    triton_gla_gradients.grad_states_kernel: "states",
    triton_gla_gradients.grad_values_kernel: "values",
    triton_gla_gradients.grad_scores_kernel: "chunks",
    triton_gla_gradients.grad_pairs_kernel: "leaves",
    triton_gla_gradients.grad_tokens_kernel: "keys",
}
# Pointers to what the caller gave or gets; all others are float32.
GIVEN = {f"{name}_ptr" for name in ("q", "k", "v", "out", "grad_out", "grad_v")}

interpreted = not isinstance(triton_gla_kernels.states_kernel, triton.runtime.JITFunction)
needs_compiler = pytest.mark.skipif(
    interpreted, reason="TRITON_INTERPRET is set: kernels are interpreted, not compiled"
)
every_kernel = pytest.mark.parametrize("kernel", TILES, ids=lambda kernel: kernel.__name__)


@pytest.mark.slow
def test_interpreted_kernels_agree_with_the_definition() -> None:
    # Whether kernels are interpreted is decided when Triton is imported, so this needs a process of its own.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "triton_gla_interpreted.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def types_of(kernel: Any, constants: dict[str, Any], dtype: str) -> dict[str, str]:
    """Returns the types of all arguments of a kernel by name."""
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name.endswith("_ptr"):
            types[name] = f"*{dtype}" if name in GIVEN else "*fp32"
        else:
            types[name] = "fp32" if name == "scale" else "i32"
    return types


def compiled_for(kernel: Any, constants: dict[str, Any], dtype: str, capability: int) -> Any:
    """Returns a kernel compiled for a GPU."""
    options = {"num_warps": warps(TILES[kernel], constants["KP"]), "num_stages": 2}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    source = ASTSource(kernel, types_of(kernel, constants, dtype), constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "K", "C", "capability"),
    [
        pytest.param("bf16", 128, 64, 80, id="bfloat16 on sm_80"),
        pytest.param("bf16", 128, 64, 90, id="bfloat16 on sm_90"),
        pytest.param("bf16", 128, 64, 100, id="bfloat16 on sm_100"),
        # Exact float32 products are unrolled by the compiler: small ones keep this test quick.
        pytest.param("fp32", 16, 32, 80, id="float32 on sm_80"),
        pytest.param("fp32", 16, 32, 90, id="float32 on sm_90"),
        pytest.param("fp32", 16, 32, 100, id="float32 on sm_100"),
    ],
)
@every_kernel
def test_every_kernel_compiles_and_fits_the_chip(kernel: Any, dtype: str, K: int, C: int, capability: int) -> None:
    constants = {**tile_options(K, K, exact=dtype == "fp32"), "K": K, "V": K, "C": C}
    compiled = compiled_for(kernel, constants, dtype, capability)
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared < SHARED_MEMORY


@needs_compiler
@pytest.mark.slow
@every_kernel
def test_kernels_compile_for_one_token_and_one_head(kernel: Any) -> None:
    # Triton turns integer arguments of value 1 into constants; the interpreter does not.
    constants = {**tile_options(20, 9, exact=False), "K": 20, "V": 9, "C": 16}
    ones = {name: 1 for name, type_ in types_of(kernel, constants, "fp16").items() if type_ == "i32"}
    assert len(compiled_for(kernel, constants | ones, "fp16", 90).asm["cubin"]) > 1000


def test_every_kernel_is_in_the_table() -> None:
    modules = (triton_gla_kernels, triton_gla_gradients)
    names = {name for module in modules for name in module.__all__ if name.endswith("_kernel")}
    assert {kernel.__name__ for kernel in TILES} == names


class _Elsewhere:
    """Stands for a tensor on a device this machine does not have."""

    def __init__(self, device: str, width: int = 64, dtype: torch.dtype = torch.bfloat16) -> None:
        self.device, self.dtype, self.shape = torch.device(device), dtype, (1, 2, 3, width)


@pytest.mark.parametrize(
    ("tensor", "name", "reason"),
    [
        pytest.param(_Elsewhere("cpu"), "torch", "on the CPU: chunks", id="cpu"),
        pytest.param(_Elsewhere("mps"), "torch", "device type 'mps': chunks", id="mps"),
        pytest.param(_Elsewhere("cuda", dtype=torch.float64), "torch", "not torch.float64: chunks", id="float64"),
        pytest.param(_Elsewhere("cuda", width=300), "torch", "keys of up to 256 channels, not 300: chunks", id="wide"),
        pytest.param(_Elsewhere("cuda", dtype=torch.float32), "triton", "on a CUDA device: Triton", id="cuda"),
    ],
)
def test_auto_takes_triton_on_cuda_where_it_can_and_says_why(tensor: Any, name: str, reason: str) -> None:
    resolution = resolve_chunks([tensor] * 4)
    assert resolution.name == name
    assert reason in resolution.reason


def test_without_triton_chunks_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package shows the function of this name, not the module.
    module = import_module("mmattn.kernels.backends.resolve")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert resolve_chunks([_Elsewhere("cuda")] * 4).name == "torch"  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"backend 'triton' can not run: Triton is not installed\. Use"):
        resolve_chunks([torch.zeros(1, 1, 2, 2)] * 4, "triton")


@needs_compiler
def test_cpu_tensors_are_refused_with_the_way_out() -> None:
    x = torch.zeros(1, 1, 4, 16)
    with pytest.raises(ValueError, match=r"tensors are on cpu, and Triton runs on CUDA.*TRITON_INTERPRET=1.*'torch'"):
        KERNELS["gla"].run(x, x, x, x, backend="triton")


def test_a_backend_is_one_of_chunks() -> None:
    x = torch.zeros(1, 1, 4, 16)
    with pytest.raises(ValueError, match="backend must be one of auto, torch, triton, got 'cpu'"):
        KERNELS["gla"].run(x, x, x, x, backend="cpu")
    with pytest.raises(ValueError, match="backend='torch' is a way to compute chunks, got mode='naive'"):
        KERNELS["gla"].run(x, x, x, x, mode="naive", backend="torch")


def test_pytorch_can_be_asked_for() -> None:
    tensors, state = inputs(KERNELS["gla"], 1, 20), initial_state(KERNELS["gla"], 1)
    expected = with_gradients(KERNELS["gla"], tensors, state, mode="chunk")
    assert_same(with_gradients(KERNELS["gla"], tensors, state, backend="torch"), expected, 1e-15)


def test_importing_the_kernels_does_not_import_triton() -> None:
    program = "import sys, torch, mmattn.kernels; sys.exit('mmattn.kernels.backends.triton_gla' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=HERE.parents[2], check=False).returncode == 0


@pytest.mark.parametrize(
    ("chunk_size", "tokens", "expected"),
    [(1, 100, 16), (17, 100, 32), (64, 33, 64), (64, 20, 32), (64, 0, 16), (1000, 5000, 64)],
)
def test_chunks_have_16_32_or_64_tokens(
    chunk_size: int, tokens: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def note(scale: float, C: int, definition: Any, state: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        used.append(C)
        return state, state

    monkeypatch.setattr(triton_gla._GlaChunks, "apply", note)
    triton_gla.gla_chunks(
        *[torch.zeros(1, 1, tokens, 4)] * 4,
        state=torch.zeros(1),
        scale=1.0,
        chunk_size=chunk_size,
        definition=gated_recurrence,
    )
    assert used == [expected]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("decay", [0.1, 30.0], ids="decay {}".format)
def test_a_gpu_agrees_with_the_definition(dtype: torch.dtype, tolerance: float, decay: float) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v, g = (torch.randn(2, 4, 500, 64, device="cuda", generator=generator).to(dtype) for _ in range(4))
    tensors = {"q": q, "k": torch.nn.functional.normalize(k, dim=-1), "v": v, "g": -decay * g.float().abs()}
    state = torch.randn(2, 4, 64, 64, device="cuda", generator=generator)
    wide = {name: x.double() for name, x in tensors.items()}
    expected = with_gradients(KERNELS["gla"], wide, state.double(), mode="chunk")
    assert_same(with_gradients(KERNELS["gla"], tensors, state, backend="triton"), expected, tolerance)
