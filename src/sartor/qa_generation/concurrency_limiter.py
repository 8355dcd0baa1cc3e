"""Limits the requests in flight: the limit grows while the server answers and halves when it is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

Outcome = Literal["good", "busy", "bad"]


class ConcurrencyLimiter:
    """Worker threads acquire a ticket before each request; the first request goes alone, so that it can be timed.

    Until the server is busy for the first time, every success raises the limit by one; after that, every round of
    successes does (additive increase, multiplicative decrease).
    """

    def __init__(self, max_limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_limit, self.limit, self.in_flight, self.peak = max_limit, 1.0, 0, 0
        self._clock, self._not_before, self._cuts = clock, 0.0, 0
        self._changed = threading.Condition()

    def acquire(self) -> int:
        """Wait for a free place. Returns the ticket to give back to `release`."""
        with self._changed:
            self._changed.wait_for(lambda: self.in_flight < max(int(self.limit), 1))
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            return self._cuts

    def release(self, ticket: int, outcome: Outcome, hold_s: float = 0.0) -> None:
        """Free a place. A busy server halves the limit, once for all requests that were in flight at that time, and no
        request should begin in the next `hold_s` seconds; a request that failed otherwise changes nothing.
        """
        with self._changed:
            self.in_flight -= 1
            if outcome == "busy":
                self._not_before = max(self._not_before, self._clock() + hold_s)
                if ticket == self._cuts:
                    self._cuts += 1
                    self.limit = max(self.limit / 2, 1.0)
            elif outcome == "good":
                self.limit = min(self.limit + (1.0 if not self._cuts else 1.0 / self.limit), float(self.max_limit))
            self._changed.notify_all()

    def hold_s(self) -> float:
        """Seconds until the time before which the server wants no request."""
        with self._changed:
            return max(self._not_before - self._clock(), 0.0)
