"""An answer of the chat page as it grows, from a local model or from an endpoint."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sartor.base.errors import SartorError

if TYPE_CHECKING:
    from sartor.inference.engine import Answer
    from sartor.inference.requests import Progress, Ticket


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """An endpoint's answer, with the fields that the page shows of any answer."""

    text: str
    reasoning: str | None
    stop_reason: str
    tokens: int
    fingerprint: str = ""
    """Always empty: the weights behind an address cannot be verified."""


@dataclass(slots=True)
class Reply:
    """Written by the model's thread or the request's task, read by the browser window. Times are `time.monotonic()`."""

    text: str = ""
    tokens: int = 0
    began: float = 0.0
    first: float | None = None
    ended: float | None = None
    answer: Answer | RemoteAnswer | None = None
    error: SartorError | None = None
    ticket: Ticket | asyncio.Task[None] | None = None
    stopped: bool = False

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def speed(self) -> float | None:
        """Tokens per second after the first one."""
        if self.first is None or self.tokens < 2:
            return None
        return (self.tokens - 1) / max(1e-6, (self.ended or time.monotonic()) - self.first)

    def take(self, progress: Progress) -> None:
        """What the batcher reports: more text, the finished answer, or an error."""
        if progress.error:
            self.fail(SartorError(progress.error))
        elif progress.answer is not None:
            self.first = self.first or time.monotonic()
            self.end(progress.answer)
        else:
            self.grow(progress.text)

    def grow(self, text: str) -> None:
        """One more token; `text` is everything so far."""
        self.text = text
        self.tokens += 1
        self.first = self.first or time.monotonic()

    def end(self, answer: Answer | RemoteAnswer) -> None:
        self.text, self.tokens, self.ended, self.answer = answer.text, answer.tokens, time.monotonic(), answer

    def fail(self, error: SartorError) -> None:
        self.error, self.ended = error, time.monotonic()

    def stop(self) -> None:
        self.stopped = True
        if self.ticket:
            self.ticket.cancel()
