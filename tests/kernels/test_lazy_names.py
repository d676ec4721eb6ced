"""The names of ``mmattn.kernels``: complete, and the recurrent ones loaded only when somebody asks for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmattn import kernels

ROOT = Path(__file__).parents[2]


def fresh(code: str) -> str:
    """Returns what a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout.strip()


def test_softmax_attention_loads_no_linear_kernel_and_a_recurrent_name_does() -> None:
    loaded = "print([n for n in sys.modules if n.startswith(('mmattn.kernels.linear', 'mmattn.kernels.memory'))] != [])"
    code = f"import sys\nfrom mmattn.kernels import BlockIndex, attention, merge, pool, select\n{loaded}\n"
    code += f"from mmattn.kernels import gated_linear_attention\n{loaded}\nprint(callable(attention))"
    assert fresh(code).split() == ["False", "True", "True"]


def test_attention_is_the_function_even_after_its_module_was_imported() -> None:
    code = "import mmattn.kernels.attention\nfrom mmattn.kernels import attention, rwkv6\n"
    code += "print(type(mmattn.kernels.attention).__name__, type(attention).__name__, type(rwkv6).__name__)"
    assert fresh(code) == "function function function"


def test_every_name_is_there_and_listed() -> None:
    assert set(kernels.__all__) <= set(dir(kernels))
    assert all(callable(getattr(kernels, name)) for name in kernels.__all__)
    assert kernels.gated_linear_attention is kernels.linear.gated_linear_attention
    with pytest.raises(AttributeError, match=r"module 'mmattn.kernels' has no attribute 'soft_attention'"):
        _ = kernels.soft_attention
