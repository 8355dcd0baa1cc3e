"""An endpoint shared by worker threads: requests pass a concurrency limiter and a spending cap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import httpx

from sartor.base.api_keys import read_key
from sartor.base.errors import EndpointError
from sartor.base.openai_answers import RequestError
from sartor.base.openai_client import (
    MAX_WAIT_S,
    Address,
    ChatClient,
    RequestOptions,
    with_retries,
)
from sartor.base.types import Completion, Message
from sartor.qa_generation.budget import Budget, Maximum, max_prompt_tokens
from sartor.qa_generation.concurrency_limiter import ConcurrencyLimiter, Outcome
from sartor.qa_generation.settings import EndpointSettings

BUSY_CODES = ("endpoint-busy", "endpoint-unreachable")
"""Errors after which fewer requests are sent at once."""


class PacedEndpoint:
    """Completes one conversation for each thread that calls it.

    At most `workers` requests are in flight, fewer while the server is busy. Setting `stop` ends the waiting.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        max_tokens: int = 1024,
        workers: int = 1,
        maximum: Maximum | None = None,
        stop: threading.Event | None = None,
        sleep: Callable[[float], object] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises: ConfigError for a malformed URL, or an API key that is not set or not meant for it."""
        key = read_key(settings.url, settings.key_env, trusted=True)
        address, options = Address(settings.url, settings.model), RequestOptions(max_tokens=max_tokens)
        self.client = ChatClient(address, options, key, transport=transport)
        self.budget, self.max_tokens = Budget(settings, maximum), max_tokens
        self.limiter = ConcurrencyLimiter(workers)
        self._stop = stop or threading.Event()
        self._sleep = sleep or (self._stop.wait if stop else time.sleep)

    def __call__(self, messages: Sequence[Message]) -> Completion:
        """Raises: EndpointError after the last attempt or when stopped; BudgetExceeded before a request is sent."""
        return with_retries(lambda number: self._attempt(messages, number), self._sleep)

    def _attempt(self, messages: Sequence[Message], number: int) -> Completion:
        if self._stop.is_set():
            raise EndpointError(
                "The generation was stopped.",
                self.client.address.url,
                "Run the same command to continue.",
                code="endpoint-stopped",
            )
        ticket = self.limiter.acquire()
        if number == 0 and (hold_s := self.limiter.hold_s()):  # a later attempt has waited already
            self._sleep(min(hold_s, MAX_WAIT_S))
        outcome: Outcome = "bad"
        hold_s = 0.0
        try:
            answer = self._send(messages)
            outcome = "good"
            return answer
        except RequestError as error:
            outcome = "busy" if error.code in BUSY_CODES else "bad"
            hold_s = min(error.retry_after_s, MAX_WAIT_S)
            if error.maybe_billed and error.retryable and not self.budget.may_repeat():
                error.retryable = False
            raise
        finally:
            self.limiter.release(ticket, outcome, hold_s)

    def _send(self, messages: Sequence[Message]) -> Completion:
        """One request, with the most that it can use reserved until its real use is known."""
        reserved, used = (max_prompt_tokens(messages), self.max_tokens), (0, 0)
        self.budget.reserve(*reserved)
        try:
            answer = self.client.send(messages)
            used = answer.prompt_tokens or reserved[0], answer.tokens or reserved[1]
            return answer
        except RequestError as error:
            used = reserved if error.maybe_billed else (0, 0)
            raise
        finally:
            self.budget.settle(reserved, used)
