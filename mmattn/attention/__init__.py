"""Published attention mechanisms as modules over the kernels, one file each."""

from mmattn.attention.recurrent.deltanet import DeltaNet
from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.attention.recurrent.prefix_linear import PrefixLinearAttention, repeat_context
from mmattn.attention.recurrent.rwkv6 import Rwkv6
from mmattn.attention.recurrent.simple_gla import SimpleGatedLinearAttention
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
