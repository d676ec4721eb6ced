"""What every request passes: is it addressed to this server, is it small enough, and what the answer forbids.

A page elsewhere can make a name of its own point to this machine (DNS rebinding) and would then be inside the same
origin as the app; the browser still sends that name as ``Host``, so requests with a foreign name are refused.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["GuardMiddleware", "UploadQuota", "hosts_of", "is_trusted"]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Content-Security-Policy": "frame-ancestors 'self'; object-src 'none'",
    "Referrer-Policy": "same-origin",
}
VISIT_BYTES = 300_000_000
"""Uploads of one visitor within an hour."""
ADDRESS_BYTES = 4 * VISIT_BYTES
"""Uploads from one address within an hour."""
_HOUR = 3600.0
_COOKIE = "mmattn-visit"
_WILDCARDS = ("0.0.0.0", "::", "")


def hosts_of(host: str, trusted: Sequence[str] = (), *, share: bool = False) -> frozenset[str]:
    """Returns the names a server may be addressed by.

    Args:
        host: Address it listens on; on all addresses, any number is taken, for rebinding needs a name.
        trusted: Further names; ``*.example.org`` stands for all names below.
        share: Whether it also has a public address of Gradio's.
    """
    names = {"localhost", "127.0.0.1", "::1", *trusted}
    if host in _WILDCARDS:
        names |= {"*numbers*", socket.gethostname()}
    else:
        names.add(host)
    if share:
        names.add("*.gradio.live")
    return frozenset(name.lower() for name in names)


def is_trusted(header: str | None, names: frozenset[str]) -> bool:
    """Returns whether a ``Host`` header names this server; the port does not matter.

    >>> is_trusted("localhost:7860", hosts_of("127.0.0.1")), is_trusted("evil.example", hosts_of("127.0.0.1"))
    (True, False)
    """
    if not header:
        return False
    name = header.lower().strip()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    name = name.rstrip(".")
    if name in names:
        return True
    if "*numbers*" in names and _is_number(name):
        return True
    return any(known.startswith("*.") and name.endswith(known[1:]) for known in names)


class UploadQuota:
    """Counts uploaded bytes of the last hour by who sent them.

    Args:
        clock: Seconds that only go on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: dict[str, deque[tuple[float, int]]] = {}

    def take(self, limits: dict[str, int], size: int) -> bool:
        """Counts ``size`` bytes for all senders of ``limits`` if none goes above its limit; returns whether it did."""
        now = self._clock()
        for name in list(self._sent):
            sent = self._sent[name]
            while sent and now - sent[0][0] >= _HOUR:
                sent.popleft()
            if not sent:
                del self._sent[name]
        if any(sum(n for _, n in self._sent.get(name, ())) + size > limit for name, limit in limits.items()):
            return False
        for name in limits:
            self._sent.setdefault(name, deque()).append((now, size))
        return True


class GuardMiddleware:
    """Refuses requests under a foreign name and uploads above the quota, and adds headers to every answer.

    Args:
        app: What answers.
        hosts: From :func:`hosts_of`.
        quota: Of uploads.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], quota: UploadQuota) -> None:
        self.app = app
        self.hosts = hosts
        self.quota = quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = _visit(headers)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer[name] = value
                if visit is None and scope["path"] == "/":
                    token = secrets.token_urlsafe(16)
                    answer.append("Set-Cookie", f"{_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        refusal = self._refusal(scope, headers, visit)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers, visit: str | None) -> PlainTextResponse | None:
        if not is_trusted(headers.get("host"), self.hosts):
            return PlainTextResponse("This server does not go by that name; see --trusted-host.", 421)
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_upload(scope["path"]):
            return None
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return PlainTextResponse("Uploads need a Content-Length.", 411)
        address = scope["client"][0] if scope.get("client") else ""
        limits = {f"address {address}": ADDRESS_BYTES}
        if visit is not None:
            limits[f"visit {address} {visit}"] = VISIT_BYTES
        if self.quota.take(limits, int(length)):
            return None
        return PlainTextResponse(f"More than {VISIT_BYTES // 1_000_000} MB in an hour. Try again later.", 413)


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith(("/gradio_api/upload", "/gradio_api/process_recording", "/component_server"))


def _visit(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value[:64]


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
