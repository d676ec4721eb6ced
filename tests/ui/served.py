"""A page served in this process, and a visitor of it who speaks plain HTTP as the browser does."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
import httpx

from mmattn.ui.serve import launch


@contextmanager
def served(demo: gr.Blocks, **more: Any) -> Iterator[str]:
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True, **more)
    try:
        yield url
    finally:
        demo.close()


class Visitor:
    """One session. Jobs are named by their function's number."""

    def __init__(self, url: str) -> None:
        self.session = secrets.token_hex(6)
        self.http = httpx.Client(base_url=url, timeout=120, verify=False)

    def join(self, number: int, *values: Any) -> str:
        body = {"fn_index": number, "data": list(values), "session_hash": self.session}
        content = json.dumps(body)  # NaN and infinity are sent as Python writes them
        answer = self.http.post("/gradio_api/queue/join", content=content, headers={"Content-Type": "application/json"})
        answer.raise_for_status()
        return str(answer.json()["event_id"])

    def messages(self) -> Iterator[dict[str, Any]]:
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def ends(self) -> dict[str, dict[str, Any]]:
        """Waits for all jobs and returns how each ended."""
        return {m["event_id"]: m for m in self.messages() if m["msg"] == "process_completed"}

    def call(self, number: int, *values: Any) -> dict[str, Any]:
        event = self.join(number, *values)
        return self.ends()[event]
