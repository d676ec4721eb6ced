"""The backends of ``attention`` and the one place that chooses between them."""

from mmattn.kernels.backends.resolve import BACKENDS, Backend, resolve

__all__ = ["BACKENDS", "Backend", "resolve"]
