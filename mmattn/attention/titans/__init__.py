"""Titans: a neural memory as a layer and the ways to join it with attention (arXiv 2501.00663)."""

from mmattn.attention.titans.branches import BranchState, MemoryAsGate, MemoryAsLayer
from mmattn.attention.titans.context import MacOptions, MacState, MemoryAsContext
from mmattn.attention.titans.memory import NeuralMemory, NeuralMemoryState
from mmattn.attention.titans.options import MemoryOptions

__all__ = [
    "BranchState",
    "MacOptions",
    "MacState",
    "MemoryAsContext",
    "MemoryAsGate",
    "MemoryAsLayer",
    "MemoryOptions",
    "NeuralMemory",
    "NeuralMemoryState",
]
