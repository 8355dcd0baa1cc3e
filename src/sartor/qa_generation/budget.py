"""A spending cap that holds with several requests in flight: money is reserved before a request is sent."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sartor.base.errors import RunError
from sartor.base.types import Message
from sartor.qa_generation.settings import EndpointSettings

TURN_TOKENS = 16
"""The most that a chat template adds to a turn."""


class BudgetExceeded(RunError):
    """The next request could bring the total above the spending cap."""


class Budget:
    """What has been spent at an endpoint; without a `max_cost` it only counts."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings, self.spent = settings, 0.0
        self._reserved, self._changed = 0.0, threading.Condition()

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """The price of a request, in the user's currency."""
        return (tokens_in * self.settings.price_in + tokens_out * self.settings.price_out) / 1e6

    def reserve(self, worst_case: float) -> None:
        """Wait until this much is free. Raises: BudgetExceeded when no request in flight can free it."""
        limit = self.settings.max_cost
        if limit is None:
            return
        with self._changed:
            self._changed.wait_for(lambda: self.spent + self._reserved + worst_case <= limit or not self._reserved)
            if self.spent + worst_case > limit:
                raise BudgetExceeded(
                    "The next request could exceed the spending cap of {limit:g} ({spent:.4g} spent so far).",
                    self.settings.url,
                    "Answers so far are kept: run the same command with a higher --max-cost to continue.",
                    limit=limit,
                    spent=self.spent,
                )
            self._reserved += worst_case

    def settle(self, worst_case: float, cost: float) -> None:
        """Replace a reservation by what the request really cost."""
        with self._changed:
            self.spent += cost
            if self.settings.max_cost is not None:
                self._reserved = max(self._reserved - worst_case, 0.0)
                if self._reserved < 1e-12:  # rounding must not look like a request in flight
                    self._reserved = 0.0
            self._changed.notify_all()


def max_prompt_tokens(messages: Sequence[Message]) -> int:
    """More tokens than any tokenizer makes of the messages: one for each byte, and TURN_TOKENS for each turn."""
    return sum(len(message.text.encode("utf-8", "surrogatepass")) + TURN_TOKENS for message in messages)
