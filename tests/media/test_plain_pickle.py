"""Pickles of plain data are read, anything else is refused before it can do anything."""

import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.media.plain_pickle import load_plain_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def load(folder: Path, data: bytes) -> object:
    path = folder / "detections.pkl"
    path.write_bytes(data)
    return load_plain_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_boxes_are_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    boxes = np.arange(100 * 19 * 6, dtype=np.float32).reshape(100, 19, 6)
    for value in (boxes, list(boxes), [frame.tolist() for frame in boxes], np.asfortranarray(boxes)):
        assert np.array_equal(np.array(load(tmp_path, pickle.dumps(value, protocol))), boxes)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", ["<f8", ">f4", "f2", "i8", ">i2", "u1", "?"])
def test_numbers_of_every_size_and_byte_order_are_read(tmp_path: Path, kind: str, protocol: int) -> None:
    values = np.array([[0, 1, 3], [2, 0, 1]]).astype(kind)
    found = load(tmp_path, pickle.dumps({"boxes": values, "first": values[0, 1], "empty": values[:0]}, protocol))
    assert isinstance(found, dict)
    assert found["boxes"].tolist() == values.tolist()
    assert found["boxes"].dtype == values.dtype.newbyteorder("=")
    assert found["first"] == values[0, 1]
    assert found["empty"].shape == (0, 3)


def test_arrays_that_python_2_wrote_are_read(tmp_path: Path) -> None:
    # What cPickle of Python 2 writes for numpy.array([1.0, 2.0]): old module name, bytes as a string.
    content = struct.pack("<2d", 1.0, 2.0)
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87Rq\x02"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x03U\x02f8K\x00K\x01\x87Rq\x04(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x10" + content + b"tb."
    )
    assert np.array_equal(load(tmp_path, data), [1.0, 2.0])  # type: ignore[arg-type]


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_data_comes_back_as_it_was(tmp_path: Path, value: object, protocol: int) -> None:
    assert load(tmp_path, pickle.dumps(value, protocol)) == value


def test_what_is_shared_stays_shared_and_does_not_blow_up(tmp_path: Path) -> None:
    value: list[object] = [1]
    for _ in range(25):
        value = [value, value]  # 2 ** 25 leaves when written out
    found = load(tmp_path, pickle.dumps(value))
    assert isinstance(found, list)
    assert found[0] is found[1]


class Hostile:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {victim}",), "system"),
        (eval, ("open('{victim}', 'w')",), "eval"),
        (exec, ("open('{victim}', 'w')",), "exec"),
        (getattr, ("x", "upper"), "getattr"),
        (np.fromfile, ("{victim}",), "fromfile"),
        (np.load, ("{victim}",), "load"),
        (bytearray, (10,), "bytearray"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_call_is_refused_and_not_made(
    tmp_path: Path, function: object, arguments: tuple[object, ...], named: str, protocol: int
) -> None:
    victim = tmp_path / "victim"
    filled = [a.format(victim=victim) if isinstance(a, str) else a for a in arguments]
    with pytest.raises(InputError, match=rf"was refused: it names .*{named}; only lists, dicts") as caught:
        load(tmp_path, pickle.dumps([1.0, Hostile(function, *filled)], protocol))
    assert not victim.exists()
    assert "do not open it with pickle" in caught.value.hint


@pytest.mark.parametrize(
    "value",
    [{1, 2}, 1j, OrderedDict(a=1), Path("x"), torch.zeros(2), np.ma.array([1.0]), ValueError("x"), print],
    ids=["set", "complex", "ordered dict", "path", "tensor", "masked array", "exception", "function"],
)
def test_other_objects_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match=r"was refused: it (names|uses the pickle instruction)"):
        load(tmp_path, pickle.dumps(value))


@pytest.mark.parametrize(
    "array",
    [np.array([1, "a", None], object), np.array(["abc"]), np.array([b"abc"]), np.zeros(2, [("x", "f4")]),
     np.array(["2020-01-01"], "datetime64[D]"), np.array([1j])],
    ids=["objects", "strings", "bytes", "fields", "dates", "complex"],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    with pytest.raises(InputError, match="only numbers and booleans are read"):
        load(tmp_path, pickle.dumps(array, protocol))


def array_state(shape: bytes, content: bytes, tail: bytes = b"b.") -> bytes:
    """Returns a pickle of a uint8 array with this shape opcode sequence and content."""
    return (
        b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape +
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89U" + bytes([len(content)]) + content + b"t" + tail
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_state(b"K\x03\x85", b"ab"), r"array of shape \(3,\) in 2 bytes, which does not fit"),
        (array_state(b"J\xff\xff\xff\xff\x85", b"ab"), r"array of shape \(-1,\)"),
        (array_state(b"U\x01x\x85", b"ab"), r"array of shape \('x',\)"),
        (b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.", "without content"),
        (b"\x80\x02cnumpy\nndarray\n.", "it holds a type"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R.", "it holds a Dtype"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "writes to place 2147483647 of a memo of 0 entries"),
        (b"\x80\x02(lp99\n.", "writes to place 99"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f4\x85\x81.", "instruction NEWOBJ"),
        (b"\x80\x02U\x01aQ.", "instruction BINPERSID"),
        (b"(S'a'\ni__main__\nX\n.", "instruction INST"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "encodes text in an unexpected"),
        (b"\x80\x02" + b"]" + b"]" * 40 + b"a" * 40 + b".", "nests deeper than 32 levels"),
    ],
    ids=["short bytes", "negative size", "size of text", "no content", "bare type", "bare dtype", "memo bomb",
         "text memo bomb", "extension", "new object", "persistent id", "instance", "codec", "depth"],
)  # fmt: skip
def test_a_file_made_by_hand_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, data)


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InputError, match="nests deeper than 32 levels"):
        load(tmp_path, pickle.dumps(loop))


@pytest.mark.parametrize(
    "data",
    [b"", b"no pickle at all", pickle.dumps([1, 2, 3])[:-1], pickle.dumps(np.arange(50.0))[:200],
     b"\x80\x02]b.", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.", b"\x80\x02K\x01K\x02R."],
    ids=["empty", "text", "truncated", "truncated array", "build of a list", "length beyond the end", "call of 1"],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"detections\.pkl' (is damaged or no pickle|was refused)"):
        load(tmp_path, data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*gone\.pkl"):
        load_plain_pickle(tmp_path / "gone.pkl")


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_plain_data_or_an_input_error(tmp_path: Path, data: bytes) -> None:
    with suppress(InputError):
        load(tmp_path, b"\x80\x04" + data)


def test_a_changed_byte_raises_nothing_else(tmp_path: Path) -> None:
    data = pickletools.optimize(pickle.dumps([np.arange(6.0).reshape(2, 3), {"a": (1, 2.5)}], 4))
    rng = np.random.default_rng(0)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] = rng.integers(256)
        with suppress(InputError):
            load(tmp_path, bytes(changed))
