"""Decides whose prompt is read next: one at a time, short ones first, none passed over for ever."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sartor.base.i18n import tr
from sartor.inference.requests import QueueFull

HEAD_START = 1024
"""Characters. A prompt is passed by a later one only if it is longer by this much for each arrival in between."""


class ReadingQueue:
    """A queue in front of the template and the tokenizer, which work off the event loop but hold the interpreter."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._arrivals = 0
        self._busy = False
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def waiting(self) -> int:
        return len(self._line)

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait for a turn to read a prompt of `size` characters. Raises: QueueFull."""
        if self._busy:
            await self._wait(size)
        self._busy = True
        try:
            yield
        finally:
            self._next()

    async def _wait(self, size: int) -> None:
        if len(self._line) >= self.max_waiting:
            what = tr("The queue is full: {count} requests are waiting.", count=len(self._line))
            raise QueueFull(what, tr("server"), tr("Try again later."))
        self._arrivals += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size + self._arrivals * HEAD_START, self._arrivals, turn)
        heapq.heappush(self._line, entry)
        try:
            await turn
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._line.remove(entry)
                heapq.heapify(self._line)
            if turn.done() and not turn.cancelled():
                self._next()  # the turn had just been given to it
            raise

    def _next(self) -> None:
        """Give the turn to the next in line; it stays taken until then."""
        self._busy = False
        while self._line:
            turn = heapq.heappop(self._line)[2]
            if not turn.done():
                self._busy = True
                turn.set_result(None)
                return
