"""How many requests are in flight: grows while all goes well, halves when a server is busy; sends nothing itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

Outcome = Literal["good", "busy", "bad"]


class ConcurrencyLimiter:
    """A gate that worker threads pass before each request; the first goes alone, so that its time is measured.

    Up to the first refusal each success lets one more in; after it, one more for each round of successes.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.limit, self.in_flight, self.highest = most, 1.0, 0, 0
        self._clock, self._not_before, self._cuts = clock, 0.0, 0
        self._changed = threading.Condition()

    def acquire(self) -> int:
        """Wait for a place. Returns the ticket that `leave` wants back."""
        with self._changed:
            self._changed.wait_for(lambda: self.in_flight < max(int(self.limit), 1))
            self.in_flight += 1
            self.highest = max(self.highest, self.in_flight)
            return self._cuts

    def release(self, ticket: int, outcome: Outcome, hold_s: float = 0.0) -> None:
        """Give the place back. A busy server halves the limit, once for all requests that were in flight then, and
        lets nobody begin before `hold_s` seconds have passed; what is bad for other reasons changes nothing.
        """
        with self._changed:
            self.in_flight -= 1
            if outcome == "busy":
                self._not_before = max(self._not_before, self._clock() + hold_s)
                if ticket == self._cuts:
                    self._cuts += 1
                    self.limit = max(self.limit / 2, 1.0)
            elif outcome == "good":
                self.limit = min(self.limit + (1.0 if not self._cuts else 1.0 / self.limit), float(self.most))
            self._changed.notify_all()

    def hold_s(self) -> float:
        """Seconds that a server asked all of us to wait still."""
        with self._changed:
            return max(self._not_before - self._clock(), 0.0)
