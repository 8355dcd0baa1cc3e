"""ASGI middleware that only lets in requests and websockets from this page itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any, TypeAlias

from sartor.server.host_names import host_name

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Sent with every response: other pages may not frame, sniff or embed it."""


class OriginCheck:
    """Checks Host, Origin and Sec-Fetch-Site for http and websocket scopes alike, before any other code sees them.

    A page elsewhere can reach a loopback address through the same browser: by its own origin (Origin differs from
    Host), by a name that it lets point here (Host is none of ours), or by embedding (Sec-Fetch-Site). NiceGUI's socket
    accepts every origin, and an `http` middleware never sees a websocket: hence here.
    """

    def __init__(self, app: App, hosts: Iterable[str] = LOOPBACK, *, any_address: bool = False) -> None:
        self.app = app
        self.hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self.any_address = any_address
        """Also accept any IP address as Host (when listening on all addresses): only names can be rebound."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif reason := self.refusal(scope):
            await refuse(scope, send, reason)
        else:
            await self.app(scope, receive, _with_headers(send))

    def refusal(self, scope: Scope) -> str | None:
        """Why this request is refused, or None."""
        host, origin, name = one(scope, b"host"), one(scope, b"origin"), host_name(scope["headers"])
        if name is None or not self._ours(name) or not scope["path"].startswith("/"):
            return "This host is not served here."
        if origin is not None and origin.partition("://")[2] != host:
            return "Requests from other pages are refused."
        if origin is None and one(scope, b"sec-fetch-site") == "cross-site" and not _visit(scope):
            return "Requests from other pages are refused."
        return None

    def _ours(self, name: str) -> bool:
        return name in self.hosts or (self.any_address and _is_number(name))


def one(scope: Scope, name: bytes) -> str | None:
    """A header's value; a duplicate header counts as a foreign one."""
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        return "\x00"
    return values[0].decode("latin-1").strip().lower() if values else None


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _visit(scope: Scope) -> bool:
    """Whether a person followed a link here: it shows a page and changes nothing."""
    navigates = one(scope, b"sec-fetch-mode") == "navigate" and one(scope, b"sec-fetch-dest") == "document"
    return scope["type"] == "http" and scope["method"] == "GET" and navigates


async def refuse(scope: Scope, send: Send, reason: str, status: int = 403) -> None:
    """A plain-text response, or a closed websocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403, "reason": reason})
        return
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return wrapped
