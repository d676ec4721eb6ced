"""Shared mathematics of attention: functions over tensors, nothing but torch below them."""

from mmattn.kernels.attention import attention
from mmattn.kernels.block_index import BlockIndex
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
