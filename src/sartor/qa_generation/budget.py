"""A spending cap that holds with several requests in flight: all that a request could use is reserved before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sartor.base.errors import RunError
from sartor.base.types import Message

if TYPE_CHECKING:
    from sartor.qa_generation.settings import EndpointSettings

TURN_TOKENS = 16
"""The most that a chat template adds to a turn."""


class BudgetExceeded(RunError):
    """The next request could bring the total above the spending cap, or above what was foretold."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """What a run is told to need at most: requests sent (retries too), tokens charged for, answers asked for again
    after they may have been charged for."""

    requests: int
    tokens_in: int
    tokens_out: int
    repeats: int


class Budget:
    """What has been sent to an endpoint and spent there; without `max_cost` and `maximum` it only counts."""

    def __init__(self, settings: EndpointSettings, maximum: Maximum | None = None) -> None:
        self.settings, self.maximum = settings, maximum
        self.requests = self.repeats = self.tokens_in = self.tokens_out = 0
        self._reserved_in = self._reserved_out = self._in_flight = 0
        self._overrun = False
        self._changed = threading.Condition()

    @property
    def spent(self) -> float:
        return self.cost(self.tokens_in, self.tokens_out)

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """The price of a request, in the user's currency."""
        return (tokens_in * self.settings.price_in + tokens_out * self.settings.price_out) / 1e6

    def reserve(self, tokens_in: int, tokens_out: int) -> None:
        """Wait until a request of at most this size fits. Raises: BudgetExceeded when none in flight can make room."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(tokens_in, tokens_out) or not self._in_flight)
            if not self._fits(tokens_in, tokens_out):
                raise self._exceeded(tokens_in, tokens_out)
            self._in_flight += 1
            self.requests += 1
            self._reserved_in += tokens_in
            self._reserved_out += tokens_out

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replace a reservation by what was really used. Using more than was reserved ends the spending."""
        with self._changed:
            self._in_flight -= 1
            self._reserved_in -= reserved[0]
            self._reserved_out -= reserved[1]
            self.tokens_in += used[0]
            self.tokens_out += used[1]
            self._overrun |= used[0] > reserved[0] or used[1] > reserved[1]
            self._changed.notify_all()

    def may_repeat(self) -> bool:
        """Whether another answer that may have been charged for may be asked for again."""
        with self._changed:
            self.repeats += 1
            return self.maximum is None or self.repeats <= self.maximum.repeats

    def _fits(self, tokens_in: int, tokens_out: int) -> bool:
        all_in = self.tokens_in + self._reserved_in + tokens_in
        all_out = self.tokens_out + self._reserved_out + tokens_out
        cap, most = self.settings.max_cost, self.maximum
        if self._overrun or (cap is not None and self.cost(all_in, all_out) > cap):
            return False
        return most is None or (
            self.requests < most.requests and all_in <= most.tokens_in and all_out <= most.tokens_out
        )

    def _exceeded(self, tokens_in: int, tokens_out: int) -> BudgetExceeded:
        url, limit = self.settings.url, self.settings.max_cost
        if self._overrun:
            return BudgetExceeded(
                "The endpoint reported more tokens than a request may use, so its costs cannot be foretold.",
                url,
                "Check its prices and its max_tokens. Answers so far are kept: run the same command to continue.",
            )
        if limit is not None and self.cost(self.tokens_in + tokens_in, self.tokens_out + tokens_out) > limit:
            return BudgetExceeded(
                "The next request could exceed the spending cap of {limit:g} ({spent:.4g} spent so far).",
                url,
                "Answers so far are kept: run the same command with a higher --max-cost to continue.",
                limit=limit,
                spent=self.spent,
            )
        return BudgetExceeded(
            "The next request could exceed what was foretold ({requests} requests so far).",
            url,
            "Answers so far are kept: run the same command to continue.",
            requests=self.requests,
        )


def max_prompt_tokens(messages: Sequence[Message]) -> int:
    """More tokens than any tokenizer makes of the messages: one for each byte, and TURN_TOKENS for each turn."""
    return sum(len(message.text.encode("utf-8", "surrogatepass")) + TURN_TOKENS for message in messages)
