"""The Triton backend without a GPU: interpreted on the CPU, and compiled ahead of time for three GPU generations."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmattn.kernels import BlockIndex, attention
from mmattn.kernels.backends import triton_kernels
from mmattn.kernels.backends.triton import tile_size

HERE = Path(__file__).parent
SHARED_MEMORY = 99_000  # bytes a program may use on the smallest of the chips
HEAD_DIM = 64
FIXED_TYPES = {"lse_ptr": "*fp32", "delta_ptr": "*fp32", "valid_ptr": "*u8", "spans_ptr": "*i32", "scale": "fp32"}

interpreted = not isinstance(triton_kernels.forward_kernel, triton.runtime.JITFunction)
needs_compiler = pytest.mark.skipif(
    interpreted, reason="TRITON_INTERPRET is set: kernels are interpreted, not compiled"
)


@pytest.mark.slow
def test_interpreted_kernels_agree_with_the_definition():
    # Whether kernels are interpreted is decided when Triton is imported, so this needs a process of its own.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "triton_interpreted.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def signature(kernel, constants: dict[str, int | bool], dtype: str) -> dict[str, str]:
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in FIXED_TYPES:
            types[name] = FIXED_TYPES[name]
        elif name.endswith(("_count_ptr", "_index_ptr")):
            types[name] = "*i32"
        else:
            types[name] = f"*{dtype}" if name.endswith("_ptr") else "i32"
    return types


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100], ids="sm_{}".format)
@pytest.mark.parametrize(("dtype", "itemsize"), [("bf16", 2), ("fp32", 4)], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("name", triton_kernels.__all__)
def test_every_kernel_compiles_and_fits_the_chip(name: str, dtype: str, itemsize: int, capability: int):
    kernel = getattr(triton_kernels, name)
    # Exact float32 products are unrolled by the compiler: the smallest blocks keep this test quick.
    block = 128 if dtype == "bf16" else 16
    tile = tile_size(block, HEAD_DIM, itemsize, backward=name != "forward_kernel")
    constants = {"S": 2, "HAS_VALID": True, "Q_BLOCK": block, "K_BLOCK": block, "BM": tile, "BN": tile}
    constants |= dict.fromkeys(("D", "DP", "DV", "DVP"), HEAD_DIM)
    source = ASTSource(kernel, signature(kernel, constants, dtype), constants)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": 4, "num_stages": 2})
    assert len(compiled.asm["cubin"]) > 1000
    assert 0 < compiled.metadata.shared < SHARED_MEMORY


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", triton_kernels.__all__)
def test_kernels_compile_for_one_query_one_head_and_one_block(name: str):
    # Triton turns integer arguments of value 1 into constants; the interpreter does not.
    kernel = getattr(triton_kernels, name)
    constants = {"S": 1, "HAS_VALID": False, "Q_BLOCK": 32, "K_BLOCK": 32, "BM": 32, "BN": 32}
    constants |= {"D": 20, "DP": 32, "DV": 9, "DVP": 16}
    constants |= {argument: 1 for argument, type_ in signature(kernel, constants, "bf16").items() if type_ == "i32"}
    source = ASTSource(kernel, signature(kernel, constants, "bf16"), constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 2})
    assert len(compiled.asm["cubin"]) > 1000


@needs_compiler
def test_cpu_tensors_are_refused_with_the_way_out():
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"got tensors on cpu; the Triton backend runs on CUDA.*TRITON_INTERPRET=1"):
        attention(x, x, x, BlockIndex.causal(16, q_block=16, k_block=16), backend="triton")


@pytest.mark.parametrize(
    ("block", "width", "itemsize", "backward", "expected"),
    [
        pytest.param(128, 64, 2, False, 64, id="half precision"),
        pytest.param(128, 128, 2, True, 32, id="wide gradients"),
        pytest.param(128, 256, 4, False, 16, id="wide float32"),
        pytest.param(48, 64, 2, False, 16, id="block of 3 tiles"),
        pytest.param(16, 16, 2, False, 16, id="smallest block"),
    ],
)
def test_tiles_divide_their_block_and_shrink_with_the_row(block, width, itemsize, backward, expected):
    assert tile_size(block, width, itemsize, backward=backward) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_gpu_agrees_with_the_definition(dtype: torch.dtype):
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 1000, 64, device="cuda", dtype=dtype, generator=generator, requires_grad=True)
        for heads in (8, 2, 2)
    )
    index = BlockIndex.sliding_window(300, 1000, sinks=4, device="cuda")
    out = attention(q, k, v, index, backend="triton")
    expected = attention(*(x.detach().double().requires_grad_() for x in (q, k, v)), index, backend="reference")
    tolerance = {"atol": 2e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    torch.testing.assert_close(out.double(), expected, **tolerance)
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), [q, k, v]))
