"""How long a generation takes in all, from the answers so far: their latency first, then their rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WINDOW = 50
"""Answers whose rate counts, at least: a server that slows down is noticed, one slow answer is not."""
EVERY_FRAC = 0.1
"""A new forecast is told after this fraction more answers than at the last one."""


class Forecast:
    """Counts answers as they arrive. Times are those of `clock`, in seconds."""

    def __init__(self, workers: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.workers, self._clock = workers, clock
        self._began = clock()
        self._times: list[float] = []
        self._latency_s = 0.0
        self._told = 0

    @property
    def answers(self) -> int:
        return len(self._times)

    def answered(self, latency_s: float) -> None:
        """Count an answer that took so long."""
        self._times.append(self._clock())
        self._latency_s += latency_s

    def is_due(self) -> bool:
        """Whether enough answers came since the last time this was True."""
        due = self.answers > 0 and self.answers >= self._told + max(1, math.ceil(EVERY_FRAC * self._told))
        if due:
            self._told = self.answers
        return due

    def total_s(self, answers_left: int) -> float:
        """Seconds of the whole run, those that have passed included."""
        return self._clock() - self._began + self.left_s(answers_left)

    def left_s(self, answers_left: int) -> float:
        """Seconds still to go. The first answers of a run come while requests are still being added: until each worker
        has answered twice, the mean latency counts; then the rate of the latest answers."""
        if not self._times or answers_left <= 0:
            return 0.0
        ramp = 2 * self.workers if self.workers > 1 else 1
        latest = self._times[max(ramp - 1, self.answers - max(WINDOW, 4 * self.workers)) :]
        if len(latest) >= max(self.workers, 4) and latest[-1] > latest[0]:
            return answers_left * (latest[-1] - latest[0]) / (len(latest) - 1)
        return self._latency_s / self.answers * math.ceil(answers_left / self.workers)
