"""Options of the neural memory layer, under the names of titans-pytorch."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["MemoryOptions"]


@dataclass(frozen=True)
class MemoryOptions:
    """How a ``NeuralMemory`` reads, writes and forgets.

    Attributes:
        chunk_size: tokens per update of the memory; a pair sets reading and writing apart.
        batch_size: tokens after which gradients are taken at the newest memory instead of that at the start of the
            stream, a multiple of the chunk; None never does.
        dim_head: width of the memory network, default the model width (and then only that with one head).
        heads: independent memories.
        depth: matrices of the memory network.
        expansion_factor: hidden width of the memory network over ``dim_head``.
        momentum: whether surprise carries momentum.
        momentum_order: how often momentum is taken of the momentum.
        num_kv_per_token: keys and values that one token writes.
        pre_rmsnorm: normalise the input, apart for reading and writing.
        post_rmsnorm: normalise what is read, per head.
        qk_rmsnorm: normalise queries and keys, per head.
        activation: after the query, key and value projections.
        max_grad_norm: soft limit of the gradient norm of each matrix and chunk.
        max_lr: learning rates are ``sigmoid(.) * max_lr`` (``default_step_transform_max_lr`` upstream).
        attn_pool_chunks: a chunk's momentum and forget gates read an attention-weighted mean of its tokens.
        per_parameter_lr_modulation: a further learned factor for every tensor of the memory and every chunk.
        max_mem_layer_modulation: upper limit of that factor.
        spectral_norm_surprises: orthogonalise updates by five Newton-Schulz iterations.
        gated_transition: blend old and new base weights by a learned gate at ``batch_size`` boundaries.
        accept_weight_residual: take gradients at the sum of the own memory and a gated share of another layer's.
        mem_model_norm_add_residual: the memory network is ``x + LayerNorm(MLP(x)) (gamma + 1)``.

    Raises:
        ValueError: a number is out of range or options exclude each other.
    """

    chunk_size: int | tuple[int, int] = 1
    batch_size: int | None = None
    dim_head: int | None = None
    heads: int = 1
    depth: int = 2
    expansion_factor: float = 4.0
    momentum: bool = True
    momentum_order: int = 1
    num_kv_per_token: int = 1
    pre_rmsnorm: bool = True
    post_rmsnorm: bool = False
    qk_rmsnorm: bool = False
    activation: Literal["silu", "gelu", "relu"] | None = None
    max_grad_norm: float | None = None
    max_lr: float = 1.0
    attn_pool_chunks: bool = False
    per_parameter_lr_modulation: bool = False
    max_mem_layer_modulation: float = 1.0
    spectral_norm_surprises: bool = False
    gated_transition: bool = False
    accept_weight_residual: bool = False
    mem_model_norm_add_residual: bool = True

    def __post_init__(self) -> None:
        counts = {
            "retrieve chunk_size": self.retrieve_chunk,
            "store chunk_size": self.store_chunk,
            "heads": self.heads,
            "depth": self.depth,
            "momentum_order": self.momentum_order,
            "num_kv_per_token": self.num_kv_per_token,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.batch_size is not None and (self.batch_size < 1 or self.batch_size % self.store_chunk):
            raise ValueError(
                f"batch_size must be a multiple of the store chunk of {self.store_chunk} tokens, got {self.batch_size}"
            )
        if self.attn_pool_chunks and self.store_chunk == 1:
            raise ValueError("attn_pool_chunks weighs the tokens of a chunk: it needs a store chunk above 1 token")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm}")

    @property
    def retrieve_chunk(self) -> int:
        """Tokens that read the same memory."""
        return self.chunk_size if isinstance(self.chunk_size, int) else self.chunk_size[0]

    @property
    def store_chunk(self) -> int:
        """Tokens per update of the memory."""
        return self.chunk_size if isinstance(self.chunk_size, int) else self.chunk_size[1]
