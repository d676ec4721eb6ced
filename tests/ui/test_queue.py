"""The line of jobs: places, lines that do not block each other, visitors who leave."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mmattn.ui import queue as queue_module
from mmattn.ui.presence import Presence
from mmattn.ui.queue import stop_if_gone
from mmattn.ui.theme import page
from tests.ui.served import Visitor, served

SLOW, OTHER, KEEP = range(3)


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


class Work:
    """Handlers that last until they are let go, in steps."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started: list[str] = []
        self.finished: list[str] = []
        self.steps = 0

    def slow(self, name: str) -> str:
        self.started.append(name)
        while not self.go.is_set():
            stop_if_gone()
            self.steps += 1
            time.sleep(0.01)
        self.finished.append(name)
        return name


@pytest.fixture
def work() -> Iterator[tuple[Work, gr.Blocks, str]]:
    made = Work()

    def keep(name: str) -> tuple[Any, str]:
        return {"kept": name}, name

    with page("Demo", "# Demo") as demo:
        text, state, shown = gr.Textbox(), gr.State(None), gr.Textbox()
        button = gr.Button()
        button.click(made.slow, text, shown, concurrency_id="one")
        button.click(lambda name: f"other {name}", text, shown, concurrency_id="two")
        button.click(keep, text, [state, shown])
    with served(demo) as url:
        try:
            yield made, demo, url
        finally:
            made.go.set()


def test_a_client_has_two_places_and_reads_why_it_has_no_third(work: tuple[Work, gr.Blocks, str]):
    made, _, url = work
    visitor = Visitor(url)
    first, second = visitor.join(SLOW, "a"), visitor.join(SLOW, "b")
    wait_for(lambda: made.started)
    third = visitor.join(SLOW, "c")
    elsewhere = visitor.join(OTHER, "d")
    made.go.set()
    ends = visitor.ends()
    assert {ends[first]["success"], ends[second]["success"]} == {True}
    for refused in (third, elsewhere):
        assert ends[refused]["success"] is False
        assert "You have 2 jobs waiting or running already" in ends[refused]["output"]["error"]
    assert made.finished == ["a", "b"]
    assert visitor.call(OTHER, "e")["output"]["data"] == ["other e"]


def test_a_full_line_is_no_obstacle_to_another(work: tuple[Work, gr.Blocks, str], monkeypatch: pytest.MonkeyPatch):
    made, _, url = work
    monkeypatch.setattr(queue_module, "MAX_WAITING", 3)
    crowd = [Visitor(url) for _ in range(4)]
    crowd[0].join(SLOW, "runs")
    wait_for(lambda: made.started)
    for visitor in crowd[1:]:
        visitor.join(SLOW, "waits")
    late = Visitor(url).call(SLOW, "late")
    assert (late["success"], late["output"]["error"]) == (
        False, "3 others are waiting already. Try again in a minute.",
    )  # fmt: skip
    assert Visitor(url).call(OTHER, "quick")["output"]["data"] == ["other quick"]


def test_jobs_of_those_who_left_stop_and_the_next_visitor_is_served(
    work: tuple[Work, gr.Blocks, str], monkeypatch: pytest.MonkeyPatch
):
    made, demo, url = work
    monkeypatch.setattr(queue_module, "GONE_SECONDS", 0.5)
    monkeypatch.setattr(queue_module, "_SWEEP_SECONDS", 0.1)
    # They ask, and never listen: Gradio itself would serve them all, one after the other.
    for number in range(6):
        visitor = Visitor(url)
        visitor.join(SLOW, f"gone {number}")
        visitor.http.close()
    wait_for(lambda: made.started)
    stays = Visitor(url)
    stays.join(SLOW, "stays")
    stays.join(OTHER, "stays")
    reader = threading.Thread(target=stays.ends)
    reader.start()
    wait_for(lambda: "stays" in made.started)
    made.go.set()
    reader.join(60)
    assert not reader.is_alive()
    assert made.finished == ["stays"]
    assert len(made.started) == 2
    assert list(demo._queue.jobs()) == []


def test_a_job_whose_messages_are_gone_does_not_end_the_line(work: tuple[Work, gr.Blocks, str]):
    made, demo, url = work
    first, following, lost, last = (Visitor(url) for _ in range(4))
    running = first.join(SLOW, "first")
    wait_for(lambda: made.started)
    # When this one starts, all behind it are told their places.
    second = following.join(SLOW, "following")
    lost.join(SLOW, "lost")
    # What Gradio does when a connection is cut while the line is locked.
    del demo._queue.pending_messages_per_session[lost.session]
    waiting = last.join(SLOW, "last")
    made.go.set()
    assert first.ends()[running]["success"]
    wait_for(lambda: len(made.finished) == 3)
    assert following.ends()[second]["success"]
    assert not demo._queue.stopped
    assert last.ends()[waiting]["success"]
    assert made.finished == ["first", "following", "last"]
    assert not demo._queue.stopped


def test_what_was_kept_of_one_who_left_is_removed(work: tuple[Work, gr.Blocks, str], monkeypatch: pytest.MonkeyPatch):
    _, demo, url = work
    visitor = Visitor(url)
    assert visitor.call(KEEP, "mine")["success"]
    holder = demo._queue.server_app.state_holder
    assert visitor.session in holder.session_data
    monkeypatch.setattr(queue_module, "FORGET_SECONDS", 0.2)
    monkeypatch.setattr(queue_module, "_SWEEP_SECONDS", 0.1)
    wait_for(lambda: visitor.session not in holder.session_data)
    assert visitor.session not in demo._queue.pending_event_ids_session
    assert visitor.session not in demo._queue.pending_messages_per_session


def test_presence_counts_connections_and_the_time_without():
    now = [0.0]
    presence = Presence(lambda: now[0])
    with presence.connection("a"):
        with presence.connection("a"):
            pass
        presence.seen("a")
        now[0] = 50.0
        assert presence.gone(1.0) == []
    assert presence.gone(1.0) == []
    now[0] = 51.0
    assert presence.gone(1.0) == ["a"]
    presence.forget("a")
    presence.seen("b")
    assert presence.gone(0.0) == ["b"]


def test_outside_a_page_nothing_stops():
    assert stop_if_gone() is None


def test_files_of_a_session_go_with_it_unless_another_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    mine, shared, outside = (tmp_path / "cache/mine.txt", tmp_path / "cache/shared.txt", tmp_path / "outside.txt")
    for file in (mine, shared, outside):
        file.write_text("x")
    with page("Demo", "# Demo") as demo:
        pass
    demo._note("a", [{"path": str(mine)}, [{"x": {"path": str(shared)}}], {"path": str(outside)}, {"path": "\0"}])
    demo._note("b", {"path": str(shared)})
    demo.forget("a")
    assert (mine.exists(), shared.exists(), outside.exists()) == (False, True, True)
    demo.forget("b")
    assert not shared.exists()
