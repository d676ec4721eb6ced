"""Linear attention and its relatives: a matrix-valued state passed over tokens, as ``naive | chunk | step``."""

from mmattn.kernels.linear.delta_rule import delta_rule, delta_rule_step, gated_delta_rule, gated_delta_rule_step
from mmattn.kernels.linear.gla import gated_linear_attention, gated_linear_attention_step
from mmattn.kernels.linear.linear_attention import linear_attention, linear_attention_step
from mmattn.kernels.linear.prefix import prefix_linear_attention, prefix_linear_attention_step
from mmattn.kernels.linear.rwkv6 import rwkv6, rwkv6_step
from mmattn.kernels.linear.simple_gla import simple_gla, simple_gla_step

__all__ = [
    "delta_rule",
    "delta_rule_step",
    "gated_delta_rule",
    "gated_delta_rule_step",
    "gated_linear_attention",
    "gated_linear_attention_step",
    "linear_attention",
    "linear_attention_step",
    "prefix_linear_attention",
    "prefix_linear_attention_step",
    "rwkv6",
    "rwkv6_step",
    "simple_gla",
    "simple_gla_step",
]
