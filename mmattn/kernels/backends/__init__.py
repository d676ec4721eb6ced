"""The backends of ``attention`` and of chunks of gated linear attention, and the one place that chooses."""

from mmattn.kernels.backends.resolve import (
    BACKENDS,
    CHUNK_BACKENDS,
    Backend,
    ChunkBackend,
    resolve,
    resolve_chunks,
)

__all__ = ["BACKENDS", "CHUNK_BACKENDS", "Backend", "ChunkBackend", "resolve", "resolve_chunks"]
