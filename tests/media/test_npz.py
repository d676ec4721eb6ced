"""Reading npz files array by array, with the file's name in every error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.media.npz import read_array, read_text

DATA = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "compressed"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "clip.npz"
    request.param(
        path, data=DATA, fortran=np.asfortranarray(DATA), ID="b001_000490", names=np.array([b"vid_01", b"vid_02"]),
        objects=np.array([1, "a"], object), empty=np.zeros((0, 3)),
    )  # fmt: skip
    return path


def test_whole_arrays_and_rows_are_read(file: Path) -> None:
    for name in ("data", "fortran"):
        assert np.array_equal(read_array(file, name, (2, None, 4)), DATA)
        assert np.array_equal(read_array(file, name, (3, 4), row=1), DATA[1])
    assert read_array(file, "empty", (None, 3)).shape == (0, 3)
    read_array(file, "data", (2, 3, 4))[0] = 1.0  # the caller owns the memory


def test_text_comes_as_strings_whether_it_was_bytes_or_not(file: Path) -> None:
    assert read_text(file, "ID") == ["b001_000490"]
    assert read_text(file, "names") == ["vid_01", "vid_02"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: read_array(f, "labels", (2,)), r"clip\.npz' has no array 'labels'; it has data, fortran, ID"),
        (lambda f: read_array(f, "data", (2, 3)), r"clip\.npz': data has shape \(2, 3, 4\), expected \(2, 3\)"),
        (lambda f: read_array(f, "data", (None, 3, 5)), r"expected \(any, 3, 5\)"),
        (lambda f: read_array(f, "data", (3, 4), row=2), r"data has 2 rows, row 2 was asked for"),
        (lambda f: read_array(f, "ID", ()), "ID holds <U11, expected numbers"),
        (lambda f: read_array(f, "objects", (2,)), "objects holds object, expected numbers"),
        (lambda f: read_text(f, "data"), "data holds float32, expected text"),
        (lambda f: read_text(f, "objects"), "objects holds object, expected text"),
        (lambda f: read_array(f.with_name("gone.npz"), "data", (2,)), r"gone\.npz' does not exist"),
    ],
    ids=["missing array", "dimensions", "size", "row", "text", "pickled", "numbers", "pickled text", "missing file"],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_file(file: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(file)


@pytest.mark.parametrize("kept", [0, 10, 100, 0.5, 0.9])
def test_a_truncated_file_is_named(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(kept if kept > 1 or kept == 0 else kept * len(content))])
    with pytest.raises(InputError, match=r"clip\.npz' is damaged or no npz file"):
        read_array(file, "data", (2, 3, 4))


def test_damaged_content_is_named(file: Path) -> None:
    content = bytearray(file.read_bytes())
    position = content.index(b"data.npy") + 60
    content[position : position + 60] = bytes(255 - b for b in content[position : position + 60])
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"clip\.npz' is damaged or no npz file"):
        read_array(file, "data", (2, 3, 4))
