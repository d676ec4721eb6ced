"""Published attention mechanisms as modules over the kernels, one file each."""

from mmattn.attention.deltanet import DeltaNet
from mmattn.attention.gla import GatedLinearAttention
from mmattn.attention.prefix_linear import PrefixLinearAttention, repeat_context
from mmattn.attention.rwkv6 import Rwkv6
from mmattn.attention.simple_gla import SimpleGatedLinearAttention
from mmattn.attention.titans import MemoryAsContext, MemoryAsGate, MemoryAsLayer, NeuralMemory

__all__ = [
    "DeltaNet",
    "GatedLinearAttention",
    "MemoryAsContext",
    "MemoryAsGate",
    "MemoryAsLayer",
    "NeuralMemory",
    "PrefixLinearAttention",
    "Rwkv6",
    "SimpleGatedLinearAttention",
    "repeat_context",
]
