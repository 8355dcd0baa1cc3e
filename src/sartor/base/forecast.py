"""How long answers take in all, foretold from those so far: a server's by latency, a batch's by its tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class ShowsTimeLeft(Protocol):
    """A progress callback that also shows how many seconds are left, None as long as nobody knows."""

    def time_left(self, seconds: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class AnswersPart:
    """Answers that are decoded one after another, each of at most so many tokens."""

    answers: int
    limit_tokens: int


class BatchForecast:
    """Answers decoded in batches, one token for every row at a time; a row that is done leaves its batch.

    A batch's answers arrive in the order of their lengths, so its first ones are no sample. The rows still being
    answered have as many tokens as the answer that came last, which counts as work done; how long they go on is told by
    the batches before, or by how often answers have been ending lately. From the first whole batch on, the time in all
    is foretold within 30% nearly always; before, it is a rough figure.
    """

    def __init__(
        self, parts: Sequence[AnswersPart], batch_rows: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.batch_rows, self._clock = batch_rows, clock
        self._later = list(parts)
        self._part = AnswersPart(0, 0)
        self._in_part = 0
        """Answers of the part's whole batches."""
        self._whole: list[int] = []
        """Tokens of the answers of all whole batches."""
        self._batch: list[int] = []
        """Those of the current batch."""
        self._began, self._whole_s = clock(), 0.0

    def begin(self, answers: int) -> None:
        """The next part begins; `answers` of it are still missing."""
        self._part = AnswersPart(answers, self._later.pop(0).limit_tokens)
        self._in_part, self._batch, self._began = 0, [], self._clock()

    def answered(self, tokens: int) -> None:
        """Count an answer of so many tokens."""
        self._batch.append(max(tokens, 1))
        if len(self._batch) == self._rows:
            now = self._clock()
            self._whole += self._batch
            self._in_part += self._rows
            self._whole_s += now - self._began
            self._batch, self._began = [], now

    def left_s(self) -> float | None:
        """Seconds still to go; None until half of the first batch is answered."""
        if not self._whole and 2 * len(self._batch) < self._rows:
            return None
        elapsed = self._clock() - self._began
        live, at = (self._rows - len(self._batch), self._batch[-1]) if self._batch else (0, 0)
        begun = sum(self._batch) + live * (at + self._residual(at))
        if self._whole:
            mean = sum(self._whole) / len(self._whole)
            token_s = self._whole_s / sum(self._whole)
        else:
            mean = begun / self._rows
            token_s = elapsed / (sum(self._batch) + live * at)
        tokens = begun + sum(part.answers * min(mean, part.limit_tokens) for part in (self._waiting, *self._later))
        return max(tokens * token_s - elapsed, 0.0)

    @property
    def _rows(self) -> int:
        """Of the current batch, the answered ones included."""
        return min(self.batch_rows, self._part.answers - self._in_part)

    @property
    def _waiting(self) -> AnswersPart:
        """What the part still has after the current batch."""
        begun = self._rows if self._batch else 0
        return AnswersPart(self._part.answers - self._in_part - begun, self._part.limit_tokens)

    def _residual(self, at: int) -> float:
        """Tokens that an answer which has `at` of them still gets, on average."""
        if not self._batch:
            return 0.0
        most = max(self._part.limit_tokens - at, 0)
        if self._whole:
            longer = [tokens - at for tokens in self._whole if tokens > at]
            return min(sum(longer) / len(longer) if longer else 1.0, most)
        start = at / 2
        ended = [tokens - start for tokens in self._batch if tokens > start]
        watched = sum(ended) + (self._rows - len(self._batch)) * (at - start)
        return min(watched / len(ended), most)
