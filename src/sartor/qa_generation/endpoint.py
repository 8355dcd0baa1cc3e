"""An OpenAI-compatible endpoint asked with patience and a spending cap; knows no documents."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sartor.base.errors import EndpointError
from sartor.base.types import Message
from sartor.qa_generation.concurrency_limiter import ConcurrencyLimiter, Outcome
from sartor.qa_generation.run import BudgetExceeded, Completion

ATTEMPTS = 5
LONGEST_WAIT_S = 60.0
BUSY = (408, 409, 425, 429)
TURN_TOKENS = 16
"""What a chat template adds to a turn, at most, in the reckoning of the cap."""


class Endpoint:
    """Completes one conversation for each thread that calls; prices are per million tokens, in the user's currency.

    `workers` threads at most are let through at once, fewer while the server is busy. A set `stop` ends the waiting.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        *,
        most_spent: float | None = None,
        price_in: float = 0.0,
        price_out: float = 0.0,
        max_tokens: int = 1024,
        timeout_s: float = 120.0,
        workers: int = 1,
        stop: threading.Event | None = None,
        sleep: Callable[[float], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.model, self.max_tokens = url.rstrip("/"), model, max_tokens
        self.most_spent, self.price_in, self.price_out = most_spent, price_in, price_out
        self.spent, self.retries, self.pace = 0.0, 0, ConcurrencyLimiter(workers)
        self._stop = stop
        self._sleep = sleep or (stop.wait if stop else time.sleep)
        self._reserved, self._money = 0.0, threading.Condition()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(headers=headers, timeout=timeout_s, transport=transport)

    def __call__(self, messages: Sequence[Message]) -> Completion:
        """Raises: EndpointError after several tries; CapReached before a request that could pass the spending cap."""
        turns = [{"role": message.role, "content": message.text} for message in messages]
        most_in = sum(len(message.text.encode("utf-8", "surrogatepass")) + TURN_TOKENS for message in messages)
        reason, wait, slept = "", 1.0, False
        for attempt in range(ATTEMPTS):
            if attempt:
                self.retries += 1
                self._sleep(min(wait, LONGEST_WAIT_S))
                wait, slept = wait * 2, True
            if self._stop is not None and self._stop.is_set():
                raise EndpointError("It was stopped.", self.url, "Run the same command to go on.")
            ticket = self.pace.acquire()
            if not slept and (hold := self.pace.hold_s()):
                self._sleep(min(hold, LONGEST_WAIT_S))
            answer, reason, busy, hold = self._attempt(turns, most_in, ticket)
            if answer is not None:
                return answer
            if not busy:
                break
            wait = max(wait, hold)
        raise EndpointError(f"The endpoint did not answer: {reason}.", self.url, "Check address, key and model.")

    def _attempt(
        self, turns: list[dict[str, str]], most_in: int, ticket: int
    ) -> tuple[Completion | None, str, bool, float]:
        """One request. Returns its answer or why there is none, whether it is worth another, and the wait asked for."""
        worst = self._price(most_in, self.max_tokens)
        cost, hold = 0.0, 0.0
        outcome: Outcome = "bad"
        try:
            self._reserve(worst)
        except BudgetExceeded:
            self.pace.release(ticket, "bad")
            raise
        try:
            body = {"model": self.model, "messages": turns, "max_tokens": self.max_tokens}
            response = self.http.post(f"{self.url}/chat/completions", json=body)
            if response.is_success:
                cost = worst  # unless the answer says less
                answer = _read(response)
                outcome = "good"
                cost = self._price(answer.prompt_tokens or most_in, answer.tokens or self.max_tokens)
                return answer, "", False, 0.0
            busy = response.status_code in BUSY or response.status_code >= 500
            outcome = "busy" if busy else "bad"
            hold = retry_after(response.headers.get("Retry-After", ""))
            return None, f"status {response.status_code}", busy, hold
        except httpx.HTTPError as error:
            cost = worst if isinstance(error, httpx.ReadTimeout | httpx.RemoteProtocolError) else 0.0
            outcome = "busy"
            return None, f"{type(error).__name__}: {error}", True, 0.0
        except NotACompletion as error:
            return None, str(error), error.again, 0.0
        finally:
            self._settle(worst, cost)
            self.pace.release(ticket, outcome, min(hold, LONGEST_WAIT_S))

    def _reserve(self, worst: float) -> None:
        """Wait until the money for a request is free. Raises: CapReached when nothing in flight could free it."""
        with self._money:
            if self.most_spent is None:
                return
            most = self.most_spent
            self._money.wait_for(lambda: self.spent + self._reserved + worst <= most or not self._reserved)
            if self.spent + worst > most:
                raise BudgetExceeded(
                    f"The next request could pass the cap of {most:g}; {self.spent:.4g} is spent.",
                    self.url,
                    "Answers so far are kept: run the same command with a higher --max-cost to go on.",
                )
            self._reserved += worst

    def _settle(self, worst: float, cost: float) -> None:
        with self._money:
            self.spent += cost
            if self.most_spent is not None:
                self._reserved = max(self._reserved - worst, 0.0)
                if self._reserved < 1e-12:
                    self._reserved = 0.0
            self._money.notify_all()

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class NotACompletion(Exception):
    """A body that is none; `again`: it is cut or broken, not a page for people."""

    def __init__(self, what: str, again: bool) -> None:
        super().__init__(what)
        self.again = again


def _read(response: httpx.Response) -> Completion:
    try:
        value: Any = response.json()
        text = value["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise TypeError("content is no text")
        used = value.get("usage") or {}
        return Completion(text, int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        page = response.text.lstrip().startswith("<")
        kind = "an HTML page" if page else "no chat completion"
        raise NotACompletion(f"its answer is {kind} (does the address end in /v1?)", not page) from None


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date; 0 for none or nonsense."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0
