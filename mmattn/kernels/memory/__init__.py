"""Titans neural memory: a network whose weights are written at test time (arXiv 2501.00663).

``neural_memory`` is the whole operator with its own recurrence over tokens; ``memory_gradients``, ``gated_scan`` and
``recall`` are its parts, for layers that update once per chunk of tokens.
"""

from mmattn.kernels.memory.network import Memory, aligned, memory_gradients, recall
from mmattn.kernels.memory.recurrence import MemoryState, neural_memory, neural_memory_step
from mmattn.kernels.memory.scan import gated_scan

__all__ = [
    "Memory",
    "MemoryState",
    "aligned",
    "gated_scan",
    "memory_gradients",
    "neural_memory",
    "neural_memory_step",
    "recall",
]
