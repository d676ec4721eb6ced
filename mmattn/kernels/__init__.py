"""Shared mathematics of attention: functions over tensors, nothing but torch below them.

What is recurrent is loaded at its first use: softmax attention needs none of it.
"""

from typing import TYPE_CHECKING

from mmattn.kernels.attention import attention
from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.merge import merge
from mmattn.kernels.pooling import pool, select

__all__ = [
    "BlockIndex",
    "attention",
    "delta_rule",
    "gated_delta_rule",
    "gated_linear_attention",
    "linear_attention",
    "merge",
    "neural_memory",
    "pool",
    "prefix_linear_attention",
    "rwkv6",
    "select",
    "simple_gla",
]

if TYPE_CHECKING:
    from mmattn.kernels.linear import (
        delta_rule,
        gated_delta_rule,
        gated_linear_attention,
        linear_attention,
        prefix_linear_attention,
        rwkv6,
        simple_gla,
    )
    from mmattn.kernels.memory import neural_memory
else:

    def __getattr__(name: str) -> object:
        # Asked for names that are not there yet only; ``attention`` is bound above, to the function, not its module.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mmattn.kernels import linear, memory

        value = globals()[name] = getattr(memory if name == "neural_memory" else linear, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
