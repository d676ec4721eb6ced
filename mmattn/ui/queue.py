"""The line at which visitors wait: two places for each, one line a system, and none for those who have left.

Gradio drops the waiting jobs of a visitor when the connection closes on which it waits for them. It does not notice one
that never opened that connection, lets a handler that runs go on to its end, and counts one length for all lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Literal

import fastapi
import gradio as gr
from gradio import route_utils
from gradio.context import LocalContext
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import AsyncQueue, Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage
from gradio.utils import error_payload, run_coro_in_background

from mmattn.ui.presence import Presence

__all__ = ["FairQueue", "stop_if_gone"]

PLACES = 2
"""Jobs of one visitor, waiting and running, in all models' lines together."""
PLACES_OF_ADDRESS = 12
"""The same for all visitors of one address, other than this machine's own (a tunnel or a proxy brings many)."""
MAX_WAITING = 32
"""Jobs waiting in one line."""
GONE_SECONDS = 10.0
"""Time without a connection after which a visitor's jobs are given up."""
FORGET_SECONDS = 840.0
"""Time without a connection after which a visitor's files and results are removed."""
_SWEEP_SECONDS = 1.0
_MOST_UNREAD = 50

_Pushed = tuple[bool, str | list[dict[str, Any]], Literal["success", "error", "queue_full", "validator_error"]]


class FairQueue(Queue):
    """Gradio's queue with bounds for each visitor and each line.

    A function whose ``concurrency_id`` is named in an app waits in the line of that name, and its jobs take places;
    redrawing and the like have lines of their own (Gradio names these by a number) and take none.
    """

    def __init__(self, blocks: gr.Blocks, presence: Presence) -> None:
        super().__init__(
            live_updates=True,
            concurrency_count=blocks.max_threads,
            update_intervals=1,
            max_size=None,
            blocks=blocks,
            default_concurrency_limit=1,
        )
        self.presence = presence
        self.lines = frozenset(fn.concurrency_id for fn in blocks.fns.values() if not fn.concurrency_id.isdigit())

    def start(self) -> None:
        """Starts to serve, and to look for visitors who have left."""
        super().start()
        run_coro_in_background(self._keep_sweeping)

    async def push(self, body: PredictBodyInternal, request: fastapi.Request, username: str | None) -> _Pushed:
        """Takes a job, or answers it with a notice where its visitor or its line has no place left."""
        if body.session_hash is not None:
            self.presence.seen(body.session_hash)
        if body.fn_index is not None and (notice := self._refusal(body, request)):
            return self._refuse(body, request, username, notice)
        pushed = await super().push(body, request, username)
        if body.session_hash is not None:
            self.presence.seen(body.session_hash)
        return pushed

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """Sends a message to a job's visitor, and gives the job up where that visitor's messages are gone.

        Gradio drops the messages first and the jobs after, which a cancelled connection does not always reach; the next
        message to such a job then ended the loop that serves all.
        """
        if event.session_hash not in self.pending_messages_per_session:
            event.alive = False
            return
        super().send_message(event, event_message)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Returns the next job that can run; those whose visitor's messages are gone never do."""
        for line in self.event_queue_per_concurrency_id.values():
            for event in list(line.queue):
                if event.session_hash not in self.pending_messages_per_session:
                    line.queue.remove(event)
                    self.event_ids_to_events.pop(event._id, None)
        return super().get_events()

    def session_of(self, event_id: str) -> str:
        """Returns the session of a job; a job without one is its own."""
        event = self.event_ids_to_events.get(event_id)
        if event is not None:
            return event.session_hash
        return next((name for name, ids in self.pending_event_ids_session.items() if event_id in ids), event_id)

    def jobs(self) -> Iterator[Event]:
        """Yields all jobs, waiting and running, that take places."""
        for line in self.event_queue_per_concurrency_id.values():
            yield from (event for event in line.queue if event.concurrency_id in self.lines)
        for running in self.active_jobs:
            yield from (event for event in running or () if event.concurrency_id in self.lines)

    async def sweep(self) -> None:
        """Gives up the jobs of those who have left, and after a while all that was kept of them."""
        for session in self.presence.gone(GONE_SECONDS):
            await self.clean_events(session_hash=session)
        for session in self.presence.gone(FORGET_SECONDS):
            self._forget(session)

    async def _keep_sweeping(self) -> None:
        while not self.stopped:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self.sweep()

    def _refusal(self, body: PredictBodyInternal, request: fastapi.Request) -> str | None:
        """Returns why a job is not taken, None where it is."""
        fn = route_utils.get_fn(self.blocks, None, body)
        if fn.concurrency_id in self.lines:
            jobs = list(self.jobs())
            own = sum(event.session_hash == body.session_hash for event in jobs)
            if own >= PLACES:
                return f"You have {own} jobs waiting or running already. Wait until one is done."
            address = _address(request)
            if address is not None and sum(_address(event.request) == address for event in jobs) >= PLACES_OF_ADDRESS:
                return "Too many jobs are waiting from your network. Wait until some are done."
        line = self.event_queue_per_concurrency_id.get(fn.concurrency_id)
        if line is not None and len(line.queue) >= MAX_WAITING:
            return f"{len(line.queue)} others are waiting already. Try again in a minute."
        return None

    def _refuse(
        self, body: PredictBodyInternal, request: fastapi.Request, username: str | None, notice: str
    ) -> _Pushed:
        """Answers a job at once with a notice, which every client shows as it shows a handler's."""
        event = Event(body.session_hash, route_utils.get_fn(self.blocks, None, body), request, username)
        body.session_hash = event.session_hash
        unread = self.pending_event_ids_session.setdefault(event.session_hash, set())
        if len(unread) >= _MOST_UNREAD:
            return False, notice, "queue_full"
        if event.session_hash not in self.pending_messages_per_session:
            self.pending_messages_per_session[event.session_hash] = AsyncQueue()
        unread.add(event._id)
        self.presence.seen(event.session_hash)
        output: dict[str, Any] = dict(error_payload(gr.Error(notice, title="Not now"), show_error=False))
        self.send_message(event, ProcessCompletedMessage(output=output, title="Not now", success=False))
        return True, event._id, "success"

    def _forget(self, session: str) -> None:
        """Removes what is left of a visitor: unread messages, results, files."""
        self.presence.forget(session)
        self.pending_event_ids_session.pop(session, None)
        self.pending_messages_per_session.pop(session, None)
        app: Any = self.server_app
        if app is not None:
            holder = app.state_holder
            holder.delete_state(session)
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)
        forget = getattr(self.blocks, "forget", None)
        if forget is not None:
            forget(session)


def stop_if_gone() -> None:
    """Ends the job in which it is called if its visitor has left or stopped it; for the steps of long handlers.

    Raises:
        gr.Error: If so. Nobody reads it.
    """
    blocks, name = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or name is None:
        return
    event = blocks._queue.event_ids_to_events.get(name)
    if event is None or not event.alive:
        raise gr.Error("Stopped.", print_exception=False)


def _address(request: fastapi.Request) -> str | None:
    """Returns the address a request comes from; None for this machine's own or an unknown one."""
    host = request.client.host if request.client else ""
    try:
        return None if ip_address(host).is_loopback else host
    except ValueError:
        return None
