import os
import pickle
from pathlib import Path

from mmattn.media.process_local import ProcessLocal

OPENED: list[int] = []
CLOSED: list[int] = []


def open_resource() -> int:
    OPENED.append(os.getpid())
    return len(OPENED)


def close_resource(resource: int) -> None:
    CLOSED.append(resource)


def setup_function() -> None:
    OPENED.clear()
    CLOSED.clear()


def test_the_resource_is_opened_once_and_on_first_use() -> None:
    local = ProcessLocal(open_resource, close_resource)
    assert OPENED == []
    assert local.get() == local.get() == 1


def test_closing_twice_closes_once_and_a_later_use_opens_anew() -> None:
    local = ProcessLocal(open_resource, close_resource)
    local.close()
    local.get()
    local.close()
    local.close()
    assert CLOSED == [1]
    assert local.get() == 2


def test_a_pickled_copy_has_a_resource_of_its_own() -> None:
    local = ProcessLocal(open_resource, close_resource)
    local.get()
    copy = pickle.loads(pickle.dumps(local))
    assert copy.get() == 2
    assert local.get() == 1


def test_a_forked_child_opens_its_own_and_does_not_close_the_parents(tmp_path: Path) -> None:
    local = ProcessLocal(open_resource, close_resource)
    local.get()
    child = os.fork()
    if child == 0:
        local.close()
        second = local.get()
        (tmp_path / "seen").write_text(f"{second} {CLOSED}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "seen").read_text() == "2 []"
    assert local.get() == 1
