import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmattn.errors import MediaError, MediaNotFoundError
from mmattn.media.files import atomic_path, flushing, write_text


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


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.EDQUOT, "x"), "the disk is full"),
        (OSError(errno.EFBIG, "x"), "larger than the file system or the limit"),
        (OSError(errno.EROFS, "x"), "is not writable"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError("100000 requested and 12484 written"), "the disk is full"),
    ],
)
def test_what_libraries_say_of_a_failing_disk_is_one_message(tmp_path: Path, cause: Exception, words: str) -> None:
    (tmp_path / "a.bin").write_text("old")
    with pytest.raises(MediaError, match=rf"^Cannot write .*a\.bin: .*{words}"), atomic_path(tmp_path / "a.bin"):
        raise cause
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_over_the_limit_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, sys, torch, numpy
        from pathlib import Path
        from safetensors.torch import save_file
        from mmattn.errors import MediaError
        from mmattn.media.files import atomic_path, flushing, write_text
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        writers = {
            "a.safetensors": lambda path: save_file({"x": torch.zeros(20_000)}, path),
            "a.npy": lambda path: numpy.save(path, numpy.zeros(20_000)),
            "a.bin": lambda path: path.write_bytes(bytes(30_000)),
        }
        for name, write in writers.items():
            try:
                with atomic_path(Path(sys.argv[1], name)) as temporary:
                    write(temporary)
            except MediaError as error:
                print(error.message)
    """)
    for name in ("a.safetensors", "a.npy", "a.bin"):
        (tmp_path / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
    assert all(line.startswith(f"Cannot write {tmp_path}/a.") for line in done.stdout.splitlines())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * 3


def test_a_name_that_is_too_long_is_told_by_its_length(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="a name of 303 bytes is too long"), atomic_path(tmp_path / f"{'x' * 299}.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_file_and_folders_are_flushed_in_the_order_a_power_loss_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace = Path.replace

    def rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: events.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    monkeypatch.setattr(Path, "replace", rename)
    write_text(tmp_path / "new" / "deep" / "a.txt", "whole")
    # The folders that got a new folder, the content under its temporary name, then the folder with the final name.
    assert events[:2] == [tmp_path.name, "new"]
    assert events[2].endswith(".txt")
    assert events[3:] == ["rename", "deep"]
    with flushing(False):
        write_text(tmp_path / "b.txt", "whole")
    assert events[4:] == ["deep", "rename"]
