import errno
import os
from pathlib import Path

import pytest

from mmattn.errors import MediaError, MediaNotFoundError
from mmattn.media.files import atomic_path


def test_the_file_appears_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        assert temporary.parent == tmp_path / "new"
        assert temporary.suffix == ".txt"
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_keeps_the_old_file_and_removes_the_temporary_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_finished_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_named_as_the_cause(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"a\.png: the disk is full") as caught, atomic_path(tmp_path / "a.png"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "Free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_named_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real read-only folder does not stop root, as whom containers often run.
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MediaError, match="is not writable"), atomic_path(tmp_path / "a.png"):
        pytest.fail("the block must not run")


def test_other_errors_of_the_block_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "missing").read_text()


def test_a_folder_cannot_be_the_target(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="it is a folder"), atomic_path(tmp_path):
        pytest.fail("the block must not run")


def test_a_file_in_place_of_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match=r"Cannot write .*a\.txt"), atomic_path(tmp_path / "file" / "a.txt"):
        pytest.fail("the block must not run")


def test_long_names_in_any_script_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("\u6f22" * 80 + ".txt")
    with atomic_path(target) as temporary:
        temporary.write_text("x")
    assert target.read_text() == "x"


def test_the_message_of_an_error_ends_with_its_hint() -> None:
    error = MediaNotFoundError("There is no file x.", "Check the path.")
    assert str(error) == "There is no file x. Check the path."
    assert isinstance(error, FileNotFoundError)
    assert isinstance(error, ValueError)
