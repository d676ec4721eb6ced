"""What unpickling a file would cost, told from its instructions without executing any of them.

A few bytes can name a tuple that holds itself twice, forty times over: making it is nothing, hashing it never ends.
Thousands of integers with one hash make a dictionary quadratic, and a million tuples in each other overflow the stack
of the interpreter. So the instructions are followed with stand-ins that know only their depth and the cost of a hash.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from typing import IO, Any

__all__ = ["MAX_INSTRUCTIONS", "BoundsError", "check_bounds"]

MAX_INSTRUCTIONS = 5_000_000
"""Each makes an object of at most some 64 bytes, besides the bytes in the file itself."""

_MAX_DEPTH = 64
# A hash visits each place of a tuple; tuples in real files are sizes, pairs and the like.
_MAX_HASH = 100_000
# Tuples of -1 and -2 all have one hash, and so have multiples of 2**61 - 1.
_MAX_TUPLE_KEYS = 1_000
_MAX_LONG_INTEGERS = 256

_CONTAINERS = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_SET": "set", "EMPTY_TUPLE": "tuple"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FROM_MARK = {"TUPLE": "tuple", "LIST": "list", "DICT": "dict", "FROZENSET": "tuple", "INST": "object", "OBJ": "object"}
# How many things an instruction takes from the stack for the one object that it leaves.
_CALLS = {"STACK_GLOBAL": 2, "REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "BINPERSID": 1}
_NOTHING = frozenset({"PROTO", "FRAME", "STOP", "READONLY_BUFFER"})


class BoundsError(Exception):
    """Unpickling would take more time, memory or depth than plain data needs; says what of it."""


class _Thing:
    """Stands for an object: how deep it is, what a hash of it costs, and how many of its entries are tuples."""

    __slots__ = ("cost", "depth", "kind", "tuples")

    def __init__(self, kind: str = "atom") -> None:
        self.kind = kind
        self.depth = 0 if kind == "atom" else 1
        self.cost = 1
        self.tuples = 0

    def take(self, parts: list[_Thing]) -> _Thing:
        """Puts things into this one, and returns it."""
        for part in parts:
            self.depth = max(self.depth, part.depth + 1)
            self.tuples += (part.kind == "tuple") + (part.tuples if self.kind != "list" else 0)
            if self.kind == "tuple":
                self.cost += part.cost
        if self.depth > _MAX_DEPTH:
            raise BoundsError(f"it nests deeper than {_MAX_DEPTH} levels")
        if self.cost > _MAX_HASH:
            raise BoundsError(f"it holds a tuple of more than {_MAX_HASH:,} entries")
        return self


def check_bounds(file: IO[bytes] | bytes, *, max_instructions: int = MAX_INSTRUCTIONS) -> None:
    """Follows one pickle up to its end.

    Args:
        file: The pickle, or a file that stands at its beginning and is left behind its end.
        max_instructions: More are refused.

    Raises:
        BoundsError: If it is out of bounds.
        ValueError: If it is no pickle.
        UnpicklingError: If it takes from its stack or memo what it did not put there.
    """
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number >= max_instructions:
                raise BoundsError(f"it has more than {max_instructions:,} instructions")
            machine.step(opcode.name, argument)
    except (IndexError, KeyError) as error:
        raise pickle.UnpicklingError("it takes from its stack or memo what it did not put there") from error


class _Machine:
    """The stack and memo of an unpickler, with stand-ins on them."""

    def __init__(self) -> None:
        self.stack: list[_Thing | None] = []  # None is a mark
        self.memo: dict[int, _Thing] = {}
        self.tuple_keys = 0
        self.long_integers = 0

    def step(self, name: str, argument: Any) -> None:
        """Follows one instruction."""
        if name in _NOTHING:
            return
        if name in _CONTAINERS:
            self.stack.append(_Thing(_CONTAINERS[name]))
        elif name == "MARK":
            self.stack.append(None)
        elif name in _TUPLES:
            self.stack.append(_Thing("tuple").take(self._pop(_TUPLES[name])))
        elif name in _FROM_MARK:
            self._push_collected(_FROM_MARK[name])
        elif name in _CALLS:
            self._call(_CALLS[name])
        elif name in ("APPEND", "BUILD"):
            self._into(self._pop(1))
        elif name == "APPENDS":
            self._into(self._collect())
        elif name in ("SETITEM", "SETITEMS", "ADDITEMS"):
            parts = self._pop(2) if name == "SETITEM" else self._collect()
            self._count_keys(parts if name == "ADDITEMS" else parts[::2])
            self._into(parts)
        elif name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            self._collect()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name.endswith("PUT") or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = self._top()
        elif name.endswith("GET"):
            self.stack.append(self.memo[int(argument)])
        else:
            self._count_long(argument)
            self.stack.append(_Thing())

    def _top(self) -> _Thing:
        top = self.stack[-1]
        if top is None:
            raise IndexError
        return top

    def _pop(self, count: int) -> list[_Thing]:
        parts = [self.stack.pop() for _ in range(count)][::-1]
        return list(_without_marks(parts))

    def _collect(self) -> list[_Thing]:
        """Takes everything above the last mark, and the mark."""
        parts = []
        while (part := self.stack.pop()) is not None:
            parts.append(part)
        return parts[::-1]

    def _push_collected(self, kind: str) -> None:
        parts = self._collect()
        if kind == "dict":
            self._count_keys(parts[::2])
        self.stack.append(_Thing(kind).take(parts))

    def _call(self, count: int) -> None:
        """Follows a call, such as ``set([...])``: what it was given may be hashed."""
        parts = self._pop(count)
        lists = [part.tuples for part in parts[1:] if part.kind == "tuple" and part.tuples > 2 * _MAX_TUPLE_KEYS]
        self.tuple_keys += sum(lists)
        self._check_keys()
        self.stack.append(_Thing("object").take([]))
        self._top().depth = max([1, *(part.depth for part in parts)])

    def _into(self, parts: list[_Thing]) -> None:
        self._top().take(parts)

    def _count_keys(self, keys: list[_Thing]) -> None:
        self.tuple_keys += sum(key.kind == "tuple" for key in keys)
        self._check_keys()

    def _check_keys(self) -> None:
        if self.tuple_keys > _MAX_TUPLE_KEYS:
            raise BoundsError(f"it has more than {_MAX_TUPLE_KEYS:,} tuples as keys")

    def _count_long(self, argument: Any) -> None:
        if isinstance(argument, int) and argument.bit_length() > 64:
            self.long_integers += 1
            if self.long_integers > _MAX_LONG_INTEGERS:
                raise BoundsError(f"it holds more than {_MAX_LONG_INTEGERS} integers of over 64 bits")


def _without_marks(parts: list[_Thing | None]) -> Iterator[_Thing]:
    for part in parts:
        if part is None:
            raise IndexError
        yield part
