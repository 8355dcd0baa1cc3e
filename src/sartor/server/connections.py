"""Limits the connections of a server: how many there are, and how long a peer may take to send or to read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

Phase: TypeAlias = Literal["idle", "head", "body", "answer", "socket"]
CHECK_S = 1.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 22\r\nretry-after: 5\r\n"
    b"connection: close\r\n\r\nToo many connections.\n"
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times in seconds. A body may take `body_s`, and a second more for every `body_bytes_per_s` that arrived."""

    connections: int = 512
    head_s: float = 15.0
    body_s: float = 30.0
    body_bytes_per_s: int = 1024
    stalled_s: float = 60.0
    """How long a peer may read nothing of an answer that waits for it."""

    @property
    def most(self) -> int:
        """`connections`, but at most half of the files that this process may open."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource else -1
        return self.connections if files < 0 else max(1, min(self.connections, files // 2))


@dataclass(slots=True)
class Connections:
    """The open connections of one server. `close_late` closes those whose peer is too slow."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    clock: Callable[[], float] = time.monotonic
    open: dict[Any, None] = field(default_factory=dict)
    """In the order in which they were opened."""

    def admit(self, connection: LimitedProtocol) -> bool:
        """Count a connection. Where there are too many, the oldest one that has not sent a whole request is closed;
        False if there is none."""
        if len(self.open) >= self.limits.most:
            self.close_late()
        if len(self.open) >= self.limits.most:
            spare = [other for other in self.open if other.phase in ("idle", "head", "body")]
            if not spare:
                return False
            self._close(min(spare, key=lambda other: other.phase == "body"))  # the first of the least progress
        self.open[connection] = None
        return True

    def close_late(self) -> None:
        """Close the connections whose peer has taken too long."""
        now = self.clock()
        for connection in list(self.open):
            if connection.transport.is_closing() and not connection.transport.get_write_buffer_size():
                self.open.pop(connection, None)
            elif connection.is_late(now):
                self._close(connection)

    def keep_checking(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check every second while there are connections."""
        self.close_late()
        if self.open:
            loop.call_later(CHECK_S, self.keep_checking, loop)

    def _close(self, connection: LimitedProtocol) -> None:
        self.open.pop(connection, None)
        connection.transport.abort()


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with limits; made for one server by `limited_protocol`."""

    held: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.began: float | None = self.held.clock()
        """When the request that is being received began; None between two requests."""
        self.received = 0
        self.unread, self.unread_since = 0, self.began
        first = not self.held.open
        super().connection_made(transport)
        if not self.held.admit(self):
            transport.write(_FULL)
            transport.close()
        elif first:
            self.loop.call_later(CHECK_S, self.held.keep_checking, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        self.held.open.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase == "idle":
            self.began, self.received = self.held.clock(), 0
        self.received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        self.began = None
        super().on_response_complete()

    @property
    def phase(self) -> Phase:
        """What the connection is waiting for."""
        if self.transport.get_protocol() is not self:
            return "socket"
        if self.cycle is None or self.cycle.response_complete:
            return "idle" if self.began is None else "head"
        return "body" if self.cycle.more_body else "answer"

    def is_late(self, now: float) -> bool:
        """Whether the peer has taken too long to send its request or to read the answer."""
        if (unread := self.transport.get_write_buffer_size()) != self.unread or not unread:
            self.unread, self.unread_since = unread, now
        if now - self.unread_since > self.held.limits.stalled_s:
            return True
        if self.began is None or self.phase not in ("head", "body") or self.flow.read_paused:
            return False
        limits, waited = self.held.limits, now - self.began
        if self.phase == "head":
            return waited > limits.head_s
        return waited > limits.body_s + self.received / limits.body_bytes_per_s


def limited_protocol(connections: Connections) -> type[LimitedProtocol]:
    """The protocol class of one server, for uvicorn's `http` option."""
    return type("LimitedProtocol", (LimitedProtocol,), {"held": connections})
