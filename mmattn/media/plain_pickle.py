"""Reading pickles of plain data without ever running code from them.

A3D's detections are distributed as pickles, and a pickle is a program: it may call any function it can name. So these
files are read by ``mmattn convert`` only, in two steps that both have to agree:

1. The opcodes are listed without being executed. Anything that is not needed for lists, dicts, tuples, numbers, strings
   and NumPy arrays is refused, and so are places in the memo that the file never fills (a few bytes could otherwise
   ask for gigabytes) and what :mod:`mmattn.media.pickle_bounds` finds too deep or too slow to hash.
2. The pickle is loaded with a table of the few names such data needs. Each leads to a stand-in of this module: NumPy's
   own functions, and the state they would accept, are never handed to the file. Arrays are built here from checked
   shapes and bytes.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.pickle_bounds import BoundsError, check_bounds
from mmattn.media.regular import read_regular

__all__ = ["load_plain_pickle"]

_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET",
    "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1",
    "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_LIST",
    "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT",
    "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})  # fmt: skip
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_KIND = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_MAX_DEPTH = 32
_MAX_BYTES = 1 << 28

_HINT = "It may have been made to do harm. Get the file again from its authors; do not open it with pickle."


def load_plain_pickle(path: str | Path) -> Any:
    """Returns the lists, dicts, tuples, numbers, strings and numeric arrays a pickle file holds.

    Args:
        path: The file, written by any version of Python with or without NumPy.

    Raises:
        InputError: If the file holds anything else (it is refused before anything is run), is damaged, nests deeper
            than 32 levels, is out of the bounds of :mod:`mmattn.media.pickle_bounds` or larger than 256 MB, or does not
            exist.
    """
    file = Path(path)
    data = read_regular(file, _MAX_BYTES, error=InputError)
    try:
        check_bounds(data)
        _check_opcodes(data)
        value = _PlainUnpickler(BytesIO(data), encoding="latin1").load()
        return _finished(value, {}, 0)
    except (_RefusedError, BoundsError) as error:
        raise InputError(f"'{file}' was refused: {error}.", _HINT) from error
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
            OverflowError, MemoryError, RecursionError) as error:  # fmt: skip
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"'{file}' is damaged or no pickle: {reason.rstrip('.')}.", "Download it again.") from error


class _RefusedError(Exception):
    """The file asks for something that plain data does not need."""


def _check_opcodes(data: bytes) -> None:
    written = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise _RefusedError(f"it uses the pickle instruction {opcode.name}, which plain data does not need")
        if opcode.name in _PUTS:
            # Picklers number what they remember one after the other, from 0 or (Python 2) from 1.
            if int(argument or 0) > written + 1:
                raise _RefusedError(f"it writes to place {argument} of a memo of {written} entries")
            written += 1
        elif opcode.name == "MEMOIZE":
            written += 1


class _PlainUnpickler(pickle.Unpickler):
    """Finds the stand-ins of this module and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a global name."""
        found = _GLOBALS.get((module, name))
        if found is None:
            raise _RefusedError(f"it names {module}.{name}; only lists, dicts, tuples, numbers, strings and NumPy "
                                "arrays are read")  # fmt: skip
        return found


class _Dtype:
    """Stands in for ``numpy.dtype``: numbers and booleans of a fixed size."""

    __slots__ = ("kind", "order")

    def __init__(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, str) or _KIND.fullmatch(kind) is None:
            raise _RefusedError(f"it holds an array of type {kind!r}; only numbers and booleans are read")
        self.kind = kind.lstrip("<>|=")
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise _RefusedError("it describes a type of numbers in an unknown way")
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        """Returns the NumPy type."""
        return np.dtype(self.order + self.kind if self.order in "<>" else self.kind)


class _Array:
    """Stands in for ``numpy.ndarray`` while the pickle is being read."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("it describes an array in an unknown way")
        _, shape, dtype, is_fortran, content = state
        self.value = _build(content, dtype, shape, "F" if is_fortran else "C")


class _ArrayType:
    """What the name ``numpy.ndarray`` gives: a token that only :func:`_reconstruct` takes."""


def _reconstruct(kind: Any, shape: Any, letter: Any) -> _Array:
    """Stands in for NumPy's function that makes an empty array to be filled by ``__setstate__``."""
    if kind is not _ArrayType:
        raise _RefusedError("it makes an array of an unknown kind")
    return _Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Stands in for NumPy's function that makes an array of bytes (protocol 5)."""
    array = _Array()
    array.value = _build(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    """Stands in for NumPy's function that makes one number."""
    return _build(content, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands in for ``codecs.encode``, by which Python 3 writes bytes in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError("it encodes text in an unexpected way")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for ``bytes``, which old protocols call for an empty one; with arguments the call fails."""
    return b""


def _build(content: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    """Returns an array that owns its memory, after checking that the bytes fill the shape."""
    if isinstance(content, str):
        content = content.encode("latin1")  # a string of Python 2
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _RefusedError("it holds an array of something other than numbers and booleans")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise _RefusedError(f"it holds an array of shape {shape!r}")
    kind = dtype.resolve()
    if len(shape) > _MAX_DEPTH or math.prod(shape) * kind.itemsize != len(content):
        raise _RefusedError(f"it holds an array of shape {shape} in {len(content)} bytes, which does not fit")
    native = np.frombuffer(content, kind).astype(kind.newbyteorder("="))
    return np.asarray(native.reshape(shape, order=order))


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _reconstruct for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    **{(module, "_frombuffer"): _frombuffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _finished(value: Any, done: dict[int, Any], depth: int) -> Any:
    """Returns plain data with arrays in the place of their stand-ins; what is shared in the file stays shared."""
    if depth > _MAX_DEPTH:
        raise _RefusedError(f"it nests deeper than {_MAX_DEPTH} levels")
    if isinstance(value, _Array):
        if value.value is None:
            raise _RefusedError("it holds an array without content")
        return value.value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, list | tuple):
        items = [_finished(item, done, depth + 1) for item in value]
        done[id(value)] = items if isinstance(value, list) else tuple(items)
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = {
            _finished(key, done, depth + 1): _finished(item, done, depth + 1) for key, item in value.items()
        }
        return done[id(value)]
    if value is None or isinstance(value, bool | int | float | str | bytes | bytearray | np.generic):
        return value
    raise _RefusedError(f"it holds a {type(value).__name__.strip('_')}")
