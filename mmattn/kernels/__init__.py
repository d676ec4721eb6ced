"""Shared mathematics of attention: functions over tensors, nothing but torch below them."""

from mmattn.kernels.attention import attention
from mmattn.kernels.block_index import BlockIndex
from mmattn.kernels.merge import merge
from mmattn.kernels.pooling import pool, select

__all__ = ["BlockIndex", "attention", "merge", "pool", "select"]
