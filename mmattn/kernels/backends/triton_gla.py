"""Gated linear attention on our Triton kernels: CUDA, or any CPU under ``TRITON_INTERPRET=1`` (slow, for tests).

The host side of [`triton_gla_kernels`][mmattn.kernels.backends.triton_gla_kernels] and
[`triton_gla_gradients`][mmattn.kernels.backends.triton_gla_gradients]: it says what the kernels cannot take, picks tile
sizes, and makes of them one differentiable operation that keeps its inputs and nothing else.

Letters: B batch, H heads, T tokens, N chunks of C tokens, K key and V value width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from mmattn.kernels.backends import triton_gla_gradients as gradients
from mmattn.kernels.backends import triton_gla_kernels as kernels
from mmattn.kernels.backends.fallbacks import differentiable_gradients

__all__ = ["MAX_KEY_WIDTH", "gla_chunks", "obstacle", "tile_options", "warps"]

MAX_KEY_WIDTH = 256
_LEAF = int(kernels.LEAF.value)  # of tl.dot, too, the smallest tile
_MOST_TOKENS = 64  # of a chunk
_HALF = (torch.float16, torch.bfloat16)


def obstacle(tensors: Sequence[Tensor]) -> str | None:
    """Returns why the kernels cannot run on q, k, v, g ``(B, H, T, D)``, as half a sentence; None if they can."""
    q = tensors[0]
    interpreted = not isinstance(kernels.states_kernel, triton.runtime.JITFunction)
    if not interpreted and q.device.type != "cuda":
        return f"tensors are on {q.device}, and Triton runs on CUDA, or anywhere if TRITON_INTERPRET=1 is set at start"
    dtypes = [x.dtype for x in tensors]
    if others := [dtype for dtype in dtypes if dtype not in (*_HALF, torch.float32)]:
        return f"the Triton kernels take float32, float16 and bfloat16, not {others[0]}"
    if interpreted and torch.bfloat16 in dtypes:
        return "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly"
    # A leaf's keys are one tile; values are cut to tiles of any number.
    if q.shape[-1] > MAX_KEY_WIDTH:
        return f"the Triton kernels take keys of up to {MAX_KEY_WIDTH} channels, not {q.shape[-1]}"
    return None


def tile_options(K: int, V: int, *, exact: bool) -> dict[str, Any]:
    """Returns the compile-time options of the kernels: padded key width, tile sizes and how products are rounded.

    Args:
        K: key width.
        V: value width.
        exact: float32 products; otherwise their factors have 11 significant bits (TF32), all that half precision has.

    >>> tile_options(80, 256, exact=False)
    {'KP': 128, 'BK': 64, 'BV': 64, 'PRECISION': 'tf32'}
    """
    padded_k, padded_v = (max(_LEAF, triton.next_power_of_2(width)) for width in (K, V))
    most = 32 if exact else 64
    return {
        "KP": padded_k,
        "BK": min(padded_k, most),
        "BV": min(padded_v, most),
        "PRECISION": "ieee" if exact else "tf32",
    }


def warps(tiles: str, padded_k: int) -> int:
    """Returns how many warps share a program, so that its tiles fit their registers without leaving many idle.

    Args:
        tiles: as in ``_Call.launch``.
        padded_k: key width, a power of two.

    >>> warps("leaves", 64), warps("keys", 64), warps("values", 64)
    (2, 8, 4)
    """
    if tiles == "leaves":
        return max(1, padded_k // 32)
    return 8 if tiles == "keys" else 4


def gla_chunks(
    *tensors: Tensor, state: Tensor, scale: float, chunk_size: int, definition: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Returns outputs ``(B, H, T, V)`` in the dtype of v and the final state ``(B, H, K, V)``, both differentiable.

    Time ``O(T (C + V) K)`` per head; memory beside inputs and outputs ``T / C`` states and ``T C`` scores per head,
    during each pass and not between.

    Args:
        tensors: q, k, v, g ``(B, H, T, .)`` without an `obstacle`.
        state: float32 ``(B, H, K, V)``.
        scale: multiplies q.
        chunk_size: C, rounded up to 16, 32 or 64.
        definition: the same token by token, of tensors with ``state`` and ``scale``, for derivatives of gradients.
    """
    T = tensors[0].shape[2]
    C = min(_MOST_TOKENS, max(_LEAF, triton.next_power_of_2(max(1, min(chunk_size, T)))))
    out, final = _GlaChunks.apply(scale, C, definition, state, *tensors)
    return out, final


class _Call(NamedTuple):
    """One call: what all kernels need beside the tensors they differ in."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    scale: float
    chunk_size: int

    @classmethod
    def of(cls, *tensors: Tensor, scale: float, chunk_size: int) -> "_Call":
        """Returns a call on q, k, v and g, copied only if the entries of a row are not neighbours."""
        q, k, v, g = (x if x.stride(-1) == 1 else x.contiguous() for x in tensors)
        return cls(q, k, v, g, scale, chunk_size)

    @property
    def num_chunks(self) -> int:
        return triton.cdiv(self.q.shape[2], self.chunk_size)

    def empty(self, *shape: int) -> Tensor:
        """Returns a float32 tensor ``(B, H, *shape)``."""
        return self.q.new_empty(*self.q.shape[:2], *shape, dtype=torch.float32)

    def launch(self, kernel: Any, inputs: str, *others: Tensor, tiles: str) -> None:
        """Runs a kernel.

        Args:
            kernel: it takes the inputs, the others, strides of the inputs, sizes, and options by name.
            inputs: which of ``qkvg`` it reads.
            others: the contiguous tensors it reads and writes.
            tiles: what its programs share out beside heads: ``states``, or of every chunk ``leaves``, tiles of ``keys``
                or of ``values``, or nothing more (``chunks``).
        """
        (B, H, T, K), V, C = self.q.shape, self.v.shape[3], self.chunk_size
        read = [{"q": self.q, "k": self.k, "v": self.v, "g": self.g}[name] for name in inputs]
        options = tile_options(K, V, exact=any(x.dtype not in _HALF for x in (self.q, self.k, self.v)))
        key_tiles, value_tiles = triton.cdiv(K, options["BK"]), triton.cdiv(V, options["BV"])
        per_head = {
            "states": key_tiles * value_tiles,
            "leaves": self.num_chunks * C // _LEAF,
            "keys": self.num_chunks * key_tiles,
            "values": self.num_chunks * value_tiles,
            "chunks": self.num_chunks,
        }[tiles]
        options |= {"K": K, "V": V, "C": C, "scale": self.scale}
        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device_of(self.q):
            kernel[(B * H * per_head,)](
                *read, *others, *[step for x in read for step in x.stride()[:3]], H, T, self.num_chunks,
                **{name: value for name, value in options.items() if name in kernel.arg_names},
                num_warps=warps(tiles, options["KP"]), num_stages=2,
            )  # fmt: skip

    def states(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the states before every chunk ``(B, H, N, K, V)`` and after the last ``(B, H, K, V)``."""
        states, final = self.empty(self.num_chunks, *state.shape[2:]), torch.empty_like(state)
        self.launch(kernels.states_kernel, "kvg", state, states, final, tiles="states")
        return states, final

    def scores(self) -> Tensor:
        """Returns the products of queries and keys of a chunk ``(B, H, T, C)``, meaningless above its diagonal."""
        scores = self.empty(self.q.shape[2], self.chunk_size)
        self.launch(kernels.scores_kernel, "qkg", scores, tiles="leaves")
        return scores


class _GlaChunks(torch.autograd.Function):
    """The kernels as one differentiable operation ``(state, q, k, v, g) -> (out, state)``."""

    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        chunk_size: int,
        definition: Callable[..., tuple[Tensor, Tensor]],
        state: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(state, q, k, v, g)
        ctx.scale, ctx.chunk_size, ctx.definition = scale, chunk_size, definition
        out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        if not out.numel():
            return out, state.clone()
        call = _Call.of(q, k, v, g, scale=scale, chunk_size=chunk_size)
        states, final = call.states(state.contiguous())
        call.launch(kernels.outputs_kernel, "qvg", call.scores(), states, out, tiles="values")
        return out, final

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        state, q, k, v, g = ctx.saved_tensors
        if torch.is_grad_enabled():

            def definition(state: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
                found: tuple[Tensor, Tensor] = ctx.definition(*tensors, state=state, scale=ctx.scale)
                return found

            return None, None, None, *differentiable_gradients(definition, (state, q, k, v, g), (grad_out, grad_final))
        if not grad_out.numel():
            return None, None, None, grad_final, *(torch.zeros_like(x) for x in (q, k, v, g))
        call = _Call.of(q, k, v, g, scale=ctx.scale, chunk_size=ctx.chunk_size)
        grad_out, grad_final = grad_out.contiguous(), grad_final.contiguous()
        states, _ = call.states(state.contiguous())
        grad_states, grad_state = torch.empty_like(states), call.empty(*state.shape[2:])
        call.launch(gradients.grad_states_kernel, "qg", grad_out, grad_final, grad_states, grad_state, tiles="states")
        scores, grad_v = call.scores(), torch.empty(v.shape, dtype=v.dtype, device=v.device)
        call.launch(gradients.grad_values_kernel, "kg", scores, grad_out, grad_states, grad_v, tiles="values")
        # The scores are done with; their gradients take their place.
        call.launch(gradients.grad_scores_kernel, "v", grad_out, scores, tiles="chunks")
        grad_q, grad_k, grad_g = (call.empty(*q.shape[2:]) for _ in range(3))
        call.launch(gradients.grad_pairs_kernel, "qkg", scores, grad_q, grad_k, tiles="leaves")
        call.launch(
            gradients.grad_tokens_kernel, "qkvg", grad_out, states, grad_states, scores, grad_q, grad_k, grad_g,
            tiles="keys",
        )  # fmt: skip
        return None, None, None, grad_state, grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v, grad_g.to(g.dtype)
