"""Serves a page: the line of jobs, the guard at the door, accounts, limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from mmattn.ui.accounts import check_share
from mmattn.ui.guard import GuardMiddleware, UploadQuota, hosts_of
from mmattn.ui.presence import Presence, PresenceMiddleware
from mmattn.ui.queue import FairQueue
from mmattn.ui.theme import CSS, build_theme

__all__ = ["MAX_FILE_SIZE", "launch"]

MAX_FILE_SIZE = "30mb"
MAX_VISITS = 200
"""Visitors whose results are kept in memory; beyond, those of the longest idle go first."""


def launch(
    demo: gr.Blocks,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    trusted: Sequence[str] = (),
    accounts: Sequence[tuple[str, str]] = (),
    **more: Any,
) -> Any:
    """Serves an app with the house's look and limits.

    Args:
        demo: The page.
        host: Address to listen on.
        port: Port; None takes the first free one from 7860.
        share: Also open a public address.
        trusted: Names, beside those of this machine, under which the page may be asked for.
        accounts: (user, password) of who may enter; none lets everybody in.
        **more: Go to ``Blocks.launch``.

    Raises:
        InputError: If the page is shared without accounts.
    """
    check_share(share, accounts)
    presence = Presence()
    demo.queue(api_open=False)
    line = FairQueue(demo, presence)
    demo._queue = line
    return demo.launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=list(accounts) or None,
        theme=build_theme(),
        css=CSS,
        max_file_size=MAX_FILE_SIZE,
        state_session_capacity=MAX_VISITS,
        show_error=False,
        footer_links=["api", "settings"],
        allowed_paths=[str(Path(__file__).resolve().parent.parent / "assets")],
        app_kwargs={
            "middleware": [
                Middleware(GuardMiddleware, hosts=hosts_of(host, trusted, share=share), quota=UploadQuota()),
                Middleware(PresenceMiddleware, presence=presence, session_of=line.session_of),
            ]
        },
        **more,
    )
