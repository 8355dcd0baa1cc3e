"""A client for OpenAI-compatible chat endpoints: addresses, request bodies and retries."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from sartor.base.api_keys import check_url
from sartor.base.errors import ConfigError
from sartor.base.openai_answers import (
    ERROR_BYTES,
    LineReader,
    RequestError,
    StreamedAnswer,
    compressed,
    not_a_stream,
    read_completion,
    refused,
    too_slow,
    unreachable,
)
from sartor.base.settings import GenerationSettings
from sartor.base.types import Completion, Message, Tool

ATTEMPTS = 5
PAID_ATTEMPTS = 2
"""Attempts at one answer that may have been charged for without arriving."""
MAX_WAIT_S = 60.0
"""No single wait between two attempts is longer, whatever Retry-After says."""
TIMEOUT = httpx.Timeout(120.0, connect=10.0)
"""Between two pieces of an answer."""
MAX_ANSWER_S = 1800.0
"""A whole answer, however small its pieces."""
MAX_RESPONSE_BYTES = 16_000_000
MAX_STREAM_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's base URL, which usually ends in /v1, and the model to use there."""

    url: str
    model: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """`http://host:port/v1#model`. Raises: ConfigError without a model or for a malformed URL."""
        url, _, model = text.partition("#")
        if not model:
            raise ConfigError(
                "The address names no model.", text, "Add it after a #, as in http://host:port/v1#my-model."
            )
        check_url(url)
        return cls(url, model)

    @property
    def completions_url(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What a request holds besides its messages; None leaves the choice to the server."""

    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    thinking: bool | None = None
    tools: tuple[Tool, ...] = ()

    @classmethod
    def from_settings(
        cls,
        generation: GenerationSettings,
        *,
        seed: int | None = None,
        thinking: bool | None = None,
        tools: Sequence[Tool] = (),
    ) -> RequestOptions:
        """Temperature 0 where nothing is sampled; top_k and repetition_penalty are not part of the protocol."""
        sampled = generation.do_sample
        return cls(
            max_tokens=generation.max_new_tokens,
            temperature=generation.temperature if sampled else 0,
            top_p=generation.top_p if sampled else None,
            seed=seed,
            thinking=thinking,
            tools=tuple(tools),
        )

    def body(self, model: str, messages: Sequence[Message], *, stream: bool = False) -> dict[str, Any]:
        """The JSON of a chat completion request; `thinking` is sent as vLLM and SGLang expect it."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "max_tokens": self.max_tokens,
            **{name: value for name, value in sampling.items() if value is not None},
        }
        if stream:
            body["stream"] = True
        if self.tools:
            body["tools"] = [
                tool if "function" in tool else {"type": "function", "function": tool} for tool in self.tools
            ]
        if self.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        return body


class ChatClient:
    """Sends conversations to one model at one endpoint; safe to share between threads.

    Redirects are not followed, so neither the messages nor the key reach another host than the one that was named.
    """

    # A client, and what tests replace in it.
    def __init__(
        self,
        address: Address,
        options: RequestOptions | None = None,
        key: str | None = None,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises: ConfigError for a malformed URL. Transports, `clock` and `sleep` are replaced in tests."""
        check_url(address.url)
        self.address, self.options, self._key = address, options or RequestOptions(), key
        self.headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._sleep, self._clock = sleep, clock
        self._transport, self._async_transport = transport, async_transport

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(headers=self.headers, timeout=TIMEOUT, transport=self._transport, follow_redirects=False)

    def complete(self, messages: Sequence[Message]) -> Completion:
        """The model's answer. Raises: RequestError after the last attempt, or at once if another one is pointless."""
        return with_retries(lambda _: self.send(messages), self._sleep)

    def send(self, messages: Sequence[Message]) -> Completion:
        """The model's answer to a single request. Raises: RequestError."""
        body, url = self.options.body(self.address.model, messages), self.address.url
        body_bytes = _Body(url, self._clock)
        try:
            with self._http.stream("POST", self.address.completions_url, json=body) as response:
                limit = body_bytes.limit_of(response, MAX_RESPONSE_BYTES)
                for block in response.iter_bytes():
                    if body_bytes.add(block) >= limit:
                        break
                if not response.is_success:
                    raise refused(response, body_bytes.content[:limit], url, self._key)
        except httpx.HTTPError as error:
            raise unreachable(error, url, self._key) from None
        return read_completion(body_bytes.content, url)

    async def stream(self, messages: Sequence[Message]) -> AsyncIterator[Completion]:
        """The answer so far, after every event of the stream; never retried. Raises: RequestError."""
        body, url = self.options.body(self.address.model, messages, stream=True), self.address.url
        answer, lines, body_bytes = StreamedAnswer(url, self._key), LineReader(url), _Body(url, self._clock)
        try:
            async with (
                httpx.AsyncClient(
                    headers=self.headers, timeout=TIMEOUT, transport=self._async_transport, follow_redirects=False
                ) as http,
                http.stream("POST", self.address.completions_url, json=body) as response,
            ):
                limit = body_bytes.limit_of(response, MAX_STREAM_BYTES)
                async for block in response.aiter_bytes():
                    size = body_bytes.add(block, keep=not answer.events)
                    for line in lines.add(block) if response.is_success else ():
                        if answer.add(line):
                            yield answer.completion
                    if size >= limit or answer.too_long:
                        break
                if not response.is_success:
                    raise refused(response, body_bytes.content[:limit], url, self._key)
        except httpx.HTTPError as error:
            raise unreachable(error, url, self._key) from None
        if answer.add(lines.end()):
            yield answer.completion
        if not answer.events:  # a server that does not stream answers in one piece
            if body_bytes.content.lstrip()[:1] not in (b"{", b"<"):
                raise not_a_stream(url)
            yield read_completion(body_bytes.content, url)


class _Body:
    """The bytes of a response, as they arrive; ends one that takes too long."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self.url, self._clock, self._began = url, clock, clock()
        self._content, self._size = bytearray(), 0

    @property
    def content(self) -> bytes:
        return bytes(self._content)

    def limit_of(self, response: httpx.Response, limit: int) -> int:
        """How much of it is read. Raises: RequestError for a compressed body."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise (compressed(encoding, self.url) if response.is_success else refused(response, b"", self.url))
        return limit if response.is_success else ERROR_BYTES

    def add(self, block: bytes, *, keep: bool = True) -> int:
        """Returns the bytes so far. Raises: RequestError when MAX_ANSWER_S have passed."""
        if keep and len(self._content) < MAX_RESPONSE_BYTES:
            self._content += block
        self._size += len(block)
        if self._clock() - self._began > MAX_ANSWER_S:
            raise too_slow(self.url, MAX_ANSWER_S)
        return self._size


def with_retries(attempt: Callable[[int], Completion], sleep: Callable[[float], object] = time.sleep) -> Completion:
    """The first answer of `attempt(0)`, `attempt(1)`, …; waits double from one second and follow Retry-After.

    Raises: the RequestError of the last of ATTEMPTS attempts, of the last of PAID_ATTEMPTS that may have been charged
    for, or the first that is not retryable.
    """
    wait_s, paid = 1.0, 0
    for number in range(ATTEMPTS):
        if number:
            sleep(min(wait_s, MAX_WAIT_S))
            wait_s *= 2
        try:
            return attempt(number)
        except RequestError as error:
            paid += error.maybe_billed
            if not error.retryable or number == ATTEMPTS - 1 or paid >= PAID_ATTEMPTS:
                raise
            wait_s = max(wait_s, error.retry_after_s)
    raise AssertionError("the last attempt returns or raises")
