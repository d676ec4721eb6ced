"""Who is there: the open connections of each visitor of a page, and since when somebody has none.

A page holds a connection for as long as it is open (``heartbeat``), and one more while it waits for a job
(``queue/data``); a program that calls the API holds the second (``queue/data`` or ``call/NAME/EVENT``).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Presence", "PresenceMiddleware"]

_HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([^/]+)/?$")
_CALL = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)/?$")


class Presence:
    """Counts open connections by session; times are seconds on a clock that only goes on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._left: dict[str, float] = {}

    @contextmanager
    def connection(self, session: str) -> Iterator[None]:
        """Counts one connection of a session as open while the block runs."""
        self._open[session] += 1
        self._left.pop(session, None)
        try:
            yield
        finally:
            self._open[session] -= 1
            if self._open[session] <= 0:
                del self._open[session]
                self._left[session] = self._clock()

    def seen(self, session: str) -> None:
        """Notes that a session did something; without a connection its time begins now."""
        if session not in self._open:
            self._left[session] = self._clock()

    def gone(self, seconds: float) -> list[str]:
        """Returns the sessions that have had no connection for at least so long."""
        now = self._clock()
        return [session for session, left in self._left.items() if now - left >= seconds]

    def forget(self, session: str) -> None:
        """Forgets a session that is gone."""
        self._left.pop(session, None)


class PresenceMiddleware:
    """Tells a :class:`Presence` of every connection that a visitor holds open.

    Args:
        app: What answers.
        presence: Is told.
        session_of: Returns the session of a job by the job's name, which is all that ``call/NAME/EVENT`` has.
    """

    def __init__(self, app: ASGIApp, presence: Presence, session_of: Callable[[str], str]) -> None:
        self.app = app
        self.presence = presence
        self.session_of = session_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        session = self._session(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if session is None:
            await self.app(scope, receive, send)
            return
        with self.presence.connection(session):
            await self.app(scope, receive, send)

    def _session(self, scope: Scope) -> str | None:
        path = scope["path"]
        if path.rstrip("/").endswith("/gradio_api/queue/data"):
            return next(iter(parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])), None)
        if found := _HEARTBEAT.search(path):
            return found[1]
        if found := _CALL.search(path):
            return self.session_of(found[1])
        return None
