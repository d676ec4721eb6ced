"""Linear attention and its relatives: a matrix-valued state passed over tokens, as ``naive | chunk | step``.

What every kernel says of itself is its recurrence, its own arguments and its costs. The rest is the same for all.

Letters: B batch, H heads, T tokens, K key width, V value width, C tokens of a chunk, N packed sequences.

Modes:
    ``naive`` is the definition, token by token. It can be differentiated any number of times; under autograd it keeps
    every state, ``O(T K V)``. ``chunk`` does matrix products inside chunks of C tokens and a short recurrence over
    chunks; no factor it forms can overflow, however strong the decay. Its memory beside inputs and outputs is that of
    about 1024 tokens at a time: the backward pass keeps one state per 1024 tokens and recomputes the others, and can
    not be differentiated again. ``auto`` takes ``chunk`` for more than one token.

Steps:
    ``*_step`` is one more token of a stream, in ``O(K V)``: it takes tensors without T and a state, which it does not
    change, and returns the output ``(B, H, V)`` in the dtype of v and the new state, both differentiable. The dtype of
    the state is the one of the arithmetic. For speed nothing is checked: a positive log-decay goes unnoticed.

Options:
    scale: multiplies q, default ``1 / sqrt(K)``.
    initial_state: ``(B, H, K, V)``, or ``(N, H, K, V)`` with ``cu_seqlens``; it is not changed. Default zeros.
    mode: ``auto``, ``naive`` or ``chunk``, see above.
    chunk_size: C, at least 1; it does not change the result.
    layout: ``bhtd``, or ``bthd`` for tensors and outputs ``(B, T, H, .)``.
    cu_seqlens: int ``(N + 1,)``, the borders, from 0 to T, of N sequences packed along T, which may be empty; B = 1.
        Each has a state of its own.
    mask: bool ``(B, T)``, False at padding. Padding leaves the state as it is, without decay, and gives output 0,
        whatever stands there.

Results:
    Outputs ``(B, H, T, V)`` in the dtype of v and the state after the last token, ``(B, H, K, V)`` or
    ``(N, H, K, V)``, in the widest dtype of the inputs and at least float32, which is the one of the arithmetic. Both
    are differentiable with respect to all tensors, the initial state included.

Errors:
    ``ValueError`` where shapes, dtypes or options do not fit or the logarithm of a decay is positive; the message says
    what was given and expected.
"""

from mmattn.kernels.linear.delta_rule import delta_rule, delta_rule_step, gated_delta_rule, gated_delta_rule_step
from mmattn.kernels.linear.gla import gated_linear_attention, gated_linear_attention_step
from mmattn.kernels.linear.prefix import prefix_linear_attention, prefix_linear_attention_step
from mmattn.kernels.linear.rwkv6 import rwkv6, rwkv6_step
from mmattn.kernels.linear.simple_gla import simple_gla, simple_gla_step
from mmattn.kernels.linear.ungated import linear_attention, linear_attention_step

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
