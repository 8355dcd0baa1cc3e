"""An OpenAI-compatible endpoint asked with patience and a spending cap; knows no documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from sartor.base.errors import EndpointError, RunError
from sartor.base.types import Message
from sartor.data.generate.run import Completion

ATTEMPTS = 5
LONGEST_WAIT_S = 60.0
BUSY = (408, 409, 425, 429)


class Endpoint:
    """Completes one conversation at a time; prices are per million tokens, in the user's currency."""

    def __init__(
        self, url: str, model: str, key: str | None = None, *, most_spent: float | None = None, price_in: float = 0.0,
        price_out: float = 0.0, max_tokens: int = 1024, timeout_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.url, self.model, self.max_tokens, self.sleep = url.rstrip("/"), model, max_tokens, sleep
        self.most_spent, self.price_in, self.price_out, self.spent = most_spent, price_in, price_out, 0.0
        self.http = httpx.Client(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=timeout_s)

    def __call__(self, messages: Sequence[Message]) -> Completion:
        """Raises: EndpointError after several tries, RunError before a request that could pass the spending cap."""
        turns = [{"role": message.role, "content": message.text} for message in messages]
        worst = self._price(sum(len(message.text) for message in messages), self.max_tokens)
        reason, wait = "", 1.0
        for attempt in range(ATTEMPTS):
            if attempt:
                self.sleep(min(wait, LONGEST_WAIT_S))
                wait *= 2
            if self.most_spent is not None and self.spent + worst > self.most_spent:
                fix = "Answers so far are kept: run the same command with a higher --max-cost to go on."
                raise RunError(f"The next request could pass the cap of {self.most_spent:g}.", self.url, fix)
            try:
                body = {"model": self.model, "messages": turns, "max_tokens": self.max_tokens}
                response = self.http.post(f"{self.url}/chat/completions", json=body)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return self._read(response, sum(len(message.text) for message in messages))
            reason = f"status {response.status_code}"
            if response.status_code not in BUSY and response.status_code < 500:
                break
            try:
                wait = max(wait, float(response.headers.get("Retry-After", "0")))
            except ValueError:  # a date
                wait = max(wait, LONGEST_WAIT_S / 2)
        raise EndpointError(f"The endpoint did not answer: {reason}.", self.url, "Check address, key and model.")

    def _read(self, response: httpx.Response, characters: int) -> Completion:
        try:
            value: Any = response.json()
            text = value["choices"][0]["message"]["content"]
            if not isinstance(text, str):
                raise TypeError("content is no text")
            used = value.get("usage") or {}
            tokens_in = int(used.get("prompt_tokens", characters))
            tokens_out = int(used.get("completion_tokens", len(text)))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            self.spent += self._price(characters, self.max_tokens)
            raise EndpointError(
                "The endpoint's answer is no chat completion.", self.url, "Does the address end in /v1?"
            ) from None
        self.spent += self._price(tokens_in, tokens_out)
        return Completion(text, tokens_in, tokens_out)

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6
