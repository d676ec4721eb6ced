"""Whatever a path leads to, each reader answers with one clear error, and waits for nothing."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmattn.core.batch.inputs import expand_inputs
from mmattn.core.weights.checkpoint import read_safetensors
from mmattn.core.weights.torch_file import load_torch_file
from mmattn.errors import CheckpointError, InputError, MediaError, MediaNotFoundError, MmattnError
from mmattn.media.audio import read_audio
from mmattn.media.image import read_image
from mmattn.media.npz import read_array
from mmattn.media.plain_pickle import load_plain_pickle
from mmattn.media.regular import expanded, open_regular, read_lines, read_regular
from mmattn.media.video import open_video
from mmattn.speech.lina.generation.script import read_script
from mmattn.video.crash.perception.box_file import read_box_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of Unix")

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "picture": (".png", read_image),
    "recording": (".wav", read_audio),
    "video": (".mp4", open_video),
    "array": (".npz", lambda path: read_array(path, "x", (None,))),
    "pickle": (".pkl", load_plain_pickle),
    "weights": (".pt", load_torch_file),
    "safetensors": (".safetensors", read_safetensors),
    "boxes": (".csv", lambda path: read_box_file(path, [0.0])),
    "script": (".txt", read_script),
    "input": (".png", lambda path: expand_inputs([path], suffixes=[".png"])),
    "list": (".txt", lambda path: expand_inputs([f"@{path}"], suffixes=[".png"])),
}


def special(kind: str, path: Path) -> Path:
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path has at most 108 bytes
            try:
                server.bind(path.name)
            finally:
                os.chdir(here)
    return path


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a socket"])
@pytest.mark.parametrize(("suffix", "read"), READERS.values(), ids=READERS.keys())
def test_no_reader_opens_what_is_no_file(tmp_path: Path, kind: str, suffix: str, read: Callable[[Path], Any]) -> None:
    with pytest.raises(MmattnError, match=f"{kind}, expected a file"):
        read(special(kind, tmp_path / f"x{suffix}"))


@pytest.mark.parametrize(("suffix", "read"), READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("stem", ["n" * 300, "a\0b"], ids=["too long", "NUL"])
def test_names_that_no_file_can_have_are_our_errors(
    tmp_path: Path, stem: str, suffix: str, read: Callable[[Path], Any]
) -> None:
    with pytest.raises(MmattnError):
        read(tmp_path / f"{stem}{suffix}")


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder, expected a file"):
        open_regular(tmp_path)
    with pytest.raises(MediaNotFoundError, match="There is no file"):
        open_regular(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="There is no file"):
        open_regular(tmp_path / "gone", error=CheckpointError)


def test_the_limit_counts_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    assert read_regular(tmp_path / "a", 11) == bytes(11)
    with pytest.raises(InputError, match="has 11 bytes; the limit is 10"):
        read_regular(tmp_path / "a", 10, error=InputError)


def test_lines_have_no_mark_and_keep_other_separators(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffone\r\ntwo\u2028three\x85\n\nfour\n".encode())
    assert read_lines(tmp_path / "a", 99) == ["one", "two\u2028three\x85", "", "four"]
    (tmp_path / "a").write_bytes(b"caf\xe9")
    with pytest.raises(MediaError, match=r"not UTF-8 text \(byte 3\)"):
        read_lines(tmp_path / "a", 99)


def test_lists_take_a_byte_order_mark_and_names_with_separators(tmp_path: Path) -> None:
    names = ["a.png", "b\u2028c.png", "~nobody_of_this_name.png"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("\ufeff" + "\r\n".join(str(tmp_path / name) for name in names), newline="")
    items = expand_inputs([f"@{tmp_path / 'list.txt'}"], suffixes=[".png"])
    assert [item.path.name for item in items] == names


def test_a_name_that_begins_with_a_tilde_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody_of_this_name.png").touch()
    assert expanded("~nobody_of_this_name.png") == Path("~nobody_of_this_name.png")
    assert expanded("~") == Path.home()
    (item,) = expand_inputs(["~nobody_of_this_name.png"], suffixes=[".png"])
    assert item.path.name == "~nobody_of_this_name.png"
