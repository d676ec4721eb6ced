"""A resource that each process opens for itself: survives pickling and fork by being opened again.

Decoders hold threads and file positions that a forked child must neither use nor free (freeing joins threads that do
not exist there and hangs). So a child forgets what it inherited and opens its own on first use.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["ProcessLocal"]

T = TypeVar("T")

_LIVE: weakref.WeakSet[ProcessLocal[Any]] = weakref.WeakSet()

# Keeps inherited resources of a forked child alive, so that their destructors never run there.
_INHERITED: list[object] = []


class ProcessLocal(Generic[T]):
    """Opens a resource on first use in each process.

    Args:
        open_resource: Opens it; has to be picklable if this object is to be.
        close_resource: Closes it in the process that opened it.
    """

    def __init__(self, open_resource: Callable[[], T], close_resource: Callable[[T], object]) -> None:
        self._open = open_resource
        self._close = close_resource
        self._resource: T | None = None
        _LIVE.add(self)

    def get(self) -> T:
        """Returns this process's resource."""
        if self._resource is None:
            self._resource = self._open()
        return self._resource

    def close(self) -> None:
        """Closes this process's resource if there is one; the next :meth:`get` opens a new one."""
        resource, self._resource = self._resource, None
        if resource is not None:
            self._close(resource)

    def forget(self) -> None:
        """Lets go of a resource that belongs to the parent process, without closing it."""
        if self._resource is not None:
            _INHERITED.append(self._resource)
            self._resource = None

    def __getstate__(self) -> dict[str, object]:
        return {"_open": self._open, "_close": self._close, "_resource": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        _LIVE.add(self)


def _forget_inherited() -> None:
    for local in list(_LIVE):
        local.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)
